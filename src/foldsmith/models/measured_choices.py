"""Choices that only a measurement can make: memory format, compiling, where to augment."""

import copy
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foldsmith.config.settings import Globals
from foldsmith.data.loader import ImageLoader
from foldsmith.data.on_device import OnDevice
from foldsmith.distributed import process_group
from foldsmith.errors import ConfigError
from foldsmith.models.devices import instead_on_apple
from foldsmith.models.runtime import Runtime, is_out_of_memory
from foldsmith.utils.atomic import write_json
from foldsmith.utils.hashing import hash_value
from foldsmith.utils.locking import lock
from foldsmith.utils.machine import cores_here

logger = logging.getLogger(__name__)

# Timed passes of each candidate; the least counts, since noise only ever adds.
_WARM_UP, _TIMED = 3, 5

# Compiling takes about a minute and brings some ten to thirty percent: less than this much
# training would not earn it back.
_WORTH_COMPILING_S = 600.0

# Seconds to wait for other processes that measure; compiling is the longest of it.
_WAIT_S = 1800.0

# Share of a GPU's free memory that images may take: most of it is for the training's batches.
_RESIDENT_SHARE = 0.25


class Measured:
    """Results of measurements, kept in a file between processes.

    Args:
        path: JSON file; it may be deleted at any time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def get(self, question: dict[str, object], measure: Callable[[], dict[str, float]]) -> str:
        """Return the name of the fastest candidate; measure if there is no stored result.

        One process measures at a time: folds that begin together take the same answer, which a
        training that goes on will find again.

        Args:
            question: All that the answer depends on.
            measure: Returns seconds by name.
        """
        key = hash_value(question)
        known = self._read()
        if key not in known:
            with lock(self._path, _WAIT_S):
                known = self._read()
                if key not in known:
                    known[key] = {"question": question, "seconds": measure()}
                    write_json(self._path, known)
        found: dict[str, float] = known[key]["seconds"]
        fastest = min(found, key=lambda name: found[name])
        times = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in found.items())
        logger.debug(f"measured: {times}; {fastest} is taken")
        return fastest

    def _read(self) -> dict[str, Any]:
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


@dataclass(frozen=True)
class Duration:
    """How long some work takes on a device.

    Attributes:
        seconds: Until the device has done it.
        host_s: How much of that this process is busy with asking for it. It is all of the time if
            the device is the CPU.
    """

    seconds: float
    host_s: float

    def __add__(self, other: "Duration") -> "Duration":
        return Duration(self.seconds + other.seconds, self.host_s + other.host_s)


def pass_duration(model: nn.Module, images: torch.Tensor, runtime: Runtime) -> Duration:
    """Return the duration of a forward and backward pass.

    Args:
        model: From images to a tensor; it is trained on, so pass a copy.
        images: On the runtime's device.
        runtime: Device and precision.
    """
    # Parts without training (a teacher, a frozen backbone) are timed with gradients too.
    model.train().requires_grad_(True)

    def both_ways() -> None:
        with runtime.autocast():
            loss = model(images).float().square().mean()
        loss.backward()
        model.zero_grad(set_to_none=True)

    return _duration(both_ways, runtime, _WARM_UP)


def pass_seconds(model: nn.Module, images: torch.Tensor, runtime: Runtime) -> float:
    """Return the seconds of :func:`pass_duration`."""
    return pass_duration(model, images, runtime).seconds


def _duration(work: Callable[[], object], runtime: Runtime, warm_up: int = 1) -> Duration:
    """Return the least duration of some work."""
    seconds, host = [], []
    for index in range(warm_up + _TIMED):
        runtime.wait()
        started = time.perf_counter()
        work()
        asked = time.perf_counter()
        runtime.wait()
        if index >= warm_up:
            seconds.append(time.perf_counter() - started)
            host.append(asked - started)
    return Duration(min(seconds), min(host))


def _question(
    what: str, model: nn.Module, shape: tuple[int, ...], runtime: Runtime
) -> dict[str, object]:
    return {
        "what": what,
        "model": hash_value(str(model)),
        "shape": list(shape),
        "device": runtime.name,
        "dtype": str(runtime.dtype),
        "torch": torch.__version__,
    }


def choose_layout(
    model: nn.Module, shape: tuple[int, ...], runtime: Runtime, measured: Measured
) -> bool:
    """Return whether the model is faster with its channels last (NHWC).

    That depends on the model and the card: grouped convolutions lose half their speed by it
    on some.

    Args:
        model: From images to a tensor; left as it is.
        shape: Shape of a batch, (n, 3, H, W).
        runtime: Device and precision.
        measured: Where the answer is kept.
    """

    def measure() -> dict[str, float]:
        seconds = {}
        for name, layout in (
            ("channels_last", torch.channels_last),
            ("contiguous", torch.contiguous_format),
        ):
            trial = copy.deepcopy(model).to(runtime.device)
            trial.to(memory_format=layout)
            images = torch.zeros(shape, device=runtime.device).contiguous(memory_format=layout)
            seconds[name] = pass_seconds(trial, images, runtime)
        return seconds

    question = _question("layout", model, shape, runtime)
    return measured.get(question, measure) == "channels_last"


def compile_pays(
    model: nn.Module,
    shape: tuple[int, ...],
    runtime: Runtime,
    n_batches: int,
    measured: Measured,
) -> bool:
    """Return whether ``torch.compile`` is faster, in a training long enough to earn it back.

    Args:
        model: From images to a tensor, as it is placed; left as it is.
        shape: Shape of a batch, (n, 3, H, W).
        runtime: Device and precision.
        n_batches: Batches of the whole training.
        measured: Where the answer is kept.
    """
    layout = torch.channels_last if runtime.channels_last else torch.contiguous_format

    def images() -> torch.Tensor:
        return torch.zeros(shape, device=runtime.device).contiguous(memory_format=layout)

    eager = pass_seconds(copy.deepcopy(model), images(), runtime)
    if eager * n_batches < _WORTH_COMPILING_S:
        return False

    def measure() -> dict[str, float]:
        trial = copy.deepcopy(model)
        trial.compile()
        return {"eager": eager, "compiled": pass_seconds(trial, images(), runtime)}

    return measured.get(_question("compile", model, shape, runtime), measure) == "compiled"


def augment_seconds(
    loader: ImageLoader, runtime: Runtime, model: Duration, room_bytes: float = 0.0
) -> dict[str, float]:
    """Return the seconds per batch of a training, by where its images are augmented.

    Args:
        loader: Its batches, not yet asked for any.
        runtime: Device.
        model: A batch in the model.
        room_bytes: The images are kept on the device if they take no more than this.
    """
    dataset = loader.dataset
    n_own = -(-loader.sampler.batch_size // process_group.size())
    keys = [(0, index % len(dataset)) for index in range(n_own)]
    on_device = OnDevice(dataset)

    def loading() -> float:
        return _duration(lambda: dataset.__getitems__(keys), runtime).seconds

    def bringing() -> Duration:
        batch = dataset.__getitems__(keys)
        return _duration(lambda: runtime.transfer(batch, on_device), runtime)

    cores = max(1, cores_here() // process_group.local_size())
    made_s, brought = loading(), bringing()
    dataset.drawing = True
    try:
        changed = bringing()
        dataset.with_images = not on_device.fits(room_bytes)
        drawn_s = loading()
    finally:
        dataset.drawing, dataset.with_images = False, True
    # Ready batches travel beside the model; augmentation and model take turns on the device.
    beside = Duration(model.seconds, model.host_s + brought.host_s)
    return {
        "cpu": batch_seconds(made_s, beside, loader.num_workers, cores),
        "gpu": batch_seconds(drawn_s, changed + model, loader.num_workers, cores),
    }


def batch_seconds(loading_s: float, device: Duration, workers: int, cores: int) -> float:
    """Return the seconds per batch of loader processes, this process and the device together.

    The slowest of them counts, as they work side by side. Loader processes share the cores with
    this process, which asks the device for its work: two of them on two cores are not two more.

    Args:
        loading_s: Seconds of one core for a batch of the loader.
        device: Seconds of the device for it.
        workers: Loader processes; without any this process does their work too.
        cores: CPU cores of all processes.
    """
    busy_s = loading_s + device.host_s
    if workers == 0:
        return max(busy_s, device.seconds)
    return max(loading_s / workers, busy_s / min(cores, 1 + workers), device.seconds)


def _augment_on_gpu(
    part: nn.Module,
    shape: tuple[int, ...],
    loader: ImageLoader,
    settings: Globals,
    runtime: Runtime,
    measured: Measured,
) -> bool:
    """Return whether the training images are to be augmented on the GPU.

    Raises:
        ConfigError: That is asked for and cannot be done.
    """
    if settings.augment_on == "cpu":
        return False
    missing = sorted({name for view in loader.dataset.views for name in view.augment.not_batched})
    if settings.augment_on == "gpu" and runtime.device.type == "mps":
        instead_on_apple("globals/augment_on", "gpu", "the loader processes augment")
        return False
    if settings.augment_on == "gpu":
        if runtime.device.type != "cuda":
            raise ConfigError(f"globals/augment_on: gpu, but the device is {runtime.device}")
        if missing:
            raise ConfigError(
                f"globals/augment_on: gpu, but {', '.join(missing)} cannot run there as it is "
                "set; use auto or cpu"
            )
        return True
    if missing or settings.deterministic or runtime.device.type != "cuda":
        return False

    def measure() -> dict[str, float]:
        images = torch.zeros(shape, device=runtime.device)
        if runtime.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        once = pass_duration(copy.deepcopy(part), images, runtime)
        n_views = len(loader.dataset.views)
        model = Duration(once.seconds * n_views, once.host_s * n_views)
        return augment_seconds(loader, runtime, model, _RESIDENT_SHARE * runtime.free_bytes())

    question = _question("augment", part, shape, runtime) | {
        "views": repr(loader.dataset.views),
        # Not the number of workers: another one must not change the results.
        "cores": cores_here(),
    }
    return measured.get(question, measure) == "gpu"


def _if_it_fits(measure: Callable[[], bool], otherwise: bool) -> bool:
    """Return the result of a measurement, or ``otherwise`` if it does not fit the device."""
    try:
        return measure()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        # The training itself needs less: there is one copy of its model, not two.
        return otherwise


def tune(
    model: nn.Module,
    loader: ImageLoader,
    settings: Globals,
    runtime: Runtime,
    measured: Measured,
) -> nn.Module:
    """Place a model on its device in the fastest memory format, and compile it if that pays.

    The loader is told to leave augmentation to the device where that is faster.

    Args:
        model: The model to train; the measurement uses its ``backbone`` if it has one.
        loader: Its batches.
        settings: Settings that are still to be measured.
        runtime: Device and precision; receives the chosen memory format.
        measured: Where answers are kept.

    Returns:
        The model.

    Raises:
        ConfigError: Augmentation on a GPU is asked for and cannot be done.
    """
    open_questions = runtime.device.type == "cuda" and not settings.deterministic
    height, width, channels = loader.dataset.view(0, 0).shape
    # A process has its share of a batch.
    n_own = -(-loader.sampler.batch_size // process_group.size())
    shape = (n_own, channels, height, width)
    part = getattr(model, "backbone", model)
    if settings.channels_last == "auto" and open_questions:
        runtime.channels_last = _if_it_fits(
            lambda: choose_layout(part, shape, runtime, measured), runtime.channels_last
        )
    model = runtime.place(model)
    compiled = settings.compile == "on"
    if compiled and runtime.device.type == "mps":
        instead_on_apple("globals/compile", "on", "the model runs as it is")
        compiled = False
    if compiled and process_group.size() > 1:
        raise ConfigError("globals/compile: on is for one process; set it to off under torchrun")
    if settings.compile == "auto" and open_questions and process_group.size() == 1:
        n_batches = len(loader) * settings.max_epoch
        compiled = _if_it_fits(
            lambda: compile_pays(part, shape, runtime, n_batches, measured), False
        )
    if _if_it_fits(
        lambda: _augment_on_gpu(part, shape, loader, settings, runtime, measured), False
    ):
        room = _RESIDENT_SHARE * runtime.free_bytes()
        loader.on_device.augment_here(runtime.device, room)
        runtime.wait()  # the images are used from another stream
    if compiled:
        model.compile()
    return model
