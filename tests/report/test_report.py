"""The report of a small run and that of two, as files and in a browser."""

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from small_project import EXPERIMENTS, make_project, write_experiment

from foldsmith.config import Context, Experiment
from foldsmith.errors import OutputError
from foldsmith.inference.saliency import grad_cam
from foldsmith.models.snapshots import load_weights
from foldsmith.project import ProjectFolder
from foldsmith.report import figures, write_report
from foldsmith.report.finished_run import read_finished
from foldsmith.report.heat_maps import look_at
from foldsmith.report.run_comparison import compare_runs
from foldsmith.run.engine import run
from foldsmith.steps.epoch_advice import improving_folds, more_epochs_may_help
from foldsmith.steps.registry import types_of
from foldsmith.targets.tasks import create_task

BACKBONE = "output/000/backbone_epoch_3.pth"
FROZEN = {
    "import": "foldsmith:frozen_features.yml",
    "globals/output_root": "output/300",
    "model/base_name": "test_resnet",
    "model/pretrained": BACKBONE,
    "dataset/img_size": 32,
}
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def project(tmp_path_factory, small_images):
    folder = make_project(tmp_path_factory.mktemp("report") / "project", small_images)
    text = (folder / "project.yml").read_text()
    (folder / "project.yml").write_text(text.replace("name: small", 'name: "<b>small"'))
    write_experiment(folder, "300", FROZEN)
    # Large enough for a map of more than one cell.
    write_experiment(folder, "200", EXPERIMENTS["200"] | {"dataset/img_size": 64})
    members = {"ensemble/experiments": ["output/100", "output/200", "output/300"]}
    write_experiment(folder, "900", EXPERIMENTS["900"] | members)
    other = {"globals/output_path": "output/901", "ensemble/methods": ["mean", "stack", "ridge"]}
    write_experiment(folder, "901", EXPERIMENTS["900"] | other)
    opened = ProjectFolder.open(folder)
    run(opened, "exp_config/900.yml")
    run(opened, "exp_config/901.yml")
    return opened


def test_a_file_that_is_no_report_stays(project, tmp_path):
    for content in ("<html>my own notes</html>", ""):
        mine = tmp_path / "900.html"
        mine.write_text(content)
        with pytest.raises(OutputError, match="is not a foldsmith report"):
            write_report(project, "exp_config/900.yml", output=mine)
        assert mine.read_text() == content
    # Its own one is written anew.
    mine.unlink()
    for _ in range(2):
        assert write_report(project, "exp_config/900.yml", output=mine) == mine


@pytest.fixture
def copied(tmp_path, project):
    """The same project elsewhere, to be changed."""
    folder = tmp_path / "copied"
    shutil.copytree(project.folder, folder)
    return ProjectFolder.open(folder)


@pytest.fixture(scope="module")
def page(project):
    return write_report(project, "exp_config/900.yml").read_text(encoding="utf-8")


def section(text, name):
    return text.partition(f'id="{name}"')[2].partition("</section>")[0]


def test_it_has_every_part(page):
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == [
        *("Data", "Pretraining 000", "Experiment 100", "Experiment 200", "Experiment 300"),
        *("Ensemble 900", "Cost", "Configuration"),
    ]
    for words in (
        *("24 labelled images, 8 to predict", "Images of each fold", "Loss; spread of the"),
        *("Learning curves of all folds", "confusion", "by art_series_id", "Worst predictions"),
        *("Best predictions", "by the features of 300", "its nearest by cosine"),
        *("submit ", "Weight of each member", "err alike", "of work in", "host MiB"),
    ):
        assert words in page, words
    # Sizes; curves of a pretraining and its map; two for each experiment and curves of two; two.
    assert page.count("data:image/svg+xml;base64,") >= 12
    # Twelve worst and twelve best of each experiment, and neighbours, as images.
    assert page.count("data:image/jpeg;base64,") >= 3 * 24
    assert not re.search(r"did not|is not done yet", page)


