import atexit
import gc
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from bundled import ATMACUP, load_script
from hypothesis import settings

# A first example may import a library, and a busy machine takes its time: neither is a fault.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# What the scripts and tests of survival share.
sys.path.insert(0, str(Path(__file__).resolve().parent / "survival"))

# The longest modules run first, so that one process is not left with them at the end.
_LONGEST = (
    *("docs/test_documents", "test_notebook", "test_gpu_check", "new/test_time"),
    *("run/test_ray_engine", "steps/test_new_images", "run/test_staleness", "survival/"),
    *("steps/test_predict_command", "steps/test_predictor_files", "steps/test_patches"),
    *("report/test_report", "steps/test_end_to_end", "training/test_several_processes"),
    *("run/test_side_by_side", "steps/test_unordered", "steps/test_fine_tuning"),
    "steps/test_target_units",
)


def pytest_collection_modifyitems(items):
    def rank(item):
        return min(
            (k for k, name in enumerate(_LONGEST) if name in item.nodeid), default=len(_LONGEST)
        )

    items.sort(key=rank)


_LARGE = ("torch", "timm", "sklearn", "matplotlib", "foldsmith.steps.train")


def pytest_runtest_setup():
    """Keep the garbage collector from looking through the large libraries, once they are there.

    It does so hundreds of times otherwise, half a second each.
    """
    if not gc.get_freeze_count() and all(name in sys.modules for name in _LARGE):
        gc.collect()
        gc.freeze()
        atexit.register(gc.unfreeze)


@pytest.fixture(scope="session", autouse=True)
def trusted(tmp_path_factory):
    """Accept the Python of the tests' own projects, and keep out of the home of who runs them.

    Tests of the question itself set the variable otherwise.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOLDSMITH_TRUST_PYTHON", "1")
        patch.setenv("FOLDSMITH_STATE_DIR", str(tmp_path_factory.mktemp("session-state")))
        yield


@pytest.fixture(scope="module", autouse=True)
def module_folders(request, tmp_path_factory):
    """Remove the folders of a module's fixtures after its last test, unless one has failed.

    pytest removes the folder of each test that passed, but those of ``tmp_path_factory`` stay to
    the end of the session. The folders of session fixtures begin with "session".
    """
    base, failed = tmp_path_factory.getbasetemp(), request.session.testsfailed
    before = {*base.iterdir()}  # of modules in which a test has failed, for instance
    yield
    if request.session.testsfailed == failed:
        for path in {*base.iterdir()} - before:
            if path.is_symlink():
                path.unlink()  # pytest's name of the latest of its kind
            elif not path.name.startswith("session"):
                shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(autouse=True)
def plans_with_given_speeds(monkeypatch):
    """Let ``new`` plan with given speeds in this process; the command line does so in ``warm``."""
    from given_speeds import given_speeds

    from foldsmith.new.timing import planned

    monkeypatch.setattr(planned, "measured_speeds", given_speeds)


@pytest.fixture(autouse=True)
def lines_shown_as_by_the_command():
    """Show foldsmith's log lines on stdout and stderr, as the command line does.

    They reach caplog too. Tests of what a Python user sees start an interpreter of their own.
    """
    from foldsmith.utils.log_output import LOGGER, show_lines

    level, handlers = LOGGER.level, list(LOGGER.handlers)
    show_lines()
    LOGGER.propagate = True
    yield
    LOGGER.setLevel(level)
    LOGGER.handlers[:] = handlers


@pytest.fixture(scope="session")
def generated_data(tmp_path_factory) -> Path:
    """Generated images and tables in the layout of atmaCup #11, made once."""
    folder = tmp_path_factory.mktemp("session-generated")
    make = load_script(ATMACUP / "make_demo_data.py").make_demo_data
    make(folder, n_train=60, n_test=20, seed=3, long_side=64)
    return folder


@pytest.fixture
def project_dir(tmp_path, generated_data) -> Path:
    """A copy of the bundled project with generated data, not yet preprocessed."""
    folder = tmp_path / "project"
    ignored = shutil.ignore_patterns("input", "output")
    shutil.copytree(ATMACUP, folder, ignore=ignored)
    shutil.copytree(generated_data, folder / "input" / "atmaCup-11")
    return folder


@pytest.fixture
def project(project_dir):
    """The same, opened and preprocessed."""
    from foldsmith.project import ProjectFolder
    from foldsmith.steps.preprocess import preprocess

    opened = ProjectFolder.open(project_dir)
    preprocess(opened)
    return opened


@pytest.fixture
def cli():
    """Run the real command line in a folder."""
    from warm import foldsmith

    def run(folder: Path, *arguments: str, code: int = 0) -> subprocess.CompletedProcess:
        result = foldsmith(folder, *arguments)
        assert result.returncode == code, result.stdout + result.stderr
        return result

    return run


@pytest.fixture
def settled(monkeypatch):
    """Let files that were just written count as old ones: when that was, no test can set."""
    monkeypatch.setattr("foldsmith.utils.hashing._SETTLED_NS", -1)


@pytest.fixture(scope="session")
def small_images(tmp_path_factory) -> Path:
    """Tables and images for a small project, made once."""
    make = load_script(ATMACUP / "make_demo_data.py").make_demo_data
    folder = tmp_path_factory.mktemp("session-small") / "photos"
    make(folder, n_train=24, n_test=8, seed=3, long_side=48)
    return folder


@pytest.fixture
def small_project(tmp_path, small_images) -> Path:
    """A project that runs from images to submissions in seconds, nothing done yet."""
    from small_project import make_project

    return make_project(tmp_path / "project", small_images)


@pytest.fixture
def write_images(tmp_path):
    """Write n random PNG images of one size; returns their paths."""
    import cv2
    import numpy as np

    def write(n: int, height: int, width: int) -> list[Path]:
        rng = np.random.default_rng(0)
        paths = [tmp_path / f"{k}.png" for k in range(n)]
        for path in paths:
            cv2.imwrite(str(path), rng.integers(0, 255, (height, width, 3), np.uint8))
        return paths

    return write
