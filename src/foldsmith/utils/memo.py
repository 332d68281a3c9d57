"""Memoise function calls within a block, such as one look at a project."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_found: ContextVar[dict[Hashable, Any] | None] = ContextVar("found", default=None)


@contextmanager
def one_look() -> Iterator[None]:
    """Until the block ends, take files to be as they were when they were first looked at.

    Steps of a plan share tables and images. With a million of them, to read the tables and to ask
    for the time of change of every image takes seconds, for each step anew. A look within another
    is part of that.
    """
    token = _found.set({} if _found.get() is None else _found.get())
    try:
        yield
    finally:
        _found.reset(token)


def once(key: Hashable, find: Callable[[], T]) -> T:
    """Return the result of a function; within :func:`one_look` it is called once per key.

    The result is shared: whoever takes it must not change it.
    """
    found = _found.get()
    if found is None:
        return find()
    if key not in found:
        found[key] = find()
    result: T = found[key]
    return result
