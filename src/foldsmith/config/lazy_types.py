"""The callables that a ``type:`` may name, imported when they are first looked up."""

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any


class LazyTypes(Mapping[str, Callable[..., Any]]):
    """Name of a type -> the callable.

    The names are there at once. An experiment of a few types imports the modules of these alone,
    and a command that builds nothing imports none: torch takes seconds.

    Args:
        places: Name -> the callable, or its place, as in ``foldsmith.models.backbone:Backbone``.
    """

    def __init__(self, places: Mapping[str, str | Callable[..., Any]]) -> None:
        # Looking up the values of others of this class would import them.
        self._imported: dict[str, Callable[..., Any]] = {}
        self._places: dict[str, str | Callable[..., Any]]
        self._places = dict(places._places if isinstance(places, LazyTypes) else places)

    def __getitem__(self, name: str) -> Callable[..., Any]:
        place = self._places[name]
        if not isinstance(place, str):
            return place
        if name not in self._imported:
            module, _, attribute = place.partition(":")
            self._imported[name] = getattr(importlib.import_module(module), attribute)
        return self._imported[name]

    def place(self, name: str) -> str | None:
        """Return where a type is, ``MODULE:NAME``; None for one that was given as a callable."""
        place = self._places[name]
        return place if isinstance(place, str) else None

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __or__(self, others: Mapping[str, str | Callable[..., Any]]) -> "LazyTypes":
        """Return these and others, which win where names are equal."""
        return LazyTypes({**self._places, **LazyTypes(others)._places})
