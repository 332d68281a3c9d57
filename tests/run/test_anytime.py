"""A submission soon after a run began, and a better one after every member."""

import json

import pandas as pd
import pytest
from small_project import write_experiment

from foldsmith.errors import OutputError
from foldsmith.predictor.predict import load
from foldsmith.project import ProjectFolder
from foldsmith.report import write_report
from foldsmith.run.engine import run
from foldsmith.run.plan import plan_of
from foldsmith.run.state import Speeds
from foldsmith.run.status import status
from foldsmith.run.table import next_members, plan_table
from foldsmith.steps import ensemble
from foldsmith.steps.status import Status, StepState

MEMBERS = ["200", "402", "400"]


@pytest.fixture
def anytime(small_project):
    """The small project with statistics of the images as the last member of its ensemble."""
    trained = {
        "import": "foldsmith:regression.yml",
        "globals/output_root": "output/200",
        "globals/max_epoch": 1,
        "model/base_name": "test_resnet",
        "dataset/img_size": 32,
        "loader/train/batch_size": 8,
    }
    write_experiment(small_project, "200", trained)
    for name, head in (("400", "RidgeHead"), ("402", "SVRHead")):
        descriptors = {
            "import": "foldsmith:image_descriptors.yml",
            "globals/output_root": f"output/{name}",
            "globals/threads": None,  # one after the other, so that each gives a blend
            "dataset/img_size": 32,
            "head": {"type": head},
        }
        write_experiment(small_project, name, descriptors)
    blend = {
        "import": "foldsmith:ensemble.yml",
        "globals/output_path": "output/900",
        "ensemble/experiments": [f"output/{name}" for name in MEMBERS],
        "ensemble/methods": ["mean", "best"],
        "ensemble/anytime": True,
    }
    write_experiment(small_project, "900", blend)
    return ProjectFolder.open(small_project)


class StoppedError(Exception):
    """The end of a run that was stopped."""


def manifest_of(project):
    return json.loads((project.path("output/900") / "manifest.json").read_text())


def test_the_untrained_members_come_first(anytime):
    labels = [step.label for step in plan_of(anytime, "exp_config/900.yml").steps]
    trained = ["train 200 fold 0", "train 200 fold 1", "infer 200"]
    assert labels == ["preprocess", "fit 402", "fit 400", *trained, "ensemble 900"]


def test_each_finished_member_gives_a_submission_that_says_what_it_waits_for(anytime, caplog):
    seen = []

    def on_blend():
        facts = manifest_of(anytime)["facts"]
        submission = pd.read_csv(anytime.path("output/900/submission.csv"))
        seen.append((facts["members"], facts["waiting"], len(submission)))

    run(anytime, "exp_config/900.yml", on_blend=on_blend)
    assert seen == [(["402"], ["200", "400"], 8), (["402", "400"], ["200"], 8)]
    assert "so far a blend of 1 of 3 members (402); waits for 200, 400" in caplog.text
    assert "submission.csv (" in caplog.text and ", so far)" in caplog.text
    facts = manifest_of(anytime)["facts"]
    assert (facts["members"], facts["waiting"]) == (MEMBERS, [])
    table = status(anytime, "exp_config/900.yml")
    assert "so far" not in table and "next member" not in table


def test_status_names_the_next_member_and_its_cost(anytime):
    plan = plan_of(anytime, "exp_config/900.yml")
    done = ("preprocess", "fit 402", "fit 400", "train 200 fold 0")
    states = {
        step.label: StepState(Status.DONE if step.label in done else Status.TO_DO, "", step.epochs)
        for step in plan.steps
    }
    speeds = Speeds(epoch_s={"200": 30.0}, step_s={"infer 200": 40.0, "fit 400": 5.0})
    said = ["the next member of 900 is 200: about 70 s"]
    assert list(next_members(plan, states, speeds)) == said
    assert said[0] in plan_table(plan, states, speeds)
    speeds = Speeds(epoch_s={"200": 30.0})
    (line,) = next_members(plan, states, speeds)
    assert line.endswith("about 30 s and 1 step of unknown time")
    states["fit 400"] = StepState(Status.STALE, "")
    (line,) = next_members(plan, states, Speeds(step_s={"fit 400": 5.0}))
    assert line == "the next member of 900 is 400: about 5 s"


