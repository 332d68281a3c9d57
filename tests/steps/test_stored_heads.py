"""The transforms that run once per image, before ``preprocess`` has measured the images."""

import numpy as np
import pytest

from foldsmith.config import Experiment
from foldsmith.data.transforms import Compose
from foldsmith.data.transforms.resize import Resize
from foldsmith.project import ProjectFolder
from foldsmith.steps.image_store import stored_heads
from foldsmith.steps.registry import types_of


def test_normalize_may_follow_the_only_stored_transform(project_dir):
    """Normalize needs the mean of the images, which preprocess measures."""
    (project_dir / "exp_config/010.yml").write_text(
        "import: foldsmith:from_scratch_regression.yml\ndataset/img_size: 32\n"
    )
    project = ProjectFolder.open(project_dir)
    assert not (project.data_dir / "stats_by_data.csv").exists()
    (head,) = stored_heads([Experiment.load(project, project_dir / "exp_config/010.yml")])
    assert [type(transform) for transform in head.transforms] == [Resize]


@pytest.mark.parametrize("recipe", ["from_scratch_regression", "from_scratch_distribution"])
def test_networks_for_numbers_learn_parts_of_the_images_that_they_predict(project_dir, recipe):
    file = project_dir / "exp_config/010.yml"
    file.write_text(f"import: foldsmith:{recipe}.yml\ndataset/img_size: 32\n")
    experiment = Experiment.load(ProjectFolder.open(project_dir), file).written_out()
    parts = experiment.build(types_of(experiment.project))

    def of(which):
        steps = experiment.tree["dataset"][which]["transforms"]
        kept = [k for k, step in enumerate(steps) if step["type"] != "Normalize"]
        return Compose([parts[f"dataset/{which}/transforms/{k}"] for k in kept])

    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    whole = of("val")(image, np.random.default_rng(0))
    assert whole.shape == (36, 36, 3)
    mirrored = [whole, whole[::-1], whole[:, ::-1], whole[::-1, ::-1]]
    windows = {
        one[top : top + 32, left : left + 32].tobytes()
        for one in mirrored
        for top in range(5)
        for left in range(5)
    }
    seen = {of("train")(image, np.random.default_rng(k)).tobytes() for k in range(20)}
    assert len(seen) > 10
    assert seen <= windows
