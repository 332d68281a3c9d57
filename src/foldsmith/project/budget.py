"""The time that a project may take, and values that depend on it.

The key ``time`` of ``project.yml`` is a duration such as ``15m``, or one of three words. A value of
an experiment file may be written as ``{small: 20, medium: 100, large: 300}``; the time picks one of
the three.
"""

import re
from typing import Any, Literal, get_args

from foldsmith.errors import ConfigError

Budget = Literal["small", "medium", "large"]

_NAMES = frozenset(get_args(Budget))

# Durations of the three words.
WORDS: dict[str, str] = {"small": "15m", "medium": "1h", "large": "8h"}

# The longest times that take the first and the second of three values, in seconds.
_SMALL_S, _MEDIUM_S = 1800.0, 10_800.0

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")


def seconds_of(time: str) -> float:
    """Return the seconds of a time.

    Args:
        time: As in ``90s``, ``15m``, ``1h`` or ``1h30m``; ``small``, ``medium`` and ``large`` are
            15 minutes, 1 hour and 8 hours.

    Raises:
        ValueError: The text is not a time, or the time is 0.
    """
    match = _DURATION.fullmatch(WORDS.get(time, time))
    hours, minutes, seconds = (float(each or 0) for each in match.groups()) if match else (0, 0, 0)
    total = 3600.0 * hours + 60.0 * minutes + seconds
    if not total:
        raise ValueError(
            f"{time!r} is not a time; write it as in 90s, 15m, 1h or 1h30m, or as one of "
            f"{', '.join(WORDS)}"
        )
    return total


def budget_of(seconds: float) -> Budget:
    """Return which of three values a time takes."""
    if seconds <= _SMALL_S:
        return "small"
    return "medium" if seconds <= _MEDIUM_S else "large"


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
                f"{where.strip('/')}: a choice by time needs small, medium and large; "
                f"{', '.join(missing)} is missing"
            )
        return within_budget(tree[budget], budget, where)
    return {key: within_budget(node, budget, f"{where}/{key}") for key, node in tree.items()}