def test_the_constant_stands_beside_the_scores(page):
    for name in ("experiment-100", "experiment-200", "experiment-300"):
        assert "The constant, the same prediction for every image: RMSE 0." in section(page, name)
    text = section(page, "ensemble-900")
    assert "Out-of-fold score of each member" in text and "constant (the same" in text
    # Nothing is grouped in these images, each of which is a group of its own.
    assert "by group" not in text


def test_it_says_that_validation_still_improves(copied):
    """The logs of finished trainings are what counts; here they are made up."""
    for fold in range(2):
        path = copied.path(f"output/100/fold{fold}/log.json")
        log = json.loads(path.read_text())
        for k, entry in enumerate(log):
            entry["val/metric"] = 1.0 / (1 + k)
        path.write_text(json.dumps(log))
    said = "still improves at the last epoch in 2 of 2 folds: more epochs may help"
    advice = more_epochs_may_help(copied.path("output/100"), 2)
    assert said in advice and advice.endswith("(globals/max_epoch 3 -> 6)")
    # Two epochs, as the other experiment has, show no trend.
    assert more_epochs_may_help(copied.path("output/200"), 2) == ""


@pytest.mark.parametrize(
    ("bests", "n"),
    [([20, 20, 20, 3, 5], 3), ([20, 19, 18, 18, 18], 2), ([5, 6, 7, 8, 9], 0), ([20] * 5, 5)],
)
@pytest.mark.parametrize("upwards", [False, True])
def test_in_how_many_folds_validation_was_best_near_the_end(bests, n, upwards):
    sign = 1 if upwards else -1
    logs = [
        [{"epoch": k, "val/metric": -sign * abs(k - best)} for k in range(1, 21)] for best in bests
    ]
    assert improving_folds(logs, upwards) == n


def drawn(axis):
    return np.vstack([np.asarray(each.get_offsets()) for each in axis.collections])


def test_points_lie_at_their_targets_unless_these_are_few():
    ages = np.arange(70.0)
    left = figures.predictions(ages, ages, [0.0, 69.0]).axes[0]
    np.testing.assert_array_equal(drawn(left)[:, 0], ages)
    assert "spread" not in left.get_title()
    few = np.repeat([0.0, 1.0, 2.0], 20)
    left = figures.predictions(few, few, [0.0, 1.0, 2.0]).axes[0]
    apart = np.abs(drawn(left)[:, 0] - few)
    assert 0 < apart.max() <= 0.2 and "spread" in left.get_title()


def test_classes_without_an_order_have_no_colour_scale():
    rng = np.random.default_rng(0)
    targets, names = np.repeat(np.arange(3.0), 10), ["cat", "dog", "fox"]
    features = rng.normal(size=(30, 4)).astype(np.float32)
    points = rng.normal(size=(2, 30))
    for named, figure in (
        (True, figures.map_of(features, targets, names)),
        (False, figures.map_of(features, targets)),
        (True, figures.prediction_against_prediction(points, targets, "x", names)),
        (False, figures.prediction_against_prediction(points, targets, "x")),
    ):
        # A colour scale is an axis of its own.
        assert len(figure.axes) == (1 if named else 2)
        legend = figure.axes[0].get_legend()
        texts = [text.get_text() for text in legend.get_texts()] if legend else []
        assert texts == (names if named else [])
        assert len(drawn(figure.axes[0])) == 30


def test_the_worst_are_worse_than_the_best(page):
    galleries = section(page, "experiment-200").partition("; on the right the heat map")[0]
    worst, _, best = galleries.partition("Worst predictions")[2].partition("Best predictions")
    of = re.compile(r"true ([\d.]+), predicted ([\d.]+)<")
    errors = [[abs(float(t) - float(p)) for t, p in of.findall(text)] for text in (worst, best)]
    assert len(errors[0]) == len(errors[1]) == 12
    assert errors[0] == sorted(errors[0], reverse=True) and errors[1] == sorted(errors[1])
    assert errors[0][0] > errors[1][0]


