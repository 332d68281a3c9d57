"""The time of a project: planned by ``new``, planned anew by ``run --time``, and kept."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from html import escape

import cv2
import numpy as np
import pandas as pd
import pytest
from given_speeds import MEASURE, measure_for_a_moment

from foldsmith.config import Experiment
from foldsmith.config.check import check_experiment
from foldsmith.errors import ConfigError
from foldsmith.new.new import new_project, new_project_of
from foldsmith.new.new_rows import Data
from foldsmith.new.timing import planned
from foldsmith.new.timing.facts import MachineSpeeds, Speed
from foldsmith.new.timing.measure import facts_of, measured_speeds
from foldsmith.new.timing.rule import choose, levels_of
from foldsmith.project import ProjectFolder
from foldsmith.report.page import write_report
from foldsmith.run.plan import plan_of
from foldsmith.run.run_state import RunState
from foldsmith.run.state import speeds_of, states_of
from foldsmith.run.status import status
from foldsmith.run.time_left import time_left
from foldsmith.steps.base import Options
from foldsmith.steps.registry import types_of
from foldsmith.training.epoch_report import EpochReport
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.machine import cores_here

TUNED = {"410": "exp_config/410.yml", "420": "exp_config/420.yml"}


def make_data(folder, n=24, shape=(36, 36)):
    """Images whose brightness is the target, and their tables."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for k in range(n + 6):
        image = rng.integers(10 * (k % 12), 10 * (k % 12) + 60, (*shape, 3), np.uint8)
        cv2.imwrite(str(folder / f"images/{k:03}.png"), image)
    ids = [f"{k:03}" for k in range(n + 6)]
    values = [k % 12 + 0.5 for k in range(n)]
    pd.DataFrame({"id": ids[:n], "grade": values}).to_csv(folder / "train.csv", index=False)
    pd.DataFrame({"id": ids[n:]}).to_csv(folder / "test.csv", index=False)
    return Data(folder / "images", folder / "train.csv", folder / "test.csv", time="10m")


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path)


@pytest.fixture
def mine(tmp_path, data):
    new_project_of(tmp_path / "mine", data)
    return ProjectFolder.open(tmp_path / "mine")


def texts_of(folder):
    files = [*folder.glob("exp_config/*.yml"), folder / "project.yml"]
    return {str(file.relative_to(folder)): file.read_text() for file in sorted(files)}


def epochs_of(project, name="410"):
    return Experiment.load(project, project.path(f"exp_config/{name}.yml")).globals.max_epoch


def no_measuring(*_):
    raise AssertionError("measured again")


def test_new_measures_and_writes_plain_values_with_their_reasons(tmp_path, data, cli, monkeypatch):
    monkeypatch.setenv(MEASURE, "1")
    for path in data.images.iterdir():
        # With more than 8 bits: such images are measured too.
        cv2.imwrite(str(path), cv2.imread(str(path)).astype(np.uint16) + 1000)
    flags = ["--images", "images", "--train", "train.csv", "--test", "test.csv", "--time", "30m"]
    said = cli(tmp_path, "new", "mine", *flags, "--yes").stdout
    folder = tmp_path / "mine"
    for line in (
        "range    [10",
        "time     30m, as named",
        "network  wrn_16_2 at 32 px",
        "epochs   ",
        "total    about",
    ):
        assert line in said
    assert "time: 30m\n" in (folder / "project.yml").read_text()
    # Without a GPU the time goes to the fine-tunings.
    names = sorted(file.stem for file in (folder / "exp_config").iterdir())
    assert "410" in names and "420" in names and "300" not in names and "401" not in names
    assert "401" not in (folder / "exp_config/901.yml").read_text()
    project = ProjectFolder.open(folder)
    tree = Experiment.load(project, folder / "exp_config/410.yml").tree
    assert tree["model"]["base_name"] == "wrn_16_2" and tree["dataset"]["img_size"] == 32
    assert tree["model"]["backbone_options"] == {"options": {"stem_stride": 1}}
    text = (folder / "exp_config/410.yml").read_text()
    assert f"# {epochs_of(project)} epochs of " in text and "Planned for 30m" in text
    plan = plan_of(project, "exp_config/901.yml")
    assert {step.name for step in plan.steps} >= {"400", "410", "420", "901"}

    # The time that is planned already changes and measures nothing.
    before = texts_of(folder)
    run = ["run", "-cfg", "exp_config/901.yml", "--until", "preprocess", "--no-report"]
    assert "measuring" not in cli(folder, *run, "--time", "30m").stdout
    assert texts_of(folder) == before

    # What a person has changed is not overwritten.
    file = folder / "exp_config/901.yml"
    file.write_text(file.read_text() + "globals/seed: 3\n")
    before = texts_of(folder)
    error = cli(folder, *run, "--time", "5m", code=2).stderr
    assert "901.yml: was changed since it was planned" in error and "Traceback" not in error
    assert texts_of(folder) == before


