"""The loader: batches in an order that depends on (seed, epoch) alone."""

import errno
import os
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import queues
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from foldsmith.data.datasets import Batch, DrawnBatch, ImageDataset
from foldsmith.data.epoch_order import balanced_order, epoch_order, stream_epoch
from foldsmith.data.on_device import OnDevice
from foldsmith.distributed import process_group
from foldsmith.errors import ConfigError, DataError, FoldsmithError, one_line
from foldsmith.utils.formatting import counted, size_text
from foldsmith.utils.machine import cores_here

T = TypeVar("T")

# Where loader processes put batches for the main one.
_SHARED_MEMORY = Path("/dev/shm")

# Most loader processes unless a number is given: more of them bring little.
_MOST_WORKERS = 8

# Exit code of a loader process that finds no room there.
_NO_ROOM = 75


class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) keys.

    Each of several processes (:mod:`foldsmith.distributed.process_group`) gets the keys of its
    share of every batch.

    The keys contain the epoch, so that persistent workers get it, and a run resumed at an epoch
    gets the same samples as an uninterrupted one.

    Args:
        n: Number of images.
        batch_size: Images per batch.
        shuffle: New order every epoch, from (seed, epoch).
        drop_last: Leave out an incomplete last batch.
        seed: Seed of the order.
        window: As for :func:`foldsmith.data.epoch_order.epoch_order`.
        classes: Classes of the images to take equally often, as for
            :func:`foldsmith.data.epoch_order.balanced_order`; None to take every image once.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        shuffle: bool,
        drop_last: bool,
        seed: int,
        window: int | None = None,
        classes: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.n = n
        self.classes = classes
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.window = window
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.sizes())

    def sizes(self) -> list[int]:
        """Return the number of images of each batch.

        A single image left over joins the batch before it: BatchNorm cannot train on one.
        """
        sizes = [self.batch_size] * (self.n // self.batch_size)
        rest = self.n % self.batch_size
        if rest and not self.drop_last:
            if rest == 1 and sizes:
                sizes[-1] += 1
            else:
                sizes.append(rest)
        return sizes

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order, repeats = np.arange(self.n), np.zeros(self.n, np.int64)
        if self.classes is not None:
            order, repeats = balanced_order(self.classes, self.seed, self.epoch)
        elif self.shuffle:
            order = epoch_order(self.n, self.seed, self.epoch, self.window)
        ends = np.cumsum(self.sizes())
        for batch in np.split(np.arange(self.n), ends)[: len(ends)]:
            yield [
                (stream_epoch(self.epoch, int(repeats[place])), int(order[place]))
                for place in batch[process_group.share(len(batch))]
            ]

    def places(self, of: int) -> npt.NDArray[np.int64]:
        """Return where in the order of an epoch the images of one process are, by its rank."""
        places, start = [np.arange(0)], 0
        for size in self.sizes():
            share = process_group.share(size, of)
            places.append(np.arange(start + share.start, start + share.stop))
            start += size
        return np.concatenate(places)


class ImageLoader:
    """Batches of an :class:`ImageDataset`.

    Args:
        dataset: The images.
        batch_size: Images per batch, of all processes of a training together.
        num_workers: Processes that augment, for each process of the training, at most one per
            core; 0 augments in the process itself; ``auto`` is :func:`workers_for` the device. The
            batches are the same whatever the number.
        shuffle: New order every epoch.
        drop_last: Leave out an incomplete last batch.
        seed: Seed of the order.
        pin_memory: Page-locked batches, which copy to a CUDA device while it computes.
        window: Images among which a new order is random, at least a batch; null: all of them. For
            images that are larger than memory: reads then come from a few regions of the data, see
            :func:`foldsmith.data.epoch_order.epoch_order`. A training with
            another window is stale.
        sampler: ``balanced`` takes images of every class (or label) equally often, those of a rare
            class again and again, each time with another augmentation; an epoch has as many images
            as before. ``uniform`` takes every image once.
        device: Where the model computes; the CPU if null.

    Attributes:
        dataset: The images.
        sampler: The order.
        on_device: Transforms of its batches on the device.
        num_workers: Number of processes.

    Raises:
        ConfigError: ``drop_last`` leaves no batch at all, a window is less than a batch, or there
            are no classes to balance.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        batch_size: int,
        num_workers: int | Literal["auto"] = "auto",
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        pin_memory: bool = True,
        window: int | None = None,
        sampler: Literal["uniform", "balanced"] = "uniform",
        device: torch.device | None = None,
    ) -> None:
        if batch_size < 1 or (num_workers != "auto" and num_workers < 0):
            raise ConfigError("batch_size must be at least 1 and num_workers at least 0")
        if window is not None and (window < batch_size or not shuffle):
            raise ConfigError(
                f"window: {window} needs shuffle: true and at least the batch_size, {batch_size}"
            )
        classes = _classes_to_balance(dataset, shuffle, window) if sampler == "balanced" else None
        self.dataset = dataset
        self.on_device = OnDevice(dataset)
        cores = max(1, cores_here() // process_group.local_size())
        if num_workers == "auto":
            num_workers = workers_for("cpu" if device is None else device.type, cores)
        self.num_workers = min(num_workers, cores)
        self.sampler = EpochBatchSampler(
            *(len(dataset), batch_size, shuffle, drop_last, seed, window), classes=classes
        )
        if not len(self.sampler):
            raise ConfigError(
                f"{counted(len(dataset), 'image does', 'images do')} not fill one batch of "
                f"{batch_size}, and an incomplete "
                f"batch is left out; set batch_size to {len(dataset)} or less"
            )
        self._pin_memory = pin_memory
        # Its own generator: torch draws a seed for the workers, and the global stream must
        # not depend on how many loaders there are.
        self._loader: DataLoader[Batch | DrawnBatch] = DataLoader(
            dataset,
            batch_sampler=self.sampler,
            num_workers=self.num_workers,
            collate_fn=_identity,
            worker_init_fn=_start_worker,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator().manual_seed(seed),
        )

    def __len__(self) -> int:
        return len(self.sampler)

    def check_shares(self) -> None:
        """Make sure that each process of a training has a part of every batch.

        Raises:
            ConfigError: A batch has fewer images than there are processes.
        """
        n, least = process_group.size(), min(self.sampler.sizes())
        if least >= n:
            return
        batch, images = self.sampler.batch_size, len(self.dataset)
        # A single image left over joins the batch before it.
        fitting = (b for b in range(batch, n - 1, -1) if images % b in (0, 1) or images % b >= n)
        smaller = next(fitting, None)
        remedy = "" if smaller is None else f"set loader/train/batch_size to {smaller}, or "
        raise ConfigError(
            f"loader/train: a batch of an epoch has {least} images, for {n} processes; {remedy}"
            "start fewer of them"
        )

    def serve(self, device: torch.device) -> None:
        """Make batches for a device: page-locked for a CUDA device, and for no other.

        Page-locked memory needs a context on a card, which a training on the CPU has no use for
        and which fails where other processes have filled the card. It is called before the first
        batch; later calls change nothing for loader processes that are alive.
        """
        self._loader.pin_memory = self._pin_memory and device.type == "cuda"

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order and augmentations come next."""
        self.sampler.epoch = epoch

    def __iter__(self) -> Iterator[Batch | DrawnBatch]:
        try:
            yield from self._loader
        except DataError as error:
            # torch wraps a worker's error into its traceback; the last line is the error's message.
            last = str(error).strip().splitlines()[-1]
            raise DataError(last.removeprefix("foldsmith.errors.DataError: ")) from None
        except OSError as error:
            # Semaphores of the processes lie there too.
            if self.num_workers and error.errno == errno.ENOSPC:
                _give_up_starting(error)
                raise _no_room() from None
            if not (self.num_workers and isinstance(error, ConnectionError)):
                raise
            raise _death_of_a_worker(error) from error
        except EOFError as error:
            # The batch was announced, and its process died before it was handed over: torch's
            # own message about the death comes only if the signal is faster.
            if not self.num_workers:
                raise
            raise _death_of_a_worker(error) from error


def _classes_to_balance(
    dataset: ImageDataset, shuffle: bool, window: int | None
) -> npt.NDArray[np.bool_]:
    if not shuffle or window is not None:
        raise ConfigError("sampler: balanced needs shuffle: true, and no window")
    if dataset.classes is None:
        raise ConfigError(
            "sampler: balanced needs classes or labels, and the targets are none; leave it out"
        )
    return dataset.classes


def workers_for(kind: str, cores: int) -> int:
    """Return how many loader processes a training gets unless its experiment gives a number.

    Beside a CUDA device there is one for each core, as the process that feeds the device mostly
    waits, up to a number that is enough for any. A model that computes on the CPU needs the cores
    itself. With Apple's GPU there are none: macOS starts each of them by importing everything anew,
    which takes longer than a short training.

    Args:
        kind: Kind of the device that computes: ``cpu``, ``cuda`` or ``mps``.
        cores: CPU cores for this training, at least 1.
    """
    return min(_MOST_WORKERS, cores) if kind == "cuda" else 0


def one_image(loader: ImageLoader) -> str:
    """Return why a batch of a loader is a single image, for people."""
    if loader.sampler.batch_size == 1:
        return "loader/train/batch_size is 1: a batch is a single image"
    return "there is one image to train on: a batch is a single image"


@contextmanager
def worker_errors() -> Iterator[None]:
    """Turn the death of a loader process into an error for people.

    Goes around whole loops: torch raises it from a signal, wherever the main process is.

    Raises:
        FoldsmithError: A loader process died while the block ran.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise _death_of_a_worker(error) from error


def _death_of_a_worker(error: Exception) -> FoldsmithError:
    # torch would repeat the error at the end of each other process, wherever the main process is
    # then. While an object is deleted, such a traceback cannot be caught.
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    codes = [worker.exitcode for it in _iterators(error) for worker in it._workers]
    # A write into a map of memory that has no room ends in a bus error.
    if _NO_ROOM in codes or f"code {_NO_ROOM}." in str(error) or "Bus error" in str(error):
        return _no_room()
    return FoldsmithError(
        f"a loader process died ({one_line(error)[:120]}); most often the machine is out of "
        "memory: lower num_workers and run again"
    )


def _no_room() -> FoldsmithError:
    """Return the error for full shared memory of the loader processes, with the remedy."""
    size = ""
    if _SHARED_MEMORY.is_dir():
        usage = shutil.disk_usage(_SHARED_MEMORY)
        size = f" ({size_text(usage.free)} of {size_text(usage.total)} are free)"
    return FoldsmithError(
        f"the shared memory {_SHARED_MEMORY} has no room for batches of the loader processes"
        f"{size}; set loader/train/num_workers=0 and the same for the other loaders, or enlarge "
        "it (in Docker: --shm-size=8g or --ipc=host)"
    )


def _give_up_starting(error: OSError) -> None:
    """Take down an iterator of torch that was not built to its end; it cannot do so itself."""
    for built in _iterators(error):
        # Its __del__ would print a traceback about attributes that it has not got yet.
        built._shutdown = True
        for worker in getattr(built, "_workers", ()):
            worker.kill()
            worker.join()


def _iterators(error: BaseException) -> list[_MultiProcessingDataLoaderIter]:
    """Return the iterators of torch that an error came through, each once."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    found = (frame.f_locals.get("self") for frame in frames)
    return list(
        {id(it): it for it in found if isinstance(it, _MultiProcessingDataLoaderIter)}.values()
    )


def _identity(value: T) -> T:
    return value


def _start_worker(_: int) -> None:
    # Ctrl-C reaches the whole group of processes; only the main one should answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A thread of multiprocessing hands batches over, and prints a traceback if the main process
    # ends meanwhile. The main process reports its own end.
    sys.excepthook = _tell_unless_hung_up
    # A batch that cannot be handed over would be lost, and the main process wait for it forever.
    queues.Queue._on_queue_feeder_error = staticmethod(_end_without_handing_over)  # type: ignore[attr-defined]
    # One worker, one core: the processes are the parallelism.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _end_without_handing_over(error: BaseException, batch: object) -> None:
    """End a loader process; called by the thread that hands a batch over, after an error."""
    no_room = any(words in str(error) for words in ("shared memory", "No space left", "/torch_"))
    if not no_room:
        _tell_unless_hung_up(type(error), error, error.__traceback__)
    os._exit(_NO_ROOM if no_room else 1)


def _tell_unless_hung_up(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if not isinstance(error, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, traceback)
