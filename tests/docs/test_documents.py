"""Every command, file and Python example of the README and the documentation, as it stands there.

A page is read from top to bottom: a block with a title is a file, which is written; a block of
shell is commands, which are run by the real command line; a block of Python is executed. All of it
happens in one small project (``workspace``), whose layout is that of the examples.

Commands run word for word, but for the report of a run (:data:`WITH_REPORT`). What makes them fast
is the files: every experiment file that the project begins with, that a page shows or that
``foldsmith new`` writes is made small (:func:`make_small`): one epoch, small images, the smallest
backbone, two folds.
"""

import re
import shlex
import shutil
from pathlib import Path

import pandas as pd
import pytest
import small_project
import typer.main
import yaml
from bundled import REPOSITORY
from pages import DOCS, PAGES, SHELLS, blocks
from warm import Command, one_core

from foldsmith.cli.main import app
from foldsmith.config import Experiment
from foldsmith.project import ProjectFolder

# What cannot run here, with the reason. A command that no page has any more must go from here.
NOT_RUN = {
    "make demo": "minutes; CI runs the same stages on smaller images",
    "make test": "would run itself",
    "make gpu-check": "minutes on a card; see test_gpu_check.py",
    "make gpu-check IMAGES=path/to/images WHEELS=path/to/wheels OUT=results": "the same",
    "python benchmarks/gpu_check": "the same",
    "python benchmarks/gpu_check --images path/to/images --wheels path/to/wheels --out results": (
        "the same"
    ),
    "python benchmarks/gpu_check --rehearse": "the same",
    "python benchmarks/gpu_check/wheels.py wheels --python-version 3.12": (
        "needs a package registry; see test_gpu_check.py"
    ),
    "pip install .": "needs a package registry; CI installs the package",
    "pip install .[serve]": "needs a package registry; CI installs what it brings",
    "pip install .[ray]": "needs a package registry; the tests use Ray",
    "python notebooks/wheels.py wheels": "see test_notebooks_of_machines.py",
    "foldsmith run -cfg exp_config/900.yml --engine ray --address auto": "see test_ray_engine.py",
    "foldsmith run -cfg exp_config/900.yml --engine ray --address auto --stop": "the same",
    "foldsmith serve --run output/900_ensemble": "serves until it is stopped; see test_serving.py",
    "curl -F file=@1.jpg -F file=@2.jpg http://127.0.0.1:8000/predict": "see test_serving.py",
    "torchrun --nproc-per-node=4 -m foldsmith pretrain -cfg exp_config/000.yml": (
        "four processes; see test_several_processes.py"
    ),
    "torchrun --nproc-per-node=4 -m foldsmith train -cfg exp_config/100.yml -v 0": "the same",
    "torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-endpoint=node1:29400 "
    "--max-restarts=3 -m foldsmith pretrain -cfg exp_config/000.yml": "the same, on two machines",
    "tensorboard --logdir output": "serves until it is stopped; see test_loggers.py",
    "sbatch slurm_torchrun.sbatch pretrain exp_config/000.yml": "see test_cluster_examples.py",
    "sbatch slurm_ray.sbatch exp_config/900.yml": "see test_cluster_examples.py",
    "kubectl apply -f kuberay_job.yaml": "see test_cluster_examples.py",
    "srun --nodes=2 --ntasks-per-node=1 sh -c flock --nonblock .locktest sleep 5 && echo locked": (
        "needs two nodes"
    ),
    "foldsmith --install-completion": "changes the shell's startup file; see test_completion.py",
    "foldsmith --show-completion": "asks which shell it was called from; see test_completion.py",
}

# In this order, since later pages use what the commands of earlier ones have made, as a reader
# would; the others follow.
FIRST = [
    "stages.md",
    "predictions.md",
    "reports.md",
    "watching.md",
    "python.md",
    "README.md",
    "configuration.md",
    "quickstart.md",
]
# Elsewhere ``run`` gets --no-report: a report after each member takes the longest of all.
WITH_REPORT = "quickstart.md"

ORDER = sorted(PAGES, key=lambda page: (*(page.name != name for name in FIRST), page.name))

