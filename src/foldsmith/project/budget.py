"""Values that depend on how much time a project has.

A value of an experiment file may be written as ``{small: 20, medium: 100, large: 300}``; the key
``budget`` of ``project.yml`` picks one of the three.
"""

from typing import Any, Literal, get_args

from foldsmith.errors import ConfigError

Budget = Literal["small", "medium", "large"]

_NAMES = frozenset(get_args(Budget))


def within_budget(tree: Any, budget: Budget, where: str = "") -> Any:
    """Return a tree in which every choice of three is made.

    Args:
        tree: Plain dicts, lists and scalars.
        budget: Which to take.
        where: Path of the tree, for messages.

    Raises:
        ConfigError: A choice names some of the three, but not all.
    """
    if isinstance(tree, list):
        return [within_budget(node, budget, f"{where}/{k}") for k, node in enumerate(tree)]
    if not isinstance(tree, dict):
        return tree
    if tree and tree.keys() <= _NAMES:
        missing = [name for name in get_args(Budget) if name not in tree]
        if missing:
            raise ConfigError(
                f"{where.strip('/')}: a choice by budget needs small, medium and large; "
                f"{', '.join(missing)} is missing"
            )
        return within_budget(tree[budget], budget, where)
    return {key: within_budget(node, budget, f"{where}/{key}") for key, node in tree.items()}
