"""Work on many photos at once."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")
R = TypeVar("R")

# Items handed out at a time: results that nobody has taken yet must not fill the memory.
_CHUNK = 256


def on_all_cores(
    function: Callable[[T], R], items: Sequence[T], label: str, leave: bool = True
) -> Iterator[R]:
    """Call a function for every item, on threads, with a progress bar.

    Threads, not processes: OpenCV, hashlib and reading work without the interpreter lock.

    Args:
        function: Called once per item.
        items: What to call it with.
        label: Text of the progress bar.
        leave: Whether the bar stays when it is full.

    Yields:
        The results in the order of the items.
    """
    chunks = [items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = chain.from_iterable(pool.map(function, chunk) for chunk in chunks)
        yield from tqdm(
            results, desc=label, total=len(items), unit="photo", leave=leave, disable=None
        )