def test_of_very_many_images_some_are_drawn():
    assert figures.sampled(0).tolist() == []
    assert figures.sampled(1000).tolist() == list(range(1000))
    chosen = figures.sampled(1_000_000)
    assert len(set(chosen.tolist())) == figures.POINTS
    assert (chosen[0], chosen[-1]) == (0, 999_999)
    info = pd.DataFrame({"height": np.arange(50_000), "width": 1})
    (points,) = figures.sizes(info).axes[0].collections
    assert len(points.get_offsets()) == figures.POINTS


def test_nothing_is_fetched_and_nothing_is_markup_that_should_be_text(page):
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    assert "@import" not in page and "url(" not in page
    assert "&lt;b&gt;small" in page and "<b>small" not in page


def test_what_is_not_done_is_said(tmp_path, small_images, cli):
    folder = make_project(tmp_path / "project", small_images)
    cli(folder, "report", "-cfg", "exp_config/900.yml", "-o", "mine.html")
    text = (folder / "mine.html").read_text(encoding="utf-8")
    assert text.count("is not done yet") == 6


def test_what_is_out_of_date_is_not_shown_as_if_it_were_not(project):
    overrides = ["100:optimizer/lr=0.5"]
    path = write_report(project, "exp_config/900.yml", overrides, project.folder / "other.html")
    text = path.read_text(encoding="utf-8")
    stale = section(text, "experiment-100")
    assert "The results are stale (" in stale and "<img" not in stale
    assert "Learning curves" in section(text, "experiment-200")


def test_a_run_ends_with_a_report_unless_told_not_to(tmp_path, small_images, cli):
    folder = make_project(tmp_path / "project", small_images)
    write_experiment(folder, "000", EXPERIMENTS["000"] | {"globals/max_epoch": 1})
    first = cli(folder, "run", "--no-report", "-cfg", "exp_config/000.yml")
    assert "reports" not in first.stdout and not (folder / "reports").exists()
    second = cli(folder, "run", "-cfg", "exp_config/000.yml")
    assert "reports/000.html" in second.stdout
    assert "Pretraining 000" in (folder / "reports/000.html").read_text(encoding="utf-8")


def test_what_models_looked_at_is_shown(page):
    text = section(page, "experiment-200")
    # Two cells a side show no place: the map is that of the stage before the last.
    assert "that move the prediction, up or down, on a grid of 4 x 4 (Grad-CAM)" in text
    worst, _, best = text.partition(">Worst; on the right")[2].partition(">Best; on the right")
    assert worst.count("data:image/jpeg") == best.count("data:image/jpeg") == 4
    # They are the first of the galleries of the worst and best predictions.
    of = re.compile(r">(\w+): true")
    first = of.findall(text.partition("Worst predictions")[2])[:4]
    assert of.findall(worst) == first
    # An image of 32 px leaves ResNet with one cell, and two a side in the stage before.
    assert "have 2 x 2 cells, too few to show a place" in section(page, "experiment-100")
    assert "Grad-CAM" not in section(page, "experiment-100")
    # Frozen features are no model that could be looked into.
    assert "eat map" not in section(page, "experiment-300")


def test_images_that_are_chosen_are_looked_at(project, cli):
    ids = pd.read_csv(project.fold_table, dtype=str)["object_id"]
    options = ["--look-at", f"{ids[3]},{ids[7]}", "-o", "looked.html"]
    cli(project.folder, "report", "-cfg", "exp_config/900.yml", *options)
    text = section((project.folder / "looked.html").read_text("utf-8"), "experiment-200")
    chosen = text.partition(">Chosen images;")[2].partition(">Worst; on the right")[0]
    assert re.findall(r">(\w+): true", chosen) == [ids[3], ids[7]]
    assert chosen.count("data:image/jpeg") == 2
    options = ["--look-at", f"{ids[3]},no-such-id"]
    wrong = cli(project.folder, "report", "-cfg", "exp_config/900.yml", *options, code=2)
    assert "--look-at no-such-id: no labelled image has such an id" in wrong.stderr


