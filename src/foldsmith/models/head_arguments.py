"""Checks of the arguments of heads on frozen features."""

from collections.abc import Sequence

from foldsmith.errors import ConfigError


def check_above_zero(name: str, values: Sequence[float]) -> None:
    """Check an argument that holds numbers to choose from.

    Raises:
        ConfigError: There are none, or one is not above 0.
    """
    if not values or min(values) <= 0:
        raise ConfigError(f"{name}: {list(values)} must be numbers above 0")
