"""Shell completion: files and folders that a command takes, in a real bash."""

import os
import subprocess
import sys

import pytest

from foldsmith.cli.completion import OTHERS, PRETRAININGS
from foldsmith.config import Experiment
from foldsmith.config.settings import MEMBERS, OTHER_TASKS
from foldsmith.project import ProjectFolder
from foldsmith.steps.run_records import RESOLVED_CONFIG

SLOW = {"torch", "numpy", "pandas", "cv2", "yaml", "pytorch_pfn_extras"}


def complete(folder, words):
    """Return what is offered for the last of some words; no slow library may be imported."""
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print(*({SLOW!r} & set(sys.modules)), file=sys.stderr))\n"
        "from foldsmith.cli.main import main\n"
        "sys.argv = ['foldsmith']\n"
        "main()\n"
    )
    environment = os.environ | {
        "_FOLDSMITH_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.split() == []
    return result.stdout.split()


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project of names alone, with what runs would have left."""
    folder = tmp_path_factory.mktemp("shell") / "mine"
    for name in ("000", "100", "900"):
        for of in ("exp_config", "demo_config"):
            (folder / of).mkdir(parents=True, exist_ok=True)
            (folder / of / f"{name}.yml").write_text("")
    (folder / "exp_config/notes.txt").write_text("")
    (folder / "project.yml").write_text("name: mine\n")
    for name, task in (
        ("000_simsiam", "self-supervised"),
        ("100_cls", "multi-class"),
        ("400_frozen", "frozen-features"),
        ("900_ensemble", "ensemble"),
    ):
        (folder / "output" / name).mkdir(parents=True)
        (folder / "output" / name / "resolved_config.yml").write_text(
            f"globals:\n  task: {task}\n  seed: 0\n"
        )
    (folder / "output/empty").mkdir()
    return folder


def test_experiment_files_are_offered(project):
    expected = ["exp_config/000.yml", "exp_config/100.yml", "exp_config/900.yml"]
    assert complete(project, ["foldsmith", "train", "-cfg", ""]) == expected
    assert complete(project, ["foldsmith", "status", "--config", "exp_config/1"]) == [expected[1]]
    assert complete(project, ["foldsmith", "run", "-cfg", "demo"])[0] == "demo_config/000.yml"
    elsewhere = ["foldsmith", "train", "--project", "mine", "-cfg", "exp"]
    assert complete(project.parent, elsewhere) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["infer", "-e", ""], ["output/100_cls"]),
        (
            ["export", "--run", "out"],
            ["output/000_simsiam", "output/100_cls", "output/400_frozen", "output/900_ensemble"],
        ),
        (["compare", ""], ["output/100_cls", "output/400_frozen", "output/900_ensemble"]),
        (["serve", "--run", "output/1"], ["output/100_cls"]),
        (
            ["predict", "--run", ""],
            ["output/100_cls", "output/400_frozen", "output/900_ensemble"],
        ),
        (["predict", "--run", "output/9"], ["output/900_ensemble"]),
    ],
)
def test_output_folders_are_those_that_the_command_takes(project, words, expected):
    assert complete(project, ["foldsmith", *words]) == expected


def test_a_run_is_found_from_outside_its_project(project):
    words = ["foldsmith", "predict", "--run", "mine/output/9"]
    assert complete(project.parent, words) == ["mine/output/900_ensemble"]
    assert complete(project.parent, [*words[:-1], "nowhere/"]) == []


def test_the_tasks_are_those_of_the_settings():
    assert OTHERS == OTHER_TASKS
    assert [task for task in OTHERS if task not in MEMBERS] == [*PRETRAININGS, "ensemble"]


def test_what_a_run_leaves_says_its_task_where_completion_looks(small_project):
    folder = small_project / "output/000"
    folder.mkdir(parents=True)
    resolved = Experiment.load(ProjectFolder.open(small_project), "exp_config/000.yml").dump()
    (folder / RESOLVED_CONFIG).write_text(resolved)
    assert complete(small_project, ["foldsmith", "export", "--run", ""]) == ["output/000"]


def test_bash_completes_once_it_is_installed(project, tmp_path):
    """What --install-completion writes is read by bash, and completes."""
    program = tmp_path / "bin/foldsmith"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m foldsmith "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {
        "HOME": str(tmp_path),
        "PATH": f"{program.parent}:{os.environ['PATH']}",
    }

    def bash(script):
        command = ["bash", "--norc", "-c", script]
        result = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, timeout=120
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    # "; true" keeps bash as the process that called it, by which the shell is known.
    assert "complete" in bash("foldsmith --show-completion; true")
    bash("foldsmith --install-completion; true")
    offered = bash(
        f"source {tmp_path}/.bash_completions/foldsmith.sh\n"
        "COMP_WORDS=(foldsmith train -cfg exp_config/1) COMP_CWORD=3\n"
        "_foldsmith_completion foldsmith\n"
        'echo "${COMPREPLY[@]}"'
    )
    assert offered.split() == ["exp_config/100.yml"]
    assert "foldsmith.sh" in (tmp_path / ".bashrc").read_text()