NAMES = {
    "000": "output/000_resnet18d_simsiam",
    "100": "output/100_resnet18d_cls",
    "200": "output/200_resnet18d_reg",
    "900": "output/900_ensemble",
}


def set_value(content: dict, path: str, value: object) -> None:
    """Set a value in an experiment file, whichever way it is written there."""
    keys = path.split("/")
    for depth in range(len(keys) - 1, 0, -1):
        node = content.get("/".join(keys[:depth]))
        if isinstance(node, dict):
            set_value(node, "/".join(keys[depth:]), value)
            return
    content[path] = value


def make_small(file: Path) -> None:
    """Make an experiment file small: what it says is kept, its numbers become small ones."""
    experiment = Experiment.load(ProjectFolder.open(file.parents[1]), file)
    tree, task = experiment.tree, experiment.globals.task
    if task == "ensemble":
        small: dict[str, object] = {"ensemble/methods": ["mean", "simplex", "ridge"]}
    else:
        small = {"globals/max_epoch": 1, "dataset/img_size": 32}
        if "train" in tree["loader"]:
            small |= {"loader/train/batch_size": 8, "loader/train/num_workers": 0}
        if "head" in tree:
            small["head"] = {"type": "RidgeHead"}
        if task != "self-supervised" and "metric_curve" in tree.get("extensions", {}):
            small |= small_project.ONE_CURVE
    if task == "self-supervised":
        small |= {"globals/snapshot_interval": 1, "model/backbone/model_name": "test_resnet"}
    elif not tree.get("model", {}).get("base_name", "wrn").startswith("wrn"):
        small["model/base_name"] = "test_resnet"
    # What is learned without labels.
    if "n_centres" in tree.get("model", {}):
        small["model/n_centres"] = 20
    if tree.get("model", {}).get("type") == "FisherVectors":
        small["model/n_components"] = 4
    content = yaml.safe_load(file.read_text())
    for path, value in small.items():
        set_value(content, path, value)
    file.write_text(yaml.safe_dump(content, sort_keys=False))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, small_images) -> Path:
    """A project of experiments 000, 100, 200 and 900, and beside it the data of the examples."""
    folder = tmp_path_factory.mktemp("docs") / "work"
    small_project.make_project(folder, small_images)
    for name, output in NAMES.items():
        content = dict(small_project.EXPERIMENTS[name])
        key = "globals/output_root" if "globals/output_root" in content else "globals/output_path"
        content |= {key: output, "globals/max_epoch": 1}
        if name in ("100", "200"):
            content["model/pretrained"] = {"from": "000", "pick": "last"}
        if name == "900":
            del content["globals/max_epoch"]
            content["ensemble/experiments"] = [NAMES["100"], NAMES["200"]]
        small_project.write_experiment(folder, name, content)
    # Of the recommended recipe, as `foldsmith new` numbers them.
    regression = small_project.EXPERIMENTS["200"] | {
        "globals/output_root": "output/410",
        "globals/max_epoch": 1,
        "model/pretrained": {"from": "000", "pick": "last"},
    }
    small_project.write_experiment(folder, "410", regression)
    blend = small_project.EXPERIMENTS["900"] | {
        "globals/output_path": "output/901",
        "ensemble/experiments": [NAMES["100"], "output/410"],
    }
    small_project.write_experiment(folder, "901", blend)
    shutil.copytree(folder / "exp_config", folder / "demo_config")
    for file in (folder / "demo_config").glob("*.yml"):
        # Two experiments may not share an output folder.
        file.write_text(file.read_text().replace("output/", "output/demo/"))

    images, train = folder / "input/photos", pd.read_csv(folder / "input/train.csv")
    train[["object_id", "target", "art_series_id"]].to_csv(folder / "train.csv", index=False)
    shutil.copy(folder / "input/test.csv", folder / "test.csv")
    shutil.copytree(images, folder / "images")
    copies = {"a": train["object_id"], "b": pd.read_csv(folder / "test.csv")["object_id"]}
    copies |= {f"tree/{k}": train["object_id"][train["target"] == k] for k in (1, 2)}
    copies |= {"new_images": train["object_id"][:2], "more": train["object_id"][2:4]}
    for name, ids in copies.items():
        (folder / name).mkdir(parents=True)
        for number, image in enumerate(ids, 1):
            new = f"{number}.jpg" if name in ("new_images", "more") else f"{image}.jpg"
            shutil.copy(images / f"{image}.jpg", folder / name / new)
    return folder


