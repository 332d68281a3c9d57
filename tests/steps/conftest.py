"""The run that tests of predictions share."""

import shutil

import pytest
from blended_run import MEMBERS, RUN, images_of
from small_project import make_project, write_experiment
from warm import foldsmith

import foldsmith as package


@pytest.fixture(scope="session")
def blended(tmp_path_factory, small_images):
    """A project after its ensemble; no test changes it."""
    folder = make_project(tmp_path_factory.mktemp("session-blended") / "project", small_images)
    for name, content in MEMBERS.items():
        write_experiment(folder, name, content)
    run = ("run", "--no-report", "-cfg", "exp_config/900.yml", "--keep-snapshots")
    result = foldsmith(folder, *run)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


@pytest.fixture
def blended_copy(blended, tmp_path):
    """A copy to change."""
    return shutil.copytree(blended, tmp_path / "project")


@pytest.fixture(scope="session")
def predictor(blended):
    """The predictor of the ensemble."""
    return package.load(blended / RUN)


@pytest.fixture(scope="session")
def predicted(blended, predictor):
    """Its predictions for the test images."""
    return predictor.predict(images_of(blended))
