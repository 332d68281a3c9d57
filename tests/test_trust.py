"""Python that a project or an export brings runs only after it was accepted."""

import multiprocessing
import os
import pickle
import py_compile
import shutil
import subprocess
import sys

import pytest
import yaml
from warm import Command

import foldsmith
from foldsmith.config import Experiment
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.project.own_python import state_dir

# Writes a file when it is imported, beside itself.
OWN = """
from pathlib import Path

Path(__file__).with_name("ran").touch()


def number():
    return 3


TYPES = {"Number": number}
"""

FILE = ("-cfg", "exp_config/900.yml")
COMMANDS = [
    ("status",),
    ("status", *FILE),
    ("check", *FILE),
    ("check", "-cfg", "exp_config/100.yml", "--show-augmentations", "sheet.png"),
    ("doctor",),
    ("report", *FILE),
    ("compare", "output/100", "output/200"),
    ("predict", "--run", "output/900", "input/photos"),
    ("export", "--run", "output/900", "exported"),
    ("serve", "--run", "output/900", "--port", "0"),
    ("run", *FILE, "--dry-run"),
    ("run", *FILE),
    ("estimate", *FILE),
    ("preprocess",),
    ("pretrain", "-cfg", "exp_config/000.yml"),
    ("train", "-cfg", "exp_config/100.yml"),
    ("infer", "-e", "output/100"),
    ("ensemble", *FILE),
]


@pytest.fixture(autouse=True)
def _asked(monkeypatch, tmp_path):
    monkeypatch.delenv("FOLDSMITH_TRUST_PYTHON")
    monkeypatch.setenv("FOLDSMITH_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def foreign(small_project):
    """A project of somebody else, whose Python leaves a mark."""
    (small_project / "own").mkdir()
    (small_project / "own/parts.py").write_text(OWN)
    with (small_project / "project.yml").open("a") as file:
        file.write("python: [own/parts.py]\n")
    return small_project


def ran(folder):
    mark = folder / "own/ran"
    found = mark.exists()
    mark.unlink(missing_ok=True)
    return found


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda arguments: " ".join(arguments[:3]))
def test_no_command_runs_it_unasked(foreign, cli, arguments):
    before = sorted(path for path in foreign.rglob("*"))
    (line,) = cli(foreign, *arguments, code=2).stderr.splitlines()
    assert not ran(foreign)
    assert line.startswith(f"foldsmith: error: {foreign}/project.yml: python: ")
    assert "own/parts.py" in line and "--trust-python" in line
    # Refused before anything was done.
    assert sorted(path for path in foreign.rglob("*")) == before


def test_from_python_neither(foreign):
    for refused in (
        lambda: ProjectFolder.open(foreign),
        lambda: foldsmith.Project.open(foreign),
        lambda: foldsmith.load(foreign / "output/900"),
    ):
        with pytest.raises(ConfigError, match="trust=True"):
            refused()
    assert not ran(foreign)
    assert foldsmith.Project.open(foreign, trust=True).types["Number"]() == 3
    assert ran(foreign)
    assert ProjectFolder.open(foreign).types["Number"]() == 3


def test_what_was_accepted_is_remembered_until_it_changes(foreign, cli):
    cli(foreign, "status", "--trust-python")
    assert ran(foreign)
    cli(foreign, "status")
    assert ran(foreign)
    # The same content elsewhere is the same code.
    copied = shutil.copytree(foreign, foreign.with_name("copied"))
    cli(copied, "status")
    assert ran(copied)

    with (foreign / "own/parts.py").open("a") as file:
        file.write("# edited\n")
    (line,) = cli(foreign, "status", code=2).stderr.splitlines()
    assert not ran(foreign)
    assert "own/parts.py (changed since it was accepted)" in line
    cli(foreign, "status", "--trust-python")
    cli(foreign, "status")
    assert ran(foreign)


def test_a_further_file_is_asked_about(foreign):
    ProjectFolder.open(foreign, trust=True)
    (foreign / "own/more.py").write_text(OWN.replace("Number", "More"))
    settings = yaml.safe_load((foreign / "project.yml").read_text())
    settings["python"].append("own/more.py")
    (foreign / "project.yml").write_text(yaml.safe_dump(settings))
    ran(foreign)
    with pytest.raises(ConfigError, match=r"with your rights: own/more\.py; read it"):
        ProjectFolder.open(foreign)
    assert not ran(foreign)


def test_a_project_cannot_bring_its_own_acceptance(foreign, cli, monkeypatch):
    """Whatever lies in the project: the record of acceptance is outside."""
    ProjectFolder.open(foreign, trust=True)
    shutil.copytree(state_dir(), foreign / ".foldsmith", dirs_exist_ok=True)
    shutil.copytree(state_dir(), foreign / "foldsmith")
    monkeypatch.setenv("FOLDSMITH_STATE_DIR", str(foreign.parent / "another user"))
    ran(foreign)
    cli(foreign, "status", code=2)
    assert not ran(foreign)