def test_a_killed_plan_goes_on_with_the_same_values(mine, monkeypatch):
    folder, real, written = mine.folder, planned.write_text, []

    def killed(path, text):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        real(path, text)

    before = epochs_of(mine)
    monkeypatch.setattr(planned, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        planned.plan_for(mine, "exp_config/901.yml", "4m")
    assert len(written) == 2  # the record, and one file
    monkeypatch.setattr(planned, "write_text", real)
    monkeypatch.setattr(planned, "measured_speeds", no_measuring)
    again = planned.plan_for(ProjectFolder.open(folder), "exp_config/901.yml", "4m")
    assert again.settings.time == "4m"
    assert epochs_of(again) == epochs_of(again, "420") < before
    assert {**texts_of(folder)}.items() >= planned.read_plan(folder).texts.items()
    assert planned.read_plan(folder).before == {}
    texts = texts_of(folder)
    planned.plan_for(again, "exp_config/901.yml", "240s")
    assert texts_of(folder) == texts


def test_a_new_that_was_killed_goes_on_with_the_same_values(tmp_path, data, monkeypatch):
    new_project_of(tmp_path / "mine", data)
    texts = texts_of(tmp_path / "mine")
    (tmp_path / "mine/project.yml").unlink()
    (tmp_path / "mine/exp_config/420.yml").unlink()
    real = planned.measured_speeds

    def slower(*arguments):
        return replace(real(*arguments), start_s=20.0)

    monkeypatch.setattr(planned, "measured_speeds", slower)
    new_project_of(tmp_path / "mine", data)
    assert texts_of(tmp_path / "mine") == texts


def test_another_time_adds_and_removes_experiments(mine):
    names = {file.stem for file in mine.path("exp_config").iterdir()}
    assert {"410", "420"} <= names
    short = planned.plan_for(mine, "exp_config/901.yml", "30s")
    # Without time for anything else, the statistics of colour and texture remain.
    assert {file.stem for file in mine.path("exp_config").iterdir()} == {"400", "901"}
    steps = plan_of(short, "exp_config/901.yml").steps
    assert [step.label for step in steps if step.label.startswith(("fit", "train"))] == ["fit 400"]
    reason = planned.read_plan(mine.folder).why["members without 403 and 404 and 402"]
    assert "for 30 images; the time has 0 s for members without a training" in reason
    planned.plan_for(short, "exp_config/901.yml", "10m")
    assert {file.stem for file in mine.path("exp_config").iterdir()} == names


@pytest.mark.parametrize(
    "shape, sizes", [((20, 36), (36, 36)), ((9, 9), (32, 32)), ((150, 150), (128, 152))]
)
def test_members_without_a_training_see_no_enlarged_images(tmp_path, shape, sizes):
    new_project_of(tmp_path / "mine", make_data(tmp_path, shape=shape))

    def size_of(project, name):
        file = project.path(f"exp_config/{name}.yml")
        return Experiment.load(project, file).tree["dataset"]["img_size"]

    # More time gives 404 larger images, but none that is enlarged.
    for time, size in zip(("10m", "1h"), sizes, strict=True):
        project = planned.plan_for(
            ProjectFolder.open(tmp_path / "mine"), "exp_config/901.yml", time
        )
        assert size_of(project, "404") == size
        assert size_of(project, "400") == min(96, size)
    reasons = [why for why in planned.read_plan(project.folder).why if "descriptors" in why]
    assert reasons == [f"descriptors at {sizes[1]} px"]


def test_a_project_that_was_filled_in_is_planned_by_run(tmp_path, small_images):
    new_project(tmp_path / "mine", "15m")
    text = (tmp_path / "mine/project.yml").read_text()
    for old, new in (
        ("images/{image_id}.jpg", "photos/{object_id}.jpg"),
        ("id_column: image_id", "id_column: object_id"),
        ("group_column: group", "group_column: art_series_id"),
        ("n_splits: 5", "n_splits: 2"),
        ("StratifiedGroupKFold", "GroupKFold"),
    ):
        text = text.replace(old, new, 1)
    (tmp_path / "mine/project.yml").write_text(text)
    (tmp_path / "mine/input").symlink_to(small_images, target_is_directory=True)
    project = ProjectFolder.open(tmp_path / "mine")
    planned.plan_for(project, "exp_config/901.yml", "15m")
    assert not project.path("exp_config/300.yml").exists()
    assert "Planned for 15m" in project.path("exp_config/420.yml").read_text()
    assert project.path("project.yml").read_text().count("\ntime:") == 1


def test_what_cannot_be_planned_is_one_clear_line(mine):
    with pytest.raises(ConfigError, match="--time: 'soon' is not a time; write it as in 90s"):
        planned.plan_for(mine, "exp_config/901.yml", "soon")
    other = mine.path("exp_config/555.yml")
    other.write_text("import: foldsmith:ensemble.yml\n")
    with pytest.raises(ConfigError, match=r"exp_config/555\.yml is none of them"):
        planned.plan_for(mine, "exp_config/555.yml", "5m")
    (mine.folder / "time_plan.json").write_text("{")
    with pytest.raises(ConfigError, match=r"time_plan\.json: cannot be read"):
        planned.plan_for(mine, "exp_config/901.yml", "5m")


def test_status_estimates_the_next_member_before_anything_was_measured(mine):
    table = status(mine, "exp_config/901.yml")
    seconds = json.loads((mine.folder / "time_plan.json").read_text())["seconds"]
    assert {"preprocess", "fit 400", "train 410", "infer 410 by last"} <= seconds.keys()
    assert "the next member of 901 is 400: about" in table
    assert "never timed" not in table and "(~: estimated)" in table
    # The parts are those of the whole, which fits the time: side by side they take as long.
    found = planned.measured(mine, "10m", planned._recipe_of(mine, "small"))
    choice = choose(600, found.facts, found.speeds)
    plan = plan_of(mine, "exp_config/901.yml")
    left_s = time_left(plan.steps, states_of(plan, FileHashes(mine.hash_store)), speeds_of(plan))
    whole_s = choice.total_s - found.speeds.spent_s - choice.rest_s + found.speeds.member_s
    assert left_s == pytest.approx(whole_s, abs=max(choice.infer_s) + 1)
    line = next(line for line in table.splitlines() if "train 410" in line)
    assert "~" in line and "?" not in line


def test_the_report_gives_the_reason_for_no_pretraining(mine):
    reasons = planned.read_plan(mine.folder).why
    assert "without a GPU" in reasons["pretraining none"]
    page = write_report(mine, "exp_config/901.yml").read_text(encoding="utf-8")
    cost = page.partition('id="cost"')[2].partition("</section>")[0]
    assert "Choices for a run of 10m" in cost
    for choice, reason in reasons.items():
        assert escape(choice) in cost and escape(reason) in cost
    # An experiment that the plan is not for has no such table.
    mine.path("exp_config/555.yml").write_text(
        "import: foldsmith:image_descriptors.yml\nglobals/output_root: output/555\n"
    )
    other = write_report(mine, "exp_config/555.yml").read_text(encoding="utf-8")
    assert "Choices for a run" not in other


def test_a_run_that_is_faster_than_its_plan_says_so_once(mine, caplog):
    plan = plan_of(mine, "exp_config/901.yml")
    first, *_, other = [step for step in plan.steps if step.epochs]

    def lines(*epochs):
        """Warnings after epochs of so many images per second."""
        caplog.clear()
        state = RunState(plan, plan, Options())
        for k, (step, speed) in enumerate(epochs, 1):
            state.epoch(step, EpochReport(k, 100, speed, 0.1, 1.0, {}))
        return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]

    # It was planned for 400 images/s. Early epochs are slow while other steps begin.
    assert lines(*[(first, 450.0)] * 5) == lines(*[(first, 90.0)] * 3, (other, 800.0)) == []
    [said] = lines((first, 90.0), (first, 800.0), (first, 900.0), (other, 900.0))
    assert "train 410 fold 0: 800 images/s, but its epochs were planned for 400" in said
    assert "'foldsmith run' with a --time other than 10m" in said and "\n" not in said
    # Another image size has another speed, by the command line or by the file.
    plan = plan_of(mine, "exp_config/901.yml", ["410:dataset/img_size=24"])
    first = next(step for step in plan.steps if step.epochs)
    assert lines((first, 90.0), (first, 800.0)) == []
    plan = plan_of(mine, "exp_config/901.yml")
    file = mine.path("exp_config/410.yml")
    file.write_text(file.read_text() + "dataset/img_size: 24\n")
    assert lines((first, 90.0), (first, 800.0)) == []


