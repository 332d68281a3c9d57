"""Arguments that components get from the experiment."""

import inspect
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytorch_pfn_extras.config import Config, customize_type

from foldsmith.config import Context, Experiment
from foldsmith.config.check import check_experiment
from foldsmith.config.wiring import WIRING, wired
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.steps.inputs.train import as_trained
from foldsmith.steps.registry import LIBRARY_TYPES, types_of
from foldsmith.targets.tasks import create_task
from foldsmith.utils.flatten import flatten

ATMACUP = ProjectFolder.open(Path(__file__).resolve().parents[2] / "competitions" / "atmacup11")


def load(name, *overrides):
    file = Path("exp_config") / f"{name}.yml"
    return Experiment.load(ATMACUP, file, ["model/pretrained=null", *overrides])


EXPERIMENTS = {name: load(name) for name in ("100", "200", "410", "420")}


@pytest.mark.parametrize("name", WIRING)
def test_every_argument_is_one_of_its_type(name):
    assert WIRING[name].keys() <= inspect.signature(LIBRARY_TYPES[name]).parameters.keys()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_resolved_fine_tuning_is_short_and_has_few_references(name):
    text = EXPERIMENTS[name].dump()
    assert text.count("@") <= 8
    assert len(text.splitlines()) <= 125


@given(st.sampled_from(sorted(EXPERIMENTS)), st.data())
def test_an_argument_that_is_given_as_it_is_wired_changes_no_fingerprint(name, data):
    experiment = EXPERIMENTS[name]
    full = flatten(experiment.wired)
    left_out = sorted(full.keys() - flatten(experiment.tree).keys())
    # An argument of a component that the file names; deeper ones have no parent in the file.
    paths = [path for path in left_out if _has_parent(experiment.tree, path)]
    chosen = data.draw(st.lists(st.sampled_from(paths), unique=True, min_size=1))
    given_too = experiment.with_values({path: full[path] for path in chosen})
    assert given_too.tree != experiment.tree
    assert as_trained(given_too) == as_trained(experiment)
    assert given_too.wired == experiment.wired


def _has_parent(tree, path):
    *parents, _ = path.split("/")
    for key in parents:
        tree = tree[int(key)] if isinstance(tree, list) else tree.get(key)
        if tree is None:
            return False
    return True


@pytest.mark.parametrize(
    "override", ["dataset/train/seed=7", "ema/decay=0.9", "optimizer/params={type: layer_decay_"]
)
def test_an_argument_that_differs_from_its_wiring_counts(override):
    if override.endswith("_"):
        override += "groups, lr: 0.1}"
    changed = load("200", override)
    assert as_trained(changed) != as_trained(EXPERIMENTS["200"])
    check_experiment(changed, types_of(ATMACUP))


def widths(experiment):
    context = Context(task=create_task(experiment.globals, ATMACUP))
    head = experiment.build(types_of(ATMACUP), context)["model"].head
    return [layer.out_features for layer in head if hasattr(layer, "out_features")]


@pytest.mark.parametrize(
    ("name", "task", "width"),
    [
        ("100", "multi-class", 4),
        ("100", "corn", 3),
        ("100", "regression", 1),
        # 32 bins of the target's range, and three beyond each of its ends.
        ("420", "hl-gauss", 38),
    ],
)
def test_the_head_is_as_wide_as_the_task(name, task, width):
    experiment = load(name, f"globals/task={task}")
    assert "dims_head" not in experiment.tree["model"]
    assert widths(experiment) == [width]


def test_a_head_that_is_given_stays():
    assert widths(load("100", "model/dims_head=[null, 8, 4]")) == [8, 4]


def test_a_type_of_a_project_declares_its_own():
    @customize_type(seed="/globals/seed", size="../size")
    def own(seed, size, other=3):
        return seed, size, other

    tree = {"globals": {"seed": 5}, "a": {"size": 2, "b": {"type": "Own"}}}
    full = wired(tree, {"Own": own})
    assert full["a"]["b"] == {"type": "Own", "seed": "@/globals/seed", "size": "@../size"}
    # The Config System resolves its declarations itself: to the same values.
    for content in (tree, full):
        assert Config(content, {"Own": own})["/a/b"] == (5, 2, 3)
    tree["a"]["b"]["seed"] = 6
    assert wired(tree, {"Own": own})["a"]["b"]["seed"] == 6


def test_an_argument_without_its_section_is_still_missing():
    experiment = Experiment.load(ATMACUP, Path("exp_config/000.yml"))
    wrong = experiment.with_values(
        {"extensions": [{"type": "WeightsSnapshot", "filename": "x", "trigger": [1, "epoch"]}]}
    )
    with pytest.raises(ConfigError, match="WeightsSnapshot needs the argument target"):
        check_experiment(wrong, types_of(ATMACUP))
