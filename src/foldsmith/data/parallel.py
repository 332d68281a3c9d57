"""Work on many images at once."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from foldsmith.utils.machine import cores_here
from foldsmith.utils.progress_bars import progress_bar

T = TypeVar("T")
R = TypeVar("R")

# Items handed out at a time: one by one, small images take a third longer.
_CHUNK = 16

# Chunks in progress: finished results that are waiting must not fill the memory.
_AHEAD = 4


def on_all_cores(
    function: Callable[[T], R], items: Sequence[T], label: str, leave: bool = True
) -> Iterator[R]:
    """Call a function for every item, on threads, with a progress bar.

    Threads, not processes: OpenCV, hashlib and reading work without the interpreter lock, and
    images would have to be handed from process to process.

    Args:
        function: Called once per item.
        items: Arguments of the calls.
        label: Text of the progress bar.
        leave: Whether the bar stays when it is full.

    Yields:
        The results in the order of the items.
    """
    results = _on_threads(function, items)
    yield from progress_bar(results, label=label, total=len(items), unit="image", leave=leave)


def _on_threads(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    threads = cores_here()

    def work(start: int) -> list[R]:
        return [function(item) for item in items[start : start + _CHUNK]]

    waiting: deque[Future[list[R]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for start in range(0, len(items), _CHUNK):
                waiting.append(pool.submit(work, start))
                if len(waiting) == _AHEAD * threads:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
