"""Plain values against the hints of what takes them."""

import pytest

from foldsmith.config.values import arguments_of
from foldsmith.steps.registry import LIBRARY_TYPES


def problems(name, **given):
    return list(arguments_of(LIBRARY_TYPES, name).value_problems(given))


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        ("CrossEntropyLoss", {"weight": [1, 2]}, "weight: must be a {type: ...} or a reference"),
        (
            "AdamW",
            {"lr": "fast"},
            'lr: must be a number or a {type: ...} or a reference, not "fast"',
        ),
        ("ImageLoader", {"batch_size": "32"}, 'batch_size: must be a whole number, not "32"'),
        ("ImageLoader", {"batch_size": 1.5}, "batch_size: must be a whole number, not 1.5"),
        (
            "ImageLoader",
            {"num_workers": True},
            "num_workers: must be a whole number or 'auto', not true",
        ),
        ("ImageLoader", {"shuffle": "yes"}, 'shuffle: must be true or false, not "yes"'),
        ("RandomResizedCrop", {"scale": 0.5}, "scale: must be a list, not 0.5"),
        ("LabelledImages", {"part": "tain"}, "part: must be 'train' or 'val', not \"tain\""),
        ("LabelledImages", {"transforms": "none"}, 'transforms: must be a list, not "none"'),
        ("ImageModel", {"dims_head": [None, "4"]}, "dims_head/1: must be a whole number, not"),
        ("OneCycleLR", {"pct_start": None}, "pct_start: must be a number, not null"),
    ],
)
def test_a_value_of_another_kind_is_refused(name, given, text):
    (problem,) = problems(name, **given)
    assert text in problem


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("AdamW", {"lr": 1, "betas": [0.9, 0.99], "foreach": None}),
        ("ImageLoader", {"batch_size": 32.0, "window": None, "dataset": "@/dataset/train"}),
        ("OneCycleLR", {"max_lr": [1e-3, 1e-2], "total_steps": {"type": "optimizer_steps"}}),
        ("ImageModel", {"dims_head": [None, "@/project.n_classes"], "folder": "."}),
    ],
)
def test_values_that_fit_or_are_built_later_are_accepted(name, given):
    assert problems(name, **given) == []