def test_the_model_that_looks_has_not_seen_the_image(project):
    root = project.path("output/200")
    folds = pd.read_csv(project.fold_table)["fold"]
    rows = [int(np.flatnonzero(folds == fold)[1]) for fold in (1, 0)]
    experiment = Experiment.load(project, root / "resolved_config.yml")
    task = create_task(experiment.globals, project)
    context = Context(task=task)
    parts = experiment.with_values({"model/pretrained": None}).build(types_of(project), context)
    model, normalize = parts["model"], parts["dataset/val/transforms"][-1]
    looked, _ = look_at(project, root, "metric", rows)
    for fold, one in zip((1, 0), looked, strict=True):
        image = torch.from_numpy(normalize.apply(one.view, None)).permute(2, 0, 1)[None]
        maps = {}
        for other in (0, 1):
            load_weights(model, root / f"best_metric_model_fold{other}.pth")
            maps[other] = grad_cam(model.eval(), image, task.explained())[0]
        np.testing.assert_allclose(one.heat, maps[fold], atol=1e-4)
        assert np.abs(one.heat - maps[1 - fold]).max() > 1e-3


def test_results_are_shown_without_the_weights_behind_them(copied):
    for path in copied.folder.glob("output/200/**/*.pth"):
        path.unlink()
    text = write_report(copied, "exp_config/900.yml").read_text("utf-8")
    assert "The results are stale" not in text
    assert "Worst predictions" in section(text, "experiment-200")
    shown = section(text, "experiment-200")
    said = re.search(r"The heat maps cannot be drawn: (.*?)</p>", shown)[1]
    assert "_model_fold0.pth: no such file" in html.unescape(said) and "foldsmith infer" in said


def rmse(predictions, targets):
    return float(np.sqrt(np.mean((predictions - targets) ** 2)))


def test_ensembles_keep_what_their_honest_scores_are_of(project):
    for folder in ("output/900", "output/901"):
        kept = pd.read_csv(project.path(folder) / "cross_fitted_predictions.csv")
        scores = pd.read_csv(project.path(folder) / "ensemble_scores.csv", index_col="name")
        honest = scores["cross_fitted"].dropna()
        assert list(kept.columns) == ["object_id", "fold", "target", *honest.index]
        for name, score in honest.items():
            assert rmse(kept[name], kept["target"]) == pytest.approx(score, abs=1e-9)
    # Trees that were fitted on all rows know them; those of the other folds do not.
    assert honest["stack"] > scores.loc["stack", "rmse"]


def test_two_runs_are_compared_by_what_is_honest(project, cli):
    done = cli(project.folder, "compare", "output/900", "output/200")
    blend = pd.read_csv(project.path("output/900/cross_fitted_predictions.csv"))
    single = pd.read_csv(project.path("output/200/oof_prediction_by_best_metric.csv"))
    name = re.search(r"A output/900 \((.*?)\)", done.stdout)[1]
    manifest = json.loads(project.path("output/900/manifest.json").read_text())
    assert name == manifest["facts"]["submit"]
    a, b = rmse(blend[name], blend["target"]), rmse(single["prediction"], single["target"])
    assert f"RMSE {a:.4f} [" in done.stdout and f"RMSE {b:.4f} [" in done.stdout
    assert "cross-fitted" in done.stdout and "; in sample " in done.stdout
    assert "single experiment, out of fold, each fold's epoch chosen by its own" in done.stdout
    assert f"gain of B over A {a - b:+.4f}" in done.stdout
    assert re.search(r"[AB] is better than [AB] (by more|on these images, but)", done.stdout)
    assert "note:" not in done.stdout
    assert "wrote reports/compare_900_200.html" in done.stdout


