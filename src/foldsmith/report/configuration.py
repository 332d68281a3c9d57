"""Differences between the configurations of experiments."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from foldsmith.report.parts import Table, table
from foldsmith.steps.base import Step
from foldsmith.steps.run_records import RESOLVED_CONFIG
from foldsmith.utils.yaml_io import read_yaml


def tree_of(step: Step) -> dict[str, Any]:
    """Return the configuration that was run; of a step that was not, the one that would be."""
    for folder in (step.folder, step.folder / "fold0"):
        if (folder / RESOLVED_CONFIG).is_file():
            return dict(read_yaml(folder / RESOLVED_CONFIG))
    assert step.experiment is not None
    return step.experiment.tree


def differences(caption: str, trees: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a table of the values in which configurations differ; of a single one, all values.

    Args:
        caption: Caption of the table.
        trees: Name -> values by path, as :func:`~foldsmith.utils.flatten.flatten` gives them.
    """
    keys = sorted({key for tree in trees.values() for key in tree})
    rows: list[Sequence[str]] = []
    for key in keys:
        values = ["" if key not in tree else str(tree[key]) for tree in trees.values()]
        if len(trees) == 1 or len(set(values)) > 1:
            rows.append([key, *values])
    return table(caption, pd.DataFrame(rows, columns=["key", *trees]))
