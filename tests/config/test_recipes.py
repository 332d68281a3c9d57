import inspect

import pytest

from foldsmith.config import Project
from foldsmith.data.datasets import all_photos
from foldsmith.stages import check

PRETRAININGS = [
    *("self_supervised", "simsiam_cosine", "byol", "simclr", "barlow_twins", "vicreg", "moco_v3"),
    *("dino", "dino_vit"),
]


@pytest.mark.parametrize("name", PRETRAININGS)
def test_a_pretraining_needs_its_recipe_and_a_folder_only(project_dir, name):
    if name.startswith("dino") and "n_local" not in inspect.signature(all_photos).parameters:
        pytest.skip("the dataset makes no local crops")
    file = project_dir / "exp_config/010.yml"
    file.write_text(f"import: foldsmith:{name}.yml\nglobals/output_path: output/010\n")
    project = Project.open(project_dir)
    check(project, file)
    if name != "self_supervised":
        resize = "progressive={type: ProgressiveResize, sizes: [112, 224], shares: [0.6, 0.4]}"
        check(project, file, [resize, "probe=null"])