def test_whether_a_difference_is_more_than_noise(project):
    a = read_finished("output/900", project.folder)
    said = a.predictions

    def against(points):
        return compare_runs(a, replace(a, predictions=replace(said, points=points)))

    better = against((said.points + said.targets) / 2)
    assert better.verdict == "B is better than A by more than noise: 0 lies outside the interval"
    assert better.scores[1].gain == pytest.approx(better.scores[0].score / 2)
    assert (better.by_fold["gain"] > 0).all()
    worse = against(2 * said.points - said.targets)
    assert worse.verdict == "A is better than B by more than noise: 0 lies outside the interval"
    assert against(said.points).verdict == "A and B are equally good"
    noise = np.random.default_rng(0).normal(0, 0.02, len(said.points))
    assert "that may be noise" in against(said.points + noise).verdict


def test_runs_are_compared_on_the_images_that_both_have(project):
    a, b = (read_finished(f"output/{name}", project.folder) for name in (900, 200))
    said = b.predictions
    # In another order, and without some.
    some = np.random.default_rng(0).permutation(len(said.rows))[5:]
    comparison = compare_runs(a, replace(b, predictions=said.take(some)))
    assert comparison.shared[0].ids == comparison.shared[1].ids
    assert sorted(comparison.shared[0].ids) == sorted(said.ids[k] for k in some)
    expected = rmse(said.points[some], said.targets[some])
    assert comparison.scores[1].score == pytest.approx(expected)
    assert comparison.notes == ["compared on 19 shared images (A predicted 24, B 19)"]
    moved = replace(said, rows=said.rows.assign(fold=1 - said.rows["fold"]))
    other_folds = compare_runs(a, replace(b, predictions=moved))
    assert "gain" not in other_folds.by_fold
    assert other_folds.notes == ["the folds of A and B differ; each is scored out of its own folds"]
    strangers = replace(said, rows=said.rows.assign(id="x" + said.rows["id"]))
    with pytest.raises(OutputError, match="0 of the 24 and 24 ids are shared"):
        compare_runs(a, replace(b, predictions=strangers))
    targets = said.targets + (np.arange(len(said.targets)) == 7)
    changed = replace(said, targets=targets)
    with pytest.raises(OutputError, match=rf"1 of them have different targets.*{said.ids[7]}"):
        compare_runs(a, replace(b, predictions=changed))


def test_runs_of_two_folders_and_what_is_out_of_date(project, copied, cli):
    a, b = project.path("output/900"), copied.path("output/901")
    done = cli(project.folder, "compare", a, b, "-o", "mine.html")
    assert (project.folder / "mine.html").is_file() and "note:" not in done.stdout
    image = next(copied.data_dir.glob("photos/*.jpg"))
    image.write_bytes(image.read_bytes() + b" ")
    done = cli(project.folder, "compare", a, b, "-o", "mine.html")
    assert re.search(r"note: B is out of date: .*", done.stdout)
    assert "A is out of date" not in done.stdout
    assert "Note: B is out of date" in (project.folder / "mine.html").read_text("utf-8")


def test_runs_that_cannot_be_compared_say_why(copied, cli):
    def error(*arguments):
        return cli(copied.folder, "compare", *arguments, code=2).stderr

    assert "output/900: is both runs" in error("output/900", "output/900")
    assert "output/000: a self-supervised run has no predictions" in error(
        "output/000", "output/900"
    )
    assert "output/nothing: holds no finished run" in error("output/nothing", "output/900")
    shutil.rmtree(copied.path("output/901"))
    remedy = "'foldsmith run -cfg exp_config/901.yml' makes it"
    assert f"output/901: holds no finished run; {remedy}" in error("output/900", "output/901")
    (copied.path("output/200") / "manifest_by_best_metric.json").unlink()
    said = error("output/200", "output/300")
    assert "output/200: is not finished by metric; 'foldsmith run -cfg exp_config/200.yml'" in said
    said = error("output/100", "output/900", "-cri", "last")
    assert "'foldsmith infer -e output/100 -cri last' makes it" in said
    manifest = copied.path("output/900/manifest.json")
    content = json.loads(manifest.read_text())
    del content["sha256"]  # of the content as it was
    del content["outputs"]["cross_fitted_predictions.csv"]
    manifest.write_text(json.dumps(content))
    said = error("output/300", "output/900")
    assert "'foldsmith ensemble -cfg exp_config/900.yml -f' blends again" in said


