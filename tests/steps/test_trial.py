"""`check` builds what it can without data; nothing is created or replaced before."""

import pytest

from foldsmith.config import Experiment
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.steps.check import check
from foldsmith.steps.pretrain import pretrain
from foldsmith.steps.train_command import train

RANDOM = "model/pretrained=null"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["loss/weight=[1, 2, 3, 4]"], "loss/weight: must be a {type: ...} or a reference"),
        (["loss/label_smoothing=2.0"], "loss: fails for outputs of the task multi-class"),
        (["loss={type: L1Loss}"], "loss: fails for outputs of the task multi-class"),
        (["loss={type: CrossEntropyLoss, reduction: none}"], "its reduction must be mean or sum"),
        (["model/dims_head=[null, 7]"], "model: gives outputs of shape (7,)"),
        (["model/base_name=resnet1d"], "timm has no model 'resnet1d'"),
        (["dataset/train/transforms=[]"], "dataset/train/transforms: the list is empty"),
        (["dataset/val/transforms=[{type: Resize, height: 8, width: 8}]"], "ends in Resize"),
        (["dataset/train/transforms/0/max_size=0"], "max_size: 0 is not a whole number"),
        (["dataset/mixup={type: Mixup, alpha: -1}"], "dataset/mixup: alpha: -1 must be above 0"),
        (["dataset/mixup=none"], "dataset/mixup: must be {type: NAME, ...} or null, not 'none'"),
        (["dataset/val/transforms={type: Mixup}"], "must be a list of transforms, not Mixup"),
        (["model=@/project"], "model: must be {type: NAME, ...}, not '@/project'"),
        (["dataset=@/project"], "dataset: must hold keys and values, not '@/project'"),
        (["optimizer/lr=-1"], "optimizer: Invalid learning rate: -1"),
        (["optimizer/lr=.nan"], "optimizer: Invalid learning rate: nan"),
        (["dataset/train=none"], "dataset/train: must be {type: NAME, ...}, not 'none'"),
        (["extensions/log=none"], "extensions: must hold {type: NAME, ...} each, not 'none'"),
        (["loss=null"], "loss: must be {type: NAME, ...}, not None"),
        (["extensions=LogReport"], "extensions: must be components by name"),
    ],
)
def test_what_cannot_be_built_is_said_by_check(project_dir, options, text):
    with pytest.raises(ConfigError) as error:
        check(ProjectFolder.open(project_dir), "exp_config/100.yml", [RANDOM, *options])
    assert text in str(error.value)
    assert str(error.value).count("\n") < 2


def test_an_old_result_outlives_a_loss_that_cannot_be_computed(cli, small_project):
    cli(small_project, "run", "-cfg", "exp_config/100.yml", "--until", "train", "--no-report")
    fold = small_project / "output" / "100" / "fold0"
    before = {path.name: path.read_bytes() for path in fold.glob("*.pth")}
    assert before
    result = cli(
        *(small_project, "train", "-cfg", "exp_config/100.yml", "-f"),
        *("loss={type: L1Loss}",),
        code=2,
    )
    assert "loss: fails for outputs" in result.stderr
    assert before == {path.name: path.read_bytes() for path in fold.glob("*.pth")}


def test_every_bundled_experiment_can_be_built(project_dir):
    project = ProjectFolder.open(project_dir)
    for file in sorted((project_dir / "exp_config").glob("*.yml")):
        experiment = Experiment.load(project, file)
        options = [RANDOM] if experiment.tree.get("model", {}).get("pretrained") else []
        check(project, file, options)


def test_a_loss_of_the_projects_own_is_tried(project_dir):
    (project_dir / "own.py").write_text(
        "def wrong(logits, targets):\n"
        "    raise KeyError('no such thing')\n"
        "TYPES = {'Wrong': lambda: wrong}\n"
    )
    with (project_dir / "project.yml").open("a") as file:
        file.write("python: [own.py]\n")
    with pytest.raises(ConfigError, match="loss: fails .* KeyError: 'no such thing'"):
        check(ProjectFolder.open(project_dir), "exp_config/100.yml", [RANDOM, "loss={type: Wrong}"])


def test_off_is_a_precision(project_dir):
    tree = check(
        ProjectFolder.open(project_dir), "exp_config/100.yml", [RANDOM, "globals/amp_dtype=off"]
    )
    assert "amp_dtype: 'off'" in tree


@pytest.mark.parametrize(
    ("stage", "file", "options"),
    [
        (pretrain, "000", ["model/backbone/model_name=resnet1d"]),
        (train, "100", ["dataset/train/transforms=[]", RANDOM]),
        (train, "401", ["dataset/val/transforms/pad=3", RANDOM]),
    ],
)
def test_the_stages_refuse_what_check_refuses(project_dir, stage, file, options):
    with pytest.raises(ConfigError, match="transforms|resnet1d"):
        stage(ProjectFolder.open(project_dir), f"exp_config/{file}.yml", options)
