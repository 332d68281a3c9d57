"""A kind of steps that a project's own Python brings: no module of the package is about it."""

import json
import re
import time

import pytest
import yaml
from small_project import make_project
from warm import Command, foldsmith

TALLY = '''
import os
import time
from pathlib import Path

from foldsmith.project.tables import hash_columns, read_folds
from foldsmith.steps.base import Step, StepKind
from foldsmith.steps.cost import Trial
from foldsmith.steps.manifest import MANIFEST
from foldsmith.steps.run_records import name_of
from foldsmith.utils.atomic import write_json
from foldsmith.utils.flatten import flatten
from foldsmith.utils.owned_files import OwnedFiles


class Tally(StepKind):
    """Counts the images of each fold, a fold after the other, and keeps each count."""

    name = "tally"
    tasks = ("tally",)
    sections = ("tally/",)
    title = "Tally"

    def plan(self, experiment, output, planner, checkpoint):
        needs = planner.add_sources(experiment, checkpoint)
        label = f"tally {name_of(experiment)}"
        return (planner.add(Step(self, label, output, needs, experiment)),)

    def inputs(self, step, plan, hashes, weights_may_be_gone=False):
        table = read_folds(plan.project, None)
        return {
            "config": flatten({"tally": step.experiment.tree["tally"]}),
            "folds": hash_columns(table, ["fold"]),
        }

    def run(self, step, plan, state, options, listen):
        from foldsmith.steps.run_records import save_sources
        from foldsmith.steps.step_run import StepRun, held

        run, folder = StepRun.of(plan.project), step.folder
        inputs = run.noted(self.inputs(step, plan, run.hashes))
        parts = [f"fold{k}.json" for k in range(plan.project.n_splits)]
        with held(folder):
            folder.mkdir(parents=True, exist_ok=True)
            run.begin_writing(OwnedFiles(folder), MANIFEST, [*parts, "tally.json"], "tally")
            save_sources(folder, step.experiment, "tally")
            counts = [self.count(folder / name, k, inputs, plan) for k, name in enumerate(parts)]
            write_json(folder / "tally.json", {"counts": counts})
            outputs = [folder / name for name in (*parts, "tally.json")]
            run.finish(folder / MANIFEST, step.label, inputs, outputs)

    def count(self, part, fold, inputs, plan):
        kept = read(part)
        if kept and kept["inputs"] == inputs:
            return kept["count"]
        times = inputs["config"]["tally/times"]
        count = times * int((read_folds(plan.project, None)["fold"] == fold).sum())
        write_json(part, {"inputs": inputs, "count": count})
        with open("counted.txt", "a") as file:
            file.write(f"{fold}\\n")
        if os.environ.get("DOING") == "wait":
            time.sleep(600)
        return count

    def guess_s(self, step, costs):
        return 7 * step.experiment.tree["tally"]["times"]

    def try_batch(self, experiment, types):
        return Trial(f"it counts to {len(read_folds(experiment.project, None))}")

    def report(self, step, plan):
        yield f"{sum(read(step.folder / 'tally.json')['counts'])} images were counted."


def read(path):
    import json

    return json.loads(path.read_text()) if path.is_file() else None


TYPES = {"tally": Tally}
'''

RUN = ["run", "-cfg", "exp_config/700.yml"]


@pytest.fixture(scope="module")
def project(tmp_path_factory, small_images):
    folder = make_project(tmp_path_factory.mktemp("tally") / "project", small_images)
    (folder / "tally.py").write_text(TALLY)
    settings = yaml.safe_load((folder / "project.yml").read_text())
    settings |= {"python": ["tally.py"], "resources": {"tally": {"cpus": 1}}}
    (folder / "project.yml").write_text(yaml.safe_dump(settings))
    experiment = {"globals": {"task": "tally", "output_root": "output/700"}, "tally": {"times": 1}}
    (folder / "exp_config/700.yml").write_text(yaml.safe_dump(experiment))
    return folder


def test_before_it_has_run_it_is_estimated_and_tried_by_doctor(project, monkeypatch):
    monkeypatch.setenv("FOLDSMITH_TRUST_PYTHON", "1")
    more = ["-cfg", "exp_config/700.yml", "--from-scratch", "--json", "tally/times=3"]
    ended = foldsmith(project, "estimate", *more)
    assert ended.returncode == 0, ended.stderr
    found = {step["step"]: step for step in json.loads(ended.stdout)["steps"]}
    assert found["tally 700"]["kind"] == "tally" and found["tally 700"]["seconds"] == 21
    tried = foldsmith(project, "doctor", "-cfg", "exp_config/700.yml")
    assert tried.returncode == 0, tried.stderr
    assert re.search(r"^  700: it counts to \d+$", tried.stdout, re.M)


def test_it_is_planned_run_killed_continued_made_stale_and_shown(project, monkeypatch):
    monkeypatch.setenv("FOLDSMITH_TRUST_PYTHON", "1")

    def status():
        shown = foldsmith(project, "status", "-cfg", "exp_config/700.yml")
        assert shown.returncode == 0, shown.stderr
        return re.search(r"^tally 700 +(.*)$", shown.stdout, re.M)[1]

    def run(*more):
        ended = foldsmith(project, *RUN, *more)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def counted():
        return (project / "counted.txt").read_text().split()

    assert status().startswith("to do")
    run("--until", "preprocess", "--no-report")
    assert status().startswith("to do")

    command = Command(project, *RUN, environment={"DOING": "wait"})
    until = time.monotonic() + 120
    while not (project / "counted.txt").exists():
        assert command.poll() is None and time.monotonic() < until, command.read()
        time.sleep(0.05)
    assert status().startswith("running") and f"process {command.pid}" in status()
    command.kill()
    assert status().startswith("to do")

    # It goes on: the fold that was counted is not counted again.
    run("--until", "tally")
    assert counted() == ["0", "1"] and status() == "done"
    assert json.loads((project / "output/700/tally.json").read_text()) == {"counts": [12, 12]}
    run("--no-report")
    assert counted() == ["0", "1"]

    override = ["tally/times=2"]
    stale = foldsmith(project, "status", "-cfg", "exp_config/700.yml", *override).stdout
    assert re.search(r"^tally 700 +stale .*tally/times 1 -> 2", stale, re.M)
    run(*override)
    assert json.loads((project / "output/700/tally.json").read_text()) == {"counts": [24, 24]}
    page = (project / "reports/700.html").read_text()
    assert "Tally 700" in page and "48 images were counted." in page


def test_its_name_stands_beside_the_others_in_errors(project, monkeypatch):
    monkeypatch.setenv("FOLDSMITH_TRUST_PYTHON", "1")
    wrong = foldsmith(project, *RUN, "--until", "taly")
    assert wrong.returncode == 2
    assert "--until taly: no such kind of step (did you mean tally?)" in wrong.stderr
    missing = project / "exp_config/701.yml"
    missing.write_text("globals: {task: tally, output_root: output/701}\n")
    wrong = foldsmith(project, "run", "-cfg", "exp_config/701.yml")
    missing.unlink()
    assert wrong.returncode == 2 and "the section tally is missing" in wrong.stderr