def test_a_plan_on_a_busy_machine_says_so(mine, monkeypatch, caplog):
    real, texts = planned.measured_speeds, planned._recipe_of(mine, "small")

    def lines(busy):
        caplog.clear()
        monkeypatch.setattr(
            planned, "measured_speeds", lambda *given: replace(real(*given), busy_cores=busy)
        )
        planned.planned(planned.measured(mine, "10m", texts), "10m")
        return [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]

    assert lines(0.0) == lines(0.3) == []
    [said] = lines(0.9)
    assert said.startswith(f"other processes keep 0.9 of {cores_here()} cores busy")
    assert "another --time than 10m" in said


def test_classes_have_one_fine_tuning(tmp_path):
    data = make_data(tmp_path)
    table = pd.read_csv(tmp_path / "train.csv", dtype={"id": str})
    table["grade"] = ["cat", "dog"] * 12
    table.to_csv(tmp_path / "train.csv", index=False)
    new_project_of(tmp_path / "mine", data)
    names = {file.stem for file in (tmp_path / "mine/exp_config").iterdir()}
    assert "410" in names and "420" not in names
    project = ProjectFolder.open(tmp_path / "mine")
    plan_of(project, "exp_config/901.yml")
    assert epochs_of(project) > 20


def test_a_pretraining_is_written_where_it_is_planned(mine):
    texts = planned._recipe_of(mine, "medium")
    files = {name: f"exp_config/{name}.yml" for name in ("400", "403", "404", "402")}
    facts = facts_of(mine, TUNED, files)
    facts = replace(facts, on_gpu=True, processes=1, side=300)
    levels = {level.name: Speed(9000.0, 5000.0) for level in levels_of(facts, 1e6)}
    fits = (1.3,) * 4
    choice = choose(3600, facts, MachineSpeeds(levels, 0.01, fits, 1.0, 0.1, 1.0))
    assert choice.pretraining
    for name, text in planned.with_values(texts, "1h", choice, facts).items():
        mine.path(name).write_text(text)
    project = ProjectFolder.open(mine.folder)
    steps = plan_of(project, "exp_config/901.yml").steps
    assert {step.label for step in steps} >= {"pretrain 300", "fit 401"}
    frozen = Experiment.load(project, project.path("exp_config/401.yml"))
    check_experiment(frozen, types_of(project), ["output/300_pretraining/backbone_epoch_300.pth"])
    pretraining = Experiment.load(project, project.path("exp_config/300.yml"))
    assert pretraining.globals.max_epoch == choice.pretraining
    check_experiment(pretraining, types_of(project))
    made = pretraining.tree["model"]["backbone"]["model_name"]
    assert frozen.tree["model"]["base_name"] == made == choice.level.backbone


