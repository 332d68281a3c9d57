import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parents[1] / "competitions" / "atmacup11"))


@pytest.fixture(scope="session")
def small_photos(tmp_path_factory) -> Path:
    """Tables and photos for a small project, made once."""
    from make_demo_data import make_demo_data

    folder = tmp_path_factory.mktemp("small") / "photos"
    make_demo_data(folder, n_train=24, n_test=8, seed=3, long_side=48)
    return folder


@pytest.fixture
def small_project(tmp_path, small_photos) -> Path:
    """A project that runs from photos to submissions in seconds, nothing done yet."""
    from small_project import make_project

    return make_project(tmp_path / "project", small_photos)
