from pathlib import Path

import pytest

from foldsmith.config import Context, Experiment
from foldsmith.config.check import check_experiment
from foldsmith.config.overrides import apply_override
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.steps.registry import types_of
from foldsmith.targets.tasks import create_task

ATMACUP = Path(__file__).resolve().parents[2] / "competitions" / "atmacup11"
EXPERIMENTS = sorted((ATMACUP / "exp_config").glob("*.yml"))
PUBLISHED = [path for path in EXPERIMENTS if path.stem[0] in "012" or path.stem == "900"]


@pytest.fixture(scope="module")
def atmacup():
    return ProjectFolder.open(ATMACUP)


def load(project, name, *overrides):
    return Experiment.load(project, Path("exp_config") / name, overrides)


def problems(project, name, *overrides):
    with pytest.raises(ConfigError) as error:
        check_experiment(load(project, name, *overrides), types_of(project))
    return str(error.value)


def test_there_are_thirteen_published_experiments():
    assert len(PUBLISHED) == 13


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_all_experiments_pass_the_check(atmacup, path):
    # Their pretrained backbones do not exist in a fresh clone.
    pretrained = "pretrained" in load(atmacup, path.name).tree.get("model", {})
    no_file = ["model/pretrained=null"] if pretrained else []
    check_experiment(load(atmacup, path.name, *no_file), types_of(atmacup))


def test_published_values(atmacup):
    simsiam = load(atmacup, "002.yml")
    assert simsiam.globals.max_epoch == 300
    assert simsiam.globals.grad_accum * simsiam.tree["loader"]["train"]["batch_size"] == 512
    cls = load(atmacup, "101.yml").tree
    assert cls["model"]["pretrained"] == "output/001_resnet34d_simsiam/backbone_epoch_150.pth"
    assert cls["globals"]["max_epoch"] == 150
    assert cls["dataset"]["mixup"]["start_epoch"] == 15
    reg = load(atmacup, "203.yml").tree
    assert reg["model"]["base_name"] == "resnest50d_1s4x24d"
    assert (reg["globals"]["max_epoch"], reg["dataset"]["mixup"]) == (200, None)
    assert reg["loss"]["type"] == "MSELoss"
    assert reg["optimizer"]["lr"] == 2e-5


def test_overrides_reach_any_path(atmacup):
    tree = load(
        atmacup,
        "100.yml",
        "globals/max_epoch=2",
        "dataset/train/transforms/2/p=0.25",
        "optimizer/betas=[0.8, 0.9]",
        "model/pretrained=null",
        "optimizer/lr=1e-3",
    ).tree
    assert tree["globals"]["max_epoch"] == 2
    assert tree["dataset"]["train"]["transforms"][2] == {"type": "VerticalFlip", "p": 0.25}
    assert tree["optimizer"]["betas"] == [0.8, 0.9]
    assert tree["optimizer"]["lr"] == 1e-3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("globals/max_epoch", "must be PATH=VALUE"),
        ("globals/max_epch=2", "no key max_epch in globals (did you mean max_epoch"),
        ("dataset/img_sise=2", "no key img_sise in dataset (did you mean img_size?)"),
        ("dataset/train/transforms/40/p=0", "dataset/train/transforms is a list of 8"),
        ("globals/seed/deep=1", "globals/seed is 1086, which holds no keys"),
        ("globals/seed=[1", "override globals/seed=[1"),
    ],
)
def test_overrides_that_fit_nothing(atmacup, text, message):
    with pytest.raises(ConfigError) as error:
        load(atmacup, "100.yml", text)
    assert message in str(error.value).replace("'", "")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss={type: CrossEntropiLoss}", "loss: unknown type CrossEntropiLoss (did you mean Cro"),
        ("optimizer/lrr=1", "optimizer: AdamW has no argument lrr (did you mean lr"),
        ("model={type: ImageModel}", "model: ImageModel needs the argument base_name (accepted:"),
        ("loader/train/dataset=@/dataset/trian", "loader/train/dataset: broken reference @/datase"),
        ("dataset/train/project=@/project.klasses", "dataset/train/project: broken reference"),
        ("model/pretrained=output/none.pth", "model/pretrained: no such file"),
    ],
)
def test_the_check_names_path_and_remedy(atmacup, override, message):
    found = problems(atmacup, "100.yml", "model/pretrained=null", override)
    assert message in found
    assert "100.yml" in found