def test_a_stopped_run_leaves_the_best_so_far_and_goes_on_to_the_same_end(anytime):
    def stop():
        raise StoppedError

    with pytest.raises(StoppedError):
        run(anytime, "exp_config/900.yml", on_blend=stop)
    table = status(anytime, "exp_config/900.yml")
    assert "so far a blend of 1 of 3 members (402); waits for 200, 400" in table
    assert next(line for line in table.splitlines() if "ensemble 900" in line).split()[2] == "to"
    assert "the next member of 900 is 400: its time is not known yet" in table
    page = write_report(anytime, "exp_config/900.yml").read_text()
    assert "Not finished: so far a blend of 1 of 3 members" in page
    images = sorted((anytime.data_dir / "photos").iterdir())[:3]
    assert len(load(anytime.path("output/900")).predict(images)) == 3
    # The same blend is not made twice: the next one is that of the next member.
    made = []
    run(anytime, "exp_config/900.yml", on_blend=lambda: made.append(manifest_of(anytime)))
    assert [each["facts"]["waiting"] for each in made] == [["200"]]
    whole = (anytime.path("output/900") / "submission.csv").read_bytes()
    (anytime.path("output/900") / "manifest.json").unlink()
    run(anytime, "exp_config/900.yml")
    assert (anytime.path("output/900") / "submission.csv").read_bytes() == whole


def test_a_blend_so_far_of_changed_members_is_stale(anytime):
    def stop():
        raise StoppedError

    with pytest.raises(StoppedError):
        run(anytime, "exp_config/900.yml", on_blend=stop)
    for file in anytime.path("output/402").glob("manifest*.json"):
        file.unlink()
    line = next(
        line for line in status(anytime, "exp_config/900.yml").splitlines() if "ensemble" in line
    )
    assert "stale" in line


def test_a_blend_so_far_is_to_be_completed_once_all_members_are_done(anytime):
    def stop():
        if manifest_of(anytime)["facts"]["waiting"] == ["200"]:
            raise StoppedError

    with pytest.raises(StoppedError):
        run(anytime, "exp_config/900.yml", on_blend=stop)
    run(anytime, "exp_config/200.yml")
    (line,) = [
        line
        for line in status(anytime, "exp_config/900.yml").splitlines()
        if line.startswith("ensemble 900")
    ]
    assert "to do" in line and "so far a blend of 2 of 3 members (402, 400)" in line


@pytest.fixture
def untrained(anytime):
    """The same without its fine-tuning."""
    file = anytime.path("exp_config/900.yml")
    file.write_text(file.read_text().replace("- output/200\n", ""))
    return anytime


def test_without_the_key_nothing_is_blended_before_the_end(untrained):
    overrides = ["ensemble/anytime=false"]
    made = []
    run(untrained, "exp_config/900.yml", overrides, on_blend=lambda: made.append(1))
    assert not made
    assert manifest_of(untrained)["facts"]["waiting"] == []


def test_a_blend_that_fails_early_does_not_end_the_run(untrained, caplog, monkeypatch):
    real = ensemble.ensemble_experiment

    def failing(experiment, force, waiting=()):
        if waiting:
            raise OutputError("no room")
        return real(experiment, force, waiting)

    monkeypatch.setattr(ensemble, "ensemble_experiment", failing)
    run(untrained, "exp_config/900.yml")
    assert "ensemble 900: no result so far: no room" in caplog.text
    assert manifest_of(untrained)["facts"]["members"] == MEMBERS[1:]
