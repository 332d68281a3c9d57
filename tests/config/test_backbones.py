import pytest
import yaml

from foldsmith.config import Experiment
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.run.plan import plan_of
from foldsmith.steps.check import check
from foldsmith.utils.yaml_io import dump_yaml, parse_yaml

SOURCE = "import: foldsmith:byol.yml\nglobals/output_path: output/byol\nglobals/max_epoch: 25\n"


@pytest.fixture
def opened(project_dir):
    (project_dir / "exp_config/010.yml").write_text(SOURCE)
    return ProjectFolder.open(project_dir)


def picking(project, text, overrides=()):
    """Return what a fine-tuning's backbone is, if its file says ``text``."""
    file = project.folder / "exp_config/110.yml"
    file.write_text(f"import: 100.yml\nglobals/output_root: output/110\nmodel/pretrained: {text}\n")
    return Experiment.load(project, file, overrides).tree["model"]["pretrained"]


@pytest.mark.parametrize(
    ("pick", "file"),
    [
        ("best_probe", "backbone_best_probe.pth"),
        ("last", "backbone_epoch_25.pth"),
        ("20", "backbone_epoch_20.pth"),
    ],
)
def test_a_pick_is_a_file_of_the_other_experiment(opened, pick, file):
    assert picking(opened, f"{{from: 010, pick: {pick}}}") == f"output/byol/{file}"


def test_a_pick_can_be_overridden(opened):
    text = "{from: 010, pick: best_probe}"
    assert picking(opened, text, ["model/pretrained/pick=last"]).endswith("epoch_25.pth")
    assert picking(opened, "null", ["model/pretrained={from: 010, pick: 10}"]).endswith("_10.pth")
    assert picking(opened, text, ["model/pretrained=null"]) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{from: 011, pick: last}",
            r"110.yml: model/pretrained: from: there is no 011.yml ",
        ),
        ("{from: 200, pick: last}", "from: 200.yml is no pretraining"),
        ("{from: 000, pick: best_probe}", "pick: 000.yml has no probe"),
        ("{from: 010, pick: 7}", r"writes no backbone_epoch_7.pth .*nearest is backbone_epoch_10"),
        ("{from: 010, pick: best}", "pick: 'best' must be best_probe, last or an epoch"),
        ("{from: 010}", "must be a file, null, or"),
    ],
)
def test_what_cannot_be_picked_is_named(opened, text, message):
    with pytest.raises(ConfigError, match=message):
        picking(opened, text)


def test_the_resolved_experiment_holds_the_path(opened, project_dir):
    picking(opened, "{from: 010, pick: last}")
    made = project_dir / "output/byol/backbone_epoch_25.pth"
    with pytest.raises(ConfigError, match="no such file"):
        check(opened, "exp_config/110.yml")
    made.parent.mkdir(parents=True)
    made.touch()
    tree = yaml.safe_load(check(opened, "exp_config/110.yml"))
    assert tree["model"]["pretrained"] == "output/byol/backbone_epoch_25.pth"


def test_a_plan_makes_what_is_picked(opened):
    picking(opened, "{from: 010, pick: best_probe}")
    steps = {step.label: step for step in plan_of(opened, "exp_config/110.yml").steps}
    assert steps["train 110 fold 0"].needs == ("preprocess", "pretrain 010")
    assert steps["pretrain 010"].wanted == ("backbone_best_probe.pth",)


def test_a_plan_picks_from_what_is_overridden(opened):
    picking(opened, "{from: 010, pick: last}")
    plan = plan_of(opened, "exp_config/110.yml", ["010:globals/max_epoch=4"])
    steps = {step.label: step for step in plan.steps}
    assert steps["pretrain 010"].wanted == ("backbone_epoch_4.pth",)
    assert steps["pretrain 010"].epochs == 4
    with pytest.raises(ConfigError, match="has no probe"):
        plan_of(
            opened,
            "exp_config/110.yml",
            ["010:probe=null", "model/pretrained/pick=best_probe"],
        )


def test_a_plan_knows_that_there_is_no_probe(opened):
    path = "output/000_resnet18d_simsiam/backbone_best_probe.pth"
    picking(opened, path)
    with pytest.raises(ConfigError, match=r"model/pretrained: 000.yml has no probe"):
        plan_of(opened, "exp_config/110.yml")


def test_experiments_are_names():
    assert parse_yaml("[000, 010, 0, 10, 0.5, 1086]", "x") == ["000", "010", 0, 10, 0.5, 1086]
    assert parse_yaml(dump_yaml({"from": "010"}), "x") == {"from": "010"}
