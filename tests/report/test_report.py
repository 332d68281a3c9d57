"""The report of a small run, as a file and in a browser."""

import re
import shutil
import subprocess

import pytest
from small_project import EXPERIMENTS, make_project, write_experiment

from foldsmith.config import Project
from foldsmith.pipeline import run
from foldsmith.report import write_report

BACKBONE = "output/000/backbone_epoch_3.pth"
FROZEN = {
    "import": "foldsmith:frozen_features.yml",
    "globals/output_root": "output/300",
    "model/base_name": "resnet10t",
    "model/pretrained": BACKBONE,
    "dataset/img_size": 32,
}
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def project(tmp_path_factory, small_photos):
    folder = make_project(tmp_path_factory.mktemp("report") / "project", small_photos)
    text = (folder / "project.yml").read_text()
    (folder / "project.yml").write_text(text.replace("name: small", 'name: "<b>small"'))
    write_experiment(folder, "300", FROZEN)
    members = {"ensemble/experiments": ["output/100", "output/200", "output/300"]}
    write_experiment(folder, "900", EXPERIMENTS["900"] | members)
    opened = Project.open(folder)
    run(opened, "exp_config/900.yml")
    return opened


@pytest.fixture(scope="module")
def page(project):
    return write_report(project, "exp_config/900.yml").read_text(encoding="utf-8")


def test_it_has_every_part(page):
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == [
        *("Data", "Pretraining 000", "Experiment 100", "Experiment 200", "Experiment 300"),
        *("Ensemble 900", "Cost", "Configuration"),
    ]
    for words in (
        *("24 labelled photos, 8 to predict", "Photos of each fold", "Loss; spread of the"),
        *("Learning curves of all folds", "confusion", "by art_series_id", "Worst predictions"),
        *("Best predictions", "by the features of 300", "its nearest by cosine"),
        *("submit ", "Weight of each member", "err alike", "of work in"),
    ):
        assert words in page, words
    # Sizes; curves of a pretraining and its map; two for each experiment and curves of two; two.
    assert page.count("data:image/svg+xml;base64,") >= 12
    # Twelve worst and twelve best of each experiment, and neighbours, as photos.
    assert page.count("data:image/jpeg;base64,") >= 3 * 24
    assert not re.search(r"did not|is not done yet", page)


def test_the_worst_are_worse_than_the_best(page):
    section = page.partition('id="experiment-200"')[2].partition("</section>")[0]
    worst, _, best = section.partition("Worst predictions")[2].partition("Best predictions")
    of = re.compile(r"true ([\d.]+), predicted ([\d.]+)<")
    errors = [[abs(float(t) - float(p)) for t, p in of.findall(text)] for text in (worst, best)]
    assert len(errors[0]) == len(errors[1]) == 12
    assert errors[0] == sorted(errors[0], reverse=True) and errors[1] == sorted(errors[1])
    assert errors[0][0] > errors[1][0]


def test_nothing_is_fetched_and_nothing_is_markup_that_should_be_text(page):
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "@import" not in page and "url(" not in page
    assert "&lt;b&gt;small" in page and "<b>small" not in page


def test_what_is_not_done_is_said(tmp_path, small_photos, cli):
    folder = make_project(tmp_path / "project", small_photos)
    cli(folder, "report", "-cfg", "exp_config/900.yml", "-o", "mine.html")
    text = (folder / "mine.html").read_text(encoding="utf-8")
    assert text.count("is not done yet") == 6


def test_what_is_out_of_date_is_not_shown_as_if_it_were_not(project):
    overrides = ["100:optimizer/lr=0.5"]
    path = write_report(project, "exp_config/900.yml", overrides, project.folder / "other.html")
    text = path.read_text(encoding="utf-8")
    section = text.partition('id="experiment-100"')[2].partition("</section>")[0]
    assert "out of date" in section and "<img" not in section
    assert "Learning curves" in text.partition('id="experiment-200"')[2].partition("</section>")[0]


def test_a_run_ends_with_a_report_unless_told_not_to(tmp_path, small_photos, cli):
    folder = make_project(tmp_path / "project", small_photos)
    write_experiment(folder, "000", EXPERIMENTS["000"] | {"globals/max_epoch": 1})
    first = cli(folder, "run", "--no-report", "-cfg", "exp_config/000.yml")
    assert "reports" not in first.stdout and not (folder / "reports").exists()
    second = cli(folder, "run", "-cfg", "exp_config/000.yml")
    assert "reports/000.html" in second.stdout
    assert "Pretraining 000" in (folder / "reports/000.html").read_text(encoding="utf-8")


# What a person would do: sort a table, twice, and filter a long one.
USE_IT = """<script>
const heads = [...document.querySelectorAll("th button")];
const head = heads.find((button) => button.textContent === "RMSE");
const table = head.closest("table");
const column = head.closest("th").cellIndex;
const cells = () => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent);
head.click(); const up = cells(); head.click(); const down = cells();
const search = table.closest("figure").querySelector("input");
search.value = table.tBodies[0].rows[0].cells[0].textContent;
search.dispatchEvent(new Event("input"));
const left = [...table.tBodies[0].rows].filter((row) => !row.hidden).length;
const images = [...document.images];
Promise.all(images.map((image) => image.decode())).then(() => {
  const result = document.createElement("pre");
  result.id = "result";
  result.textContent = JSON.stringify({
    up, down, left, images: images.length, empty: images.filter((i) => !i.naturalWidth).length,
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  });
  document.body.append(result);
});
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [390, 1200])
def test_it_works_in_a_browser(tmp_path, page, width):
    import html
    import json

    (tmp_path / "page.html").write_text(page.replace("</body>", USE_IT + "</body>"), "utf-8")
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom"),
        *(f"--window-size={width},900", "--virtual-time-budget=10000"),
        (tmp_path / "page.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout)
    assert found is not None, done.stdout[-500:]
    result = json.loads(html.unescape(found[1]))
    assert result["up"] == sorted(result["up"], key=float)
    assert result["down"] == result["up"][::-1] and result["up"] != result["down"]
    assert result["left"] == 1
    assert result["images"] > 80 and result["empty"] == 0
    # Tables scroll in their own boxes; the page does not scroll sideways.
    assert result["wide"] <= 0
