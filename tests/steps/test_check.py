import cv2
import pytest
import yaml

from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.steps.check import check, show_augmentations


def test_check_prints_the_resolved_experiment(cli, project_dir):
    result = cli(project_dir, "check", "-cfg", "exp_config/001.yml", "globals/max_epoch=7")
    tree = yaml.safe_load(result.stdout)
    assert tree["globals"]["max_epoch"] == 7
    assert tree["model"]["backbone"]["model_name"] == "resnet34d"
    assert not (project_dir / "output").exists()


def test_the_sheet_shows_images_beside_their_augmentations(project_dir):
    project = ProjectFolder.open(project_dir)
    sheet = show_augmentations(
        project,
        "exp_config/100.yml",
        project_dir / "sheet.png",
        ["model/pretrained=null", "dataset/img_size=64"],
    )
    image = cv2.imread(str(sheet))
    assert image.shape == (8 * 132 + 4, 8 * 132 + 4, 3)
    cells = [image[4 : 4 + 128, 4 + k * 132 : 132 + k * 132] for k in range(8)]
    assert all(cell.std() > 1 for cell in cells)
    assert any((cells[1] != cell).any() for cell in cells[2:])


def test_an_ensemble_has_no_augmentations(project_dir):
    with pytest.raises(ConfigError, match="no augmentations"):
        show_augmentations(
            ProjectFolder.open(project_dir), "exp_config/900.yml", project_dir / "s.png"
        )


def test_a_project_may_bring_its_own_parts(project_dir):
    (project_dir / "parts.py").write_text(
        "from torch import nn\n"
        "class Half(nn.Module):\n"
        "    def __init__(self, weight: float = 0.5):\n"
        "        super().__init__()\n"
        "        self.weight = weight\n"
        "    def forward(self, logits, targets):\n"
        "        return self.weight * nn.functional.mse_loss(logits, targets)\n"
        "TYPES = {'Half': Half}\n"
    )
    with (project_dir / "project.yml").open("a") as file:
        file.write("python: [parts.py]\n")
    project = ProjectFolder.open(project_dir)
    options = ["model/pretrained=null", "loss={type: Half, weight: 0.25}"]
    assert "type: Half" in check(project, "exp_config/200.yml", options)
    with pytest.raises(ConfigError, match="Half has no argument wait"):
        check(project, "exp_config/200.yml", [*options, "loss/wait=1"])
