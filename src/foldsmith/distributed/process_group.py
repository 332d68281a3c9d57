"""The processes of one training: the rank of this one, and messages from rank 0 to the others.

``torchrun`` starts them and sets their environment (``RANK``, ``WORLD_SIZE``, ...). Each computes
its share of every batch; only the main process, rank 0, writes and prints. Collective operations
are in :mod:`foldsmith.distributed.collectives`.
"""

import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from foldsmith.errors import ConfigError, FoldsmithError, TrainingError, one_line
from foldsmith.utils.locking import process_name
from foldsmith.utils.log_output import warnings_only

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

T = TypeVar("T")

# The main process may decode images for hours while the others wait for its word.
_WORD_S = timedelta(days=2)

# A collective operation takes milliseconds; between two of them the main process writes snapshots.
_COLLECTIVE_S = timedelta(minutes=30)

# Grace period before a process exits because a peer failed: torchrun names the first process that
# ended.
_GRACE_S = 3.0

# Messages of gloo and NCCL about a lost peer.
_LOST = re.compile(r"gloo|NCCL|Connection (closed|reset)|Broken pipe|timed out", re.IGNORECASE)


@dataclass
class _World:
    """The group of processes: rank, size, and the shared store."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    started_by: list[str]
    store: "Store"
    words: int = 0


_world: _World | None = None


def asked_for() -> int:
    """Return of how many processes the environment says that this is one; 1 if it does not."""
    if "RANK" not in os.environ:
        return 1
    try:
        return int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        return 1


def rank() -> int:
    """Return the number of this process, counted from 0."""
    return 0 if _world is None else _world.rank


def size() -> int:
    """Return the number of processes of this training."""
    return 1 if _world is None else _world.size


def local_rank() -> int:
    """Return the number of this process among those of its machine, counted from 0."""
    return 0 if _world is None else _world.local_rank


def local_size() -> int:
    """Return the number of processes of this training on this machine."""
    return 1 if _world is None else _world.local_size


def alone() -> bool:
    """Return whether this process trains by itself, without a group of processes."""
    return _world is None


def is_main() -> bool:
    """Return whether this is the process that writes and prints."""
    return rank() == 0


def name() -> str:
    """Return the name of this process in messages: its rank and its machine."""
    return f"rank {os.environ.get('RANK', '0')} on {socket.gethostname()}"


def started_by() -> list[str]:
    """Return the parent processes of this training on each machine: torchrun's own processes.

    Processes that torchrun restarts after a failure share at least one parent with the earlier
    ones.
    """
    return [] if _world is None else _world.started_by


def share(n: int, of: int | None = None) -> slice:
    """Return which of n images, a batch's, are those of one process: all in one piece.

    Args:
        n: Number of images.
        of: Rank of the process; this one's if None.
    """
    number = rank() if of is None else of
    return slice(n * number // size(), n * (number + 1) // size())


@contextmanager
def joined(even_alone: bool = False) -> Iterator[None]:
    """Join the other processes of this training; does nothing if there is only this one.

    All but rank 0 log warnings and errors only.

    Args:
        even_alone: Make a group of the one process too, so that its tensors go through all
            collectives. With one GPU this is the only way to try NCCL.

    Raises:
        ConfigError: The environment does not say who is who.
    """
    global _world
    if (asked_for() == 1 and not even_alone) or _world is not None:
        yield
        return
    import torch
    import torch.distributed as dist

    missing = [key for key in ("MASTER_ADDR", "MASTER_PORT") if key not in os.environ]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {asked_for()}, but {' and '.join(missing)} are not set; start the "
            "processes with torchrun, or unset RANK and WORLD_SIZE"
        )
    try:
        with ExitStack() as quiet, _peer_errors():
            _world = _join()
            if _world.rank > 0:
                quiet.enter_context(warnings_only())
            yield
            # Not after an error: the others may have ended, or wait for what does not come.
            # Through gloo, which every process has: a barrier would go through NCCL, also for
            # processes that train on the CPU, and NCCL refuses two processes on one card.
            dist.all_reduce(torch.zeros(1))
            dist.destroy_process_group()
    finally:
        _world = None


def _join() -> _World:
    """Meet the other processes, and make a group of all."""
    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, number, n = next(iter(rendezvous("env://", timeout=_COLLECTIVE_S)))
    name_of_place, started_by = _meet(store, number, n)
    place = PrefixStore(name_of_place, store)
    with_nccl = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group(
        # Tensors go by the way of their device; Windows has no NCCL.
        "cpu:gloo,cuda:nccl" if with_nccl else "gloo",
        store=PrefixStore("group", place),
        rank=number,
        world_size=n,
        timeout=_COLLECTIVE_S,
    )
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return _World(number, n, local_rank, local_size, started_by, PrefixStore("words", place))


@contextmanager
def _peer_errors() -> Iterator[None]:
    """Name this process in errors, and report a lost peer as one.

    A process that ends because another one has waits for a moment: torchrun names the first.
    """
    import torch.distributed as dist

    try:
        yield
    except FoldsmithError as error:
        if not is_main():
            # The main process reports an error that stops all processes, such as a NaN loss.
            error.told = error.told or isinstance(error, TrainingError)
            error.args = (f"{name()}: {error}",)
        if error.told:
            time.sleep(_GRACE_S)
        raise
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not _LOST.search(str(error)):
            raise
        time.sleep(_GRACE_S)
        raise FoldsmithError(
            f"{name()}: the other processes of this training do not answer "
            f"({one_line(error)[:160]}); if one has ended, torchrun's report names it"
        ) from error


def _meet(store: "Store", number: int, n: int) -> tuple[str, list[str]]:
    """Agree with the other processes on a place in the store that is new.

    When torchrun starts processes anew it may keep the store, and in it the addresses of those
    that have died. So each process says who it is, the main one says who there are, and when all
    have seen themselves among them, they meet there.

    Returns:
        Name of the place, and :func:`started_by`.

    Raises:
        FoldsmithError: Some did not come.
    """
    own = [uuid4().hex, process_name(os.getppid())]
    store.set(f"here {number}", json.dumps(own))
    until = time.monotonic() + _COLLECTIVE_S.total_seconds()
    while time.monotonic() < until:
        if number == 0:
            store.set("all", json.dumps([_left(store, f"here {k}") for k in range(n)]))
        everyone = _left(store, "all")
        if isinstance(everyone, list) and len(everyone) == n and everyone[number] == own:
            place = hashlib.sha256(json.dumps(everyone).encode()).hexdigest()
            store.set(f"seen {number}", json.dumps(place))
            if number == 0 and all(_left(store, f"seen {k}") == place for k in range(n)):
                store.set("place", json.dumps(place))
            if _left(store, "place") == place:
                return place, sorted({parent for _, parent in everyone})
        time.sleep(0.02)
    raise FoldsmithError(f"rank {number}: not all of {n} processes have come; start them anew")


def _left(store: "Store", key: str) -> Any:
    """Return the value of a key in the store; None if there is none."""
    return _read(store, key) if store.check([key]) else None


def _read(store: "Store", key: str) -> Any:
    """Return the value of a key as plain data.

    JSON, and nothing that could run: the store listens on all of the machine's addresses, and
    takes values from whoever reaches it.

    Raises:
        FoldsmithError: It is no JSON.
    """
    try:
        return json.loads(store.get(key))
    except (ValueError, RecursionError):
        raise _foreign(key) from None


def _foreign(key: str) -> FoldsmithError:
    return FoldsmithError(
        f"{name()}: {key!r} in the store of this training's processes was not written by "
        "them; allow no other machine to reach MASTER_PORT, and restart the processes"
    )


@contextmanager
def main_first() -> Iterator[None]:
    """Let the main process go through a block before all others do.

    The others then find its results (decoded images, measurements), and it reports errors alone.
    The block must not contain collective operations.

    Raises:
        FoldsmithError: The error of the main process, raised in every process; marked as ``told``.
    """
    if size() == 1:
        yield
    elif is_main():
        try:
            yield
        except Exception as error:
            _say(error if isinstance(error, FoldsmithError) else FoldsmithError(one_line(error)))
            _wait_until_heard()
            raise
        _say(None)
    else:
        _hear()
        yield


def from_main(make: Callable[[], T]) -> T:
    """Return the main process's value in every process; it must be small and plain.

    Args:
        make: Returns what JSON has: texts, numbers, truth values, None, lists, and dicts with
            texts as keys. With several processes a tuple becomes a list.

    Raises:
        FoldsmithError: As :func:`main_first`.
    """
    if size() == 1:
        return make()
    word = ""
    with main_first():
        if is_main():
            word = json.dumps({"value": make()})
    if not is_main():
        return _hear()  # type: ignore[no-any-return]
    _leave(word)
    # As the others have it.
    return json.loads(word)["value"]  # type: ignore[no-any-return]


def _say(error: FoldsmithError | None) -> None:
    """Send the other processes the end of the main process's block, or its error."""
    told = {"error": type(error).__name__, "text": str(error)}
    _leave(json.dumps({"value": None} if error is None else told))


def _leave(word: str) -> None:
    assert _world is not None
    _world.words += 1
    _world.store.set(f"word{_world.words}", word)


def _wait_until_heard() -> None:
    """Wait until the others have read the message of this process, which may hold their store."""
    assert _world is not None
    with suppress(Exception):
        heard = [f"heard by {number}" for number in range(1, _world.size)]
        _world.store.wait(heard, timedelta(seconds=_GRACE_S))


def _hear() -> Any:
    """Return the next word of the main process; raise it if it is an error."""
    assert _world is not None
    _world.words += 1
    key = f"word{_world.words}"
    _world.store.wait([key], _WORD_S)
    word = _read(_world.store, key)
    if not isinstance(word, dict) or word.keys() not in ({"value"}, {"error", "text"}):
        raise _foreign(key)
    if "error" in word:
        kinds = {kind.__name__: kind for kind in FoldsmithError.__subclasses__()}
        error = kinds.get(str(word["error"]), FoldsmithError)(str(word["text"]))
        error.told = True
        _world.store.set(f"heard by {_world.rank}", "")
        raise error
    return word["value"]
