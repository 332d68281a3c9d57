"""Extensions and transforms by name: added, changed and dropped."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldsmith.config import Context, Experiment
from foldsmith.config.check import check_experiment
from foldsmith.config.named_items import as_lists, in_order
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.steps.inputs.train import as_trained
from foldsmith.steps.registry import types_of
from foldsmith.targets.tasks import create_task

ATMACUP = ProjectFolder.open(Path(__file__).resolve().parents[2] / "competitions" / "atmacup11")
TRANSFORMS = "dataset/train/transforms"


def load(tmp_path, text="", *overrides):
    file = tmp_path / "x.yml"
    numbers = "[0.5, 0.5, 0.5]"
    head = f"dataset/ch_mean_norm: {numbers}\ndataset/ch_std_norm: {numbers}\n"
    file.write_text(f"import: foldsmith:multi_class.yml\n{head}{text}")
    return Experiment.load(ATMACUP, file, overrides)


def built(experiment, path):
    context = Context(task=create_task(experiment.globals, ATMACUP))
    return [type(part).__name__ for part in experiment.build(types_of(ATMACUP), context)[path]]


PLAIN = [
    *("LongestMaxSize", "PadIfNeeded", "HorizontalFlip", "ShiftScaleRotate", "RandomResizedCrop"),
    "Normalize",
]


@pytest.mark.parametrize("as_override", [False, True])
@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("flip", "null", [*PLAIN[:2], *PLAIN[3:]]),
        # Last, but what turns bytes into numbers stays behind it.
        ("gray", "{type: ToGray, p: 0.2}", [*PLAIN[:-1], "ToGray", "Normalize"]),
        ("gray", "{type: ToGray, p: 0.2, before: flip}", [*PLAIN[:2], "ToGray", *PLAIN[2:]]),
        ("flip", "{type: Transpose}", [*PLAIN[:2], "Transpose", *PLAIN[3:]]),
    ],
)
def test_a_transform_is_dropped_added_and_changed(tmp_path, as_override, name, value, expected):
    key = f"{TRANSFORMS}/{name}"
    if as_override:
        experiment = load(tmp_path, "", f"{key}={value}")
    else:
        experiment = load(tmp_path, f"{key}: {value}\n")
    check_experiment(experiment, types_of(ATMACUP))
    assert built(experiment, TRANSFORMS) == expected
    (tmp_path / "resolved.yml").write_text(experiment.dump())
    again = Experiment.load(ATMACUP, tmp_path / "resolved.yml")
    assert built(again, TRANSFORMS) == expected


def test_an_extension_is_dropped_and_added(tmp_path):
    text = "extensions/lr_curve: null\nextensions/every: {type: WeightsSnapshot, filename: a, "
    experiment = load(tmp_path, text + "trigger: {type: LastEpoch}}\n")
    check_experiment(experiment, types_of(ATMACUP))
    names = list(experiment.wired["extensions"])
    assert "lr_curve" not in names
    assert names[-1] == "every"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extensions/lr_curv: null", "there is no lr_curv in .*did you mean lr_curve"),
        (f"{TRANSFORMS}/gray: {{type: ToGray, before: flap}}", "no flap .did you mean flip"),
        ("extensions/more: 3", "extensions: must hold {type: NAME, ...} each, not 3"),
        ("extensions/log: null", "extensions: must hold a {type: LogReport}"),
        ("extensions/console/kyes: []", "extensions/console: ConsoleReport has no argument kyes"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as error:
        check_experiment(load(tmp_path, text + "\n"), types_of(ATMACUP))
    assert "\n" not in str(error.value)


def test_an_override_that_drops_nothing_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no key lr_curv in extensions .did you mean lr_curve"):
        load(tmp_path, "", "extensions/lr_curv=null")


def test_lists_still_read_and_equal_what_has_names(tmp_path):
    named = load(tmp_path)
    lists = as_lists(named.tree)
    values = {
        "extensions": lists["extensions"],
        TRANSFORMS: lists["dataset"]["train"]["transforms"],
    }
    plain = named.with_values(values)
    check_experiment(plain, types_of(ATMACUP))
    assert built(plain, TRANSFORMS) == PLAIN
    assert as_trained(plain) == as_trained(named)


def test_the_order_of_transforms_counts_and_their_names_do_not(tmp_path):
    flip, shift = "{type: HorizontalFlip}", "{type: Rotate, limit: 9}"
    start = f"{TRANSFORMS}:\n  a: {{type: LongestMaxSize}}\n"
    end = "  z: {type: Normalize}\n"
    first, renamed, turned = (
        load(tmp_path, f"{start}  {one}\n  {two}\n{end}")
        for one, two in (
            (f"b: {flip}", f"c: {shift}"),
            (f"flip: {flip}", f"turn: {shift}"),
            (f"b: {shift}", f"c: {flip}"),
        )
    )
    assert as_trained(first) == as_trained(renamed)
    assert as_trained(first) != as_trained(turned)


def test_a_reference_to_a_named_component_follows_its_place():
    tree = {
        "extensions": {"a": {"type": "A"}, "b": {"type": "B", "n": 3}},
        "x": "@/extensions/b/n",
        "y": "@/extensions/b.attribute",
        "z": "@/other/b",
    }
    assert as_lists(tree) == {
        "extensions": [{"type": "A"}, {"type": "B", "n": 3}],
        "x": "@/extensions/1/n",
        "y": "@/extensions/1.attribute",
        "z": "@/other/b",
    }


names = st.lists(st.sampled_from("abcdef"), unique=True, min_size=1)


@given(names, st.data())
def test_order_keeps_every_component_and_honours_before(order, data):
    anchor = data.draw(st.sampled_from(order))
    added = {"new": {"type": "X", "before": anchor}}
    found = list(in_order({name: {"type": name} for name in order} | added, ["extensions"]))
    assert found == [
        part for name in order for part in (["new"] if name == anchor else []) + [name]
    ]
