"""The stack of each form of the target, and whether there can be one."""

from foldsmith.blending.base import Blend, Goal
from foldsmith.blending.column_stacking import StackedColumns
from foldsmith.blending.label_stacking import StackedLabels
from foldsmith.blending.stacking import StackedTrees
from foldsmith.errors import ConfigError

# With more classes each fit grows thousands of trees: with 2,000 it takes hours.
_MOST_CLASSES = 50


def stack_of(name: str, goal: Goal, seed: int) -> Blend:
    """Return the model over the members' predictions for a goal.

    Args:
        name: Its name.
        goal: Objective of the blend.
        seed: Seed of the trees.

    Raises:
        ConfigError: There is no stack for such targets.
    """
    if goal.form.block_sizes:
        raise ConfigError(
            f"ensemble/methods: stack predicts one column, but the target is {goal.form.kind}; "
            "leave it out"
        )
    if goal.metric.of_labels:
        return StackedLabels(name)
    if goal.metric.of_numbers:
        return StackedColumns(name, goal, seed)
    return StackedTrees(name, goal, seed)


def without_stack(goal: Goal) -> str | None:
    """Return why a goal has no stack, for people; None if it has one."""
    n_classes = len(goal.labels)
    if goal.metric.of_labels or not goal.metric.takes_probabilities or n_classes <= _MOST_CLASSES:
        return None
    return f"stack is left out: with {n_classes:,} classes its trees take too long"