@pytest.mark.parametrize(
    ("transform", "views"),
    [
        ("null", 4),
        ("{type: Resize, crop_pct: 0.5}", 16),
        ("{type: LongestMaxSize}", 4),
    ],
)
def test_a_larger_image_that_is_predicted_counts_by_its_area(mine, transform, views):
    file = mine.folder / "exp_config/410.yml"
    file.write_text(f"{file.read_text()}\ndataset/val/transforms/shrink: {transform}\n")
    assert facts_of(mine, {"410": "exp_config/410.yml"}, {}).views == (views,)


def test_speeds_are_measured_on_the_projects_own_images(mine, tmp_path_factory, monkeypatch):
    trials = tmp_path_factory.mktemp("trials")
    monkeypatch.setattr("tempfile.tempdir", str(trials))
    measure_for_a_moment(monkeypatch)
    # One learns from images without labels, and the features of the other are fixed.
    files = ["exp_config/403.yml", "exp_config/402.yml"]
    learning = mine.path(files[1])
    learning.write_text(learning.read_text() + "model/n_centres: 20\n")
    facts = facts_of(mine, TUNED, {"403": files[0], "402": files[1]})
    assert (facts.n_train, facts.n_test, facts.side, facts.n_splits) == (24, 6, 36, mine.n_splits)
    # Two kinds of mirrored images, and members of one thread side by side.
    # Both predict views of 72 x 72 px where they learn 64 x 64 px.
    area = (72 / 64) ** 2
    assert facts.views == pytest.approx((4 * area, 2 * area), rel=1e-3)
    assert facts.untrained_processes == facts.processes
    before = sorted(mine.folder.rglob("*"))
    # Without the other processes, which the test of the command above has.
    facts = replace(facts, processes=1, untrained_processes=1)
    speeds = measured_speeds(mine, facts, "exp_config/410.yml", files, 900)
    assert all(speed.mixed > 0 and speed.full > 0 for speed in speeds.levels.values())
    assert list(speeds.levels) == [level.name for level in levels_of(facts, 900)]
    assert speeds.preprocess_s > 0 and len(speeds.untrained_s) == 2
    assert min(speeds.untrained_s) > 0
    assert speeds.spent_s > 1 and 0 <= speeds.busy_cores <= cores_here()
    assert not list(trials.glob("*foldsmith*"))
    left = {path for path in mine.folder.rglob("*")} - set(before)
    assert all(".foldsmith" in str(path) for path in left)


def test_busy_neighbours_end_with_a_measurement_that_is_killed():
    """A child of a killed process would keep a core for itself until somebody notices it."""
    code = (
        "import os, signal\nfrom foldsmith.new.timing.measure import _neighbours\n"
        "with _neighbours(1):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    # A child that lives on has its standard output open, for which this waits.
    killed = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=90)
    assert killed.returncode == -signal.SIGKILL