@pytest.fixture(scope="module")
def compared(project):
    from foldsmith.report import compare

    return compare("output/900", "output/200", project=project.folder).read_text("utf-8")


def test_the_page_of_two_runs_has_every_part(compared):
    assert re.findall(r"<h2>(.*?)</h2>", compared) == [
        *("Scores", "Predictions", "Images", "Learning curves", "Cost", "Configuration"),
    ]
    for words in (
        *("gain of B over A", "Correlation of the predictions", "A is closer to the truth for"),
        *("A and B differ most", "A wins most", "B wins most", "seconds A", "host MiB B"),
        *("RMSE of each fold; B is better in", "both 200", "A 300", "The only one"),
    ):
        assert words in compared, words
    images = section(compared, "images")
    of = re.compile(r"true ([\d.]+), A ([\d.-]+), B ([\d.-]+)<")
    galleries = [of.findall(text) for text in re.split("wins most", images)]
    differ, a_wins, b_wins = (np.array(found, float) for found in galleries)
    apart = np.abs(differ[:, 1] - differ[:, 2])
    assert (np.diff(apart) <= 0.011).all()  # rounded to two places
    for wins, sign in ((a_wins, 1), (b_wins, -1)):
        amount = np.abs(wins[:, 2] - wins[:, 0]) - np.abs(wins[:, 1] - wins[:, 0])
        assert (sign * amount > -0.011).all() and (np.diff(sign * amount) <= 0.021).all()


# What a person would do: sort a table, twice, and filter a long one.
USE_IT = """<script>
const heads = [...document.querySelectorAll("th button")];
const head = heads.find((button) => button.textContent === "HEAD");
const table = head.closest("table");
const column = head.closest("th").cellIndex;
const cells = () => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent);
head.click(); const up = cells(); head.click(); const down = cells();
const search = document.querySelector("input[type=search]");
let left = null, all = null;
if (search) {
  const rows = [...search.closest("figure").querySelector("table").tBodies[0].rows];
  search.value = rows[0].cells[0].textContent;
  search.dispatchEvent(new Event("input"));
  left = rows.filter((row) => !row.hidden).length;
  all = rows.length;
}
const images = [...document.images];
Promise.all(images.map((image) => image.decode())).then(() => {
  const result = document.createElement("pre");
  result.id = "result";
  result.textContent = JSON.stringify({
    up, down, left, all, images: images.length, empty: images.filter((i) => !i.naturalWidth).length,
    hints: [...document.querySelectorAll(".scroll")].filter(
      (box) => box.scrollWidth > box.clientWidth + 1 && box.previousElementSibling.hidden
    ).length,
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  });
  document.body.append(result);
});
</script>"""


def used_in_a_browser(folder, text, head, width):
    """Return what a page says of itself when a person has used it."""
    script = USE_IT.replace("HEAD", head)
    (folder / "page.html").write_text(text.replace("</body>", script + "</body>"), "utf-8")
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--dump-dom"),
        *(f"--window-size={width},900", "--virtual-time-budget=10000"),
        (folder / "page.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout)
    assert found is not None, done.stdout[-500:]
    return json.loads(html.unescape(found[1]))


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize(("name", "head"), [("page", "RMSE"), ("compared", "gain")])
def test_it_works_in_a_browser(tmp_path, request, name, head, width):
    result = used_in_a_browser(tmp_path, request.getfixturevalue(name), head, width)
    assert result["up"] == sorted(result["up"], key=float)
    assert result["down"] == result["up"][::-1] and result["up"] != result["down"]
    # Only a long table has a filter.
    assert result["all"] is None or 1 <= result["left"] < result["all"]
    assert name == "compared" or result["all"] is not None
    assert result["images"] > (80 if name == "page" else 20) and result["empty"] == 0
    # Tables scroll in their own boxes; the page does not scroll sideways.
    assert result["wide"] <= 0
    # What is cut says so.
    assert result["hints"] == 0
