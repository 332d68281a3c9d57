import pytest

from foldsmith.project import ProjectFolder
from foldsmith.steps.check import check

PRETRAININGS = [
    *("self_supervised", "simsiam_cosine", "byol", "simclr", "barlow_twins", "vicreg", "moco_v3"),
    *("dino", "dino_vit", "lejepa"),
]


@pytest.mark.parametrize("name", PRETRAININGS)
def test_a_pretraining_needs_its_recipe_and_a_folder_only(project_dir, name):
    file = project_dir / "exp_config/010.yml"
    file.write_text(f"import: foldsmith:{name}.yml\nglobals/output_path: output/010\n")
    project = ProjectFolder.open(project_dir)
    check(project, file)
    if name != "self_supervised":
        resize = "progressive={type: ProgressiveResize, sizes: [112, 224], fractions: [0.6, 0.4]}"
        check(project, file, [resize, "probe=null"])
