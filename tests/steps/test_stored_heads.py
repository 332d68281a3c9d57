"""The transforms that run once per image, before ``preprocess`` has measured the images."""

from foldsmith.config import Experiment
from foldsmith.data.transforms.resize import Resize
from foldsmith.project import ProjectFolder
from foldsmith.steps.image_store import stored_heads


def test_normalize_may_follow_the_only_stored_transform(project_dir):
    """Normalize needs the mean of the images, which preprocess measures."""
    (project_dir / "exp_config/010.yml").write_text(
        "import: foldsmith:from_scratch_regression.yml\ndataset/img_size: 32\n"
    )
    project = ProjectFolder.open(project_dir)
    assert not (project.data_dir / "stats_by_data.csv").exists()
    (head,) = stored_heads([Experiment.load(project, project_dir / "exp_config/010.yml")])
    assert [type(transform) for transform in head.transforms] == [Resize]