def test_the_check_reports_all_problems_at_once(atmacup):
    found = problems(atmacup, "100.yml", "optimizer/lrr=1", "loss/weigt=3", "model/pretrained=null")
    assert len(found.splitlines()) == 2


def write_experiment(project_dir, text):
    (project_dir / "exp_config" / "x.yml").write_text(text)
    return ProjectFolder.open(project_dir)


def test_a_misspelt_key_beside_an_import_is_found(project_dir):
    text = "import: base/classification.yml\ndataset/img_sise: 32\nmodel/pretrained: null\n"
    found = problems(write_experiment(project_dir, text), "x.yml")
    assert "nothing uses the key dataset/img_sise (did you mean img_size?)" in found


def test_a_misspelt_global_is_found(project_dir):
    project = write_experiment(project_dir, "import: base/simsiam.yml\nglobals/max_epoc: 3\n")
    with pytest.raises(ConfigError, match=r"unknown key max_epoc \(did you mean max_epoch"):
        load(project, "x.yml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import: base/none.yml\n", "import: .*none.yml: no such file"),
        ("import: foldsmith:regresion.yml\n", "did you mean foldsmith:regression.yml"),
        ("import: x.yml\n", "Circular import"),
        ("import: base/simsiam.yml\nnone/deep/key: 3\n", "import: none/deep/key|not in"),
        ("- 1\n", "must be a list of 'key: value' lines"),
        ("globals: {task: regression}\nmodle: {}\n", "unknown section modle"),
    ],
)
def test_broken_files(project_dir, text, message):
    project = write_experiment(project_dir, text)
    with pytest.raises(ConfigError, match=message):
        check_experiment(load(project, "x.yml"), types_of(project))


def test_the_resolved_file_loads_to_the_same_tree(atmacup, tmp_path):
    first = load(atmacup, "103.yml")
    (tmp_path / "resolved.yml").write_text(first.dump())
    assert Experiment.load(atmacup, tmp_path / "resolved.yml").tree == first.tree


def test_with_values_leaves_the_original_alone(atmacup):
    first = load(atmacup, "100.yml")
    changed = first.with_values({"globals/val_fold": 3})
    assert changed.globals.val_fold == 3
    assert first.globals.val_fold is None


def test_a_reference_override_is_kept_as_reference():
    tree = {"a": {"b": 1}, "c": 2}
    apply_override(tree, "a/b=@/c")
    assert tree["a"]["b"] == "@/c"


def test_an_error_inside_a_part_names_its_path(atmacup):
    experiment = load(atmacup, "100.yml", "model/base_name=resnet18x", "model/pretrained=null")
    task = create_task(experiment.globals, atmacup)
    parts = experiment.build(types_of(atmacup), Context(task=task))
    with pytest.raises(ConfigError, match=r"100\.yml: model: timm has no model 'resnet18x' \(did"):
        parts["model"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("globals/auxiliary={material: 0.3}", "declares no material (did you mean materials"),
        ("globals/auxiliary={materials: 0}", "globals: auxiliary/materials"),
        ("globals/head_init=ridge", "is for the task regression, not multi-class"),
        ("globals/continuous_target=true", "is for the task hl-gauss, not multi-class"),
    ],
)
def test_what_the_project_does_not_declare(atmacup, text, message):
    with pytest.raises(ConfigError) as error:
        check_experiment(load(atmacup, "100.yml", text, "model/pretrained=null"), types_of(atmacup))
    assert message in str(error.value).replace("'", "")