def write(folder: Path, title: str, text: str) -> None:
    """Write a file that a page shows; ``NAME, added`` is put at its end."""
    name, comma, _ = title.partition(",")
    file = folder / name
    file.write_text((file.read_text() if comma else "") + text)
    if file.parent.name == "exp_config":
        make_small(file)


def run(folder: Path, command: str, page: str) -> Path:
    """Run a command of a page; returns the folder in which the next one runs."""
    program, *arguments = shlex.split(command, comments=True)
    if program == "cd":
        return (folder / arguments[0]).resolve()
    assert program == "foldsmith", f"{command}: neither run here nor listed in NOT_RUN"
    new = folder / arguments[1] if arguments[0] == "new" else None
    if new is not None and new.is_dir():
        return folder  # another page has made it, and run it
    if arguments[0] == "export":
        shutil.rmtree(folder / arguments[-1], ignore_errors=True)  # of another page
    if arguments[0] == "run" and page != WITH_REPORT:
        arguments.append("--no-report")
    # Side by side, steps start interpreters of their own (test_side_by_side.py).
    result = Command(folder, *arguments, before=(one_core,)).finish()
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    if new is not None and "--images" in arguments:
        settings = new / "project.yml"
        settings.write_text(settings.read_text().replace("n_splits: 5", "n_splits: 2"))
        for file in sorted((new / "exp_config").glob("*.yml")):
            make_small(file)
    return folder


def listed(command: str) -> bool:
    return " ".join(shlex.split(command, comments=True)) in NOT_RUN


@pytest.mark.parametrize("page", ORDER, ids=lambda page: page.name)
def test_what_a_page_shows_works(page, workspace, monkeypatch):
    if page.name in (
        "predictions.md",
        "reports.md",
        "watching.md",
        "python.md",
        "configuration.md",
        "scaling.md",
    ):
        # They begin where others end; nothing is left to do if those were run.
        run(workspace, "foldsmith run -cfg exp_config/900.yml", page.name)
    folder = workspace
    for block in blocks(page):
        if block.title:
            write(folder, block.title, block.text)
        elif block.language == "python":
            monkeypatch.chdir(folder)
            exec(compile(block.text, str(page), "exec"), {})
        else:
            for command in block.commands:
                if not listed(command):
                    folder = run(folder, command, page.name)


def test_no_reason_is_left_without_its_command():
    commands = {
        " ".join(shlex.split(command, comments=True))
        for page in PAGES
        for block in blocks(page)
        for command in block.commands
    }
    assert commands >= NOT_RUN.keys()


def test_commands_stand_in_blocks_of_shell():
    """A command in a block of another language would not be found."""
    for page in PAGES:
        for block in blocks(page):
            if block.language not in SHELLS:
                lines = block.text.splitlines()
                assert not [line for line in lines if line.startswith("foldsmith ")], page


def test_commands_in_the_text_exist():
    """Those between backquotes: their names and options, as the real parser knows them."""
    group = typer.main.get_command(app)
    for page in [*PAGES, REPOSITORY / "README.ja.md", REPOSITORY / "examples/fgrade/README.md"]:
        for command in re.findall(r"`foldsmith ([^`]+)`", page.read_text()):
            if command.startswith(("-", "COMMAND")):
                continue
            name, *arguments = shlex.split(command, comments=True)
            assert name in group.commands, f"{page.name}: foldsmith {command}"
            try:
                group.commands[name].make_context(name, arguments)
            except typer.Exit as error:
                assert error.exit_code == 0, f"{page.name}: {command}"  # --help
            except Exception as error:
                # A sentence need not name every option that a command asks for.
                assert type(error).__name__ == "MissingParameter", (
                    f"{page.name}: {command}: {error}"
                )


def test_every_page_is_read():
    assert {page.name for page in PAGES} >= {"README.md", "index.md", "quickstart.md"}
    assert len(PAGES) == 1 + len(list(DOCS.glob("*.md")))
    assert all(page.is_relative_to(REPOSITORY) for page in PAGES)