def test_a_compiled_file_beside_it_is_not_run(foreign):
    """Python takes a .pyc whose source has this size and time; accepted was the source."""
    path = foreign / "own/parts.py"
    other = OWN.replace("return 3", "return 4")
    path.write_text(other)
    compiled = py_compile.compile(str(path), doraise=True)
    status = path.stat()
    path.write_text(OWN)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert os.path.exists(compiled)
    assert ProjectFolder.open(foreign, trust=True).types["Number"]() == 3


@pytest.mark.parametrize(
    ("value", "accepted"),
    [("1", True), ("{parent}", True), ("/nowhere:{folder}", True), ("0", False), ("/no", False)],
)
def test_the_environment_accepts_for_scripts(foreign, cli, monkeypatch, value, accepted):
    value = value.format(parent=foreign.parent, folder=foreign)
    monkeypatch.setenv("FOLDSMITH_TRUST_PYTHON", value)
    cli(foreign, "status", code=0 if accepted else 2)
    assert ran(foreign) == accepted
    # The environment says so each time: an edit in one's own folder does not stop a batch.
    with (foreign / "own/parts.py").open("a") as file:
        file.write("# edited\n")
    cli(foreign, "status", code=0 if accepted else 2)
    monkeypatch.delenv("FOLDSMITH_TRUST_PYTHON")
    cli(foreign, "status", code=2)


@pytest.mark.parametrize("value", ["yes", "folder", "/a:b"])
def test_another_value_of_the_variable_is_refused(foreign, monkeypatch, value):
    monkeypatch.setenv("FOLDSMITH_TRUST_PYTHON", value)
    with pytest.raises(ConfigError, match=r"FOLDSMITH_TRUST_PYTHON=.*: must be 1, 0 or absolute"):
        ProjectFolder.open(foreign)
    assert not ran(foreign)


def test_a_state_that_cannot_be_written_is_a_warning(foreign, cli, monkeypatch):
    (foreign / "file").touch()
    monkeypatch.setenv("FOLDSMITH_STATE_DIR", str(foreign / "file"))
    result = cli(foreign, "status", "--trust-python")
    assert ran(foreign)
    (line,) = result.stderr.splitlines()
    assert line.startswith("warning: ") and "FOLDSMITH_STATE_DIR" in line


def test_without_a_state_dir_it_is_in_the_home(monkeypatch, tmp_path):
    monkeypatch.delenv("FOLDSMITH_STATE_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert state_dir() == tmp_path / ".local/state/foldsmith"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_dir() == tmp_path / "xdg/foldsmith"


def _number(project):
    return project.types["Number"]()


def test_processes_that_it_starts_need_not_be_asked(foreign, tmp_path):
    """As workers of Ray: the project comes from a process that has opened it."""
    project = ProjectFolder.open(foreign, trust=True)
    shutil.rmtree(state_dir())
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        assert pool.apply(_number, (project,)) == 3
    assert not state_dir().exists()
    assert pickle.loads(pickle.dumps(project)).folder == foreign


def test_processes_of_torchrun_are_asked_alike(foreign):
    """Each has the same arguments and environment."""
    environment = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    arguments = ("train", "-cfg", "exp_config/100.yml")
    assert Command(foreign, *arguments, environment=environment).finish().returncode == 2
    assert not ran(foreign)


def test_a_module_in_the_working_folder_is_not_imported(tmp_path):
    for name in ("numpy", "typer", "torch"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w')\nraise SystemExit(7)\n")
    command = [sys.executable, "-m", "foldsmith", "--version"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "reference",
    [
        "@/project.__class__",
        "@/project.settings.__class__.__init__.__globals__",
        "@../../project._x",
        "@/globals.__class__",
        "@/task.__init__",
    ],
)
def test_references_do_not_reach_into_python(small_project, cli, reference):
    result = cli(
        small_project,
        *("check", "-cfg", "exp_config/100.yml", f"model/base_name={reference}"),
        code=2,
    )
    (line,) = result.stderr.splitlines()
    assert f"model/base_name: {reference}: an attribute that begins with _" in line
    # The same in a file, also of a finished run, which is read without a check.
    project = ProjectFolder.open(small_project)
    file = small_project / "exp_config/100.yml"
    content = yaml.safe_load(file.read_text()) | {"model/base_name": reference}
    file.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"100\.yml: model/base_name: .* begins with _"):
        Experiment.load(project, file)


def test_templates_of_paths_do_not_either(small_project):
    file = small_project / "project.yml"
    file.write_text(file.read_text().replace("{object_id}", "{object_id.__class__}"))
    with pytest.raises(ConfigError, match="image_path: .* begins with _"):
        ProjectFolder.open(small_project)
