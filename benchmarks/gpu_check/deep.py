"""foldsmith's loop with everything that the check measures of it beside images per second."""

import time
from collections import defaultdict
from typing import Any

import contenders
import torch
from contenders import CUDA, Foldsmith, wait
from shares import seconds_of as seconds_of_parts

from foldsmith.data.datasets import Batch
from foldsmith.inference.predict import predict_logits
from foldsmith.models.runtime import is_out_of_memory

# Steps that are timed at one batch size, and steps before them, in which cuDNN chooses.
_WARM_UP, _TIMED = 2, 4

# Share of the card's memory that a batch may take: the plain loop is on the card beside it.
_MEMORY = 0.4


class Deep(Foldsmith):
    """foldsmith's own loop, measured through and through."""

    # Predictions are measured on all images.
    more = (
        "dataset/val/part=train",
        "loader/val/batch_size=@/loader/train/batch_size",
        "loader/val/num_workers=@/loader/train/num_workers",
    )

    def batches(self, largest: int, limit_s: float) -> list[dict[str, float]]:
        """Return the speed of the model alone by batch size, doubled until nothing is gained.

        It ends when its share of the memory is full, when two doublings have gained nothing, or at
        a limit.

        Args:
            largest: Largest batch.
            limit_s: Seconds after which no larger batch is tried.
        """
        started = time.perf_counter()
        found: list[dict[str, float]] = []
        n = len(self.batch.rows)
        while n <= largest and time.perf_counter() - started < limit_s:
            if CUDA:
                torch.cuda.reset_peak_memory_stats()
            try:
                batch = _repeated(self.batch, n)
                self.seconds_of(batch, _WARM_UP)
                seconds = self.seconds_of(batch, _TIMED)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                break
            finally:
                batch = None  # type: ignore[assignment]
                self.optimizer.zero_grad(set_to_none=True)
            found.append(
                {"batch": n, "images_per_s": n * _TIMED / seconds, "peak_mib": self.peak_mib()}
            )
            if CUDA and self.peak_mib() * 2**20 > _MEMORY / 2 * torch.cuda.mem_get_info()[1]:
                break  # twice as many would not fit
            speeds = [row["images_per_s"] for row in found]
            if len(speeds) > 2 and max(speeds[-2:]) < 1.02 * max(speeds[:-2]):
                break
            n *= 2
        if CUDA:
            torch.cuda.empty_cache()
        return found

    def peak_mib(self) -> float:
        """Return the most memory that torch held on the card, MiB; 0 on a CPU."""
        return torch.cuda.max_memory_allocated() / 2**20 if CUDA else 0.0

    def wait_share(self) -> float:
        """Return the share of the last epoch's time that the loop waited for the loader."""
        return self.waited

    def augments_on(self) -> str:
        """Return where the training images are augmented."""
        if not self.loader.dataset.drawing:
            return "cpu"
        return "gpu, images resident" if self.loader.on_device.resident else "gpu"

    def layout(self) -> str:
        """Return the memory format and precision that were chosen."""
        layout = "channels_last" if self.runtime.channels_last else "contiguous"
        return f"{layout}, {str(self.runtime.dtype).removeprefix('torch.')}"

    def inference(self) -> float:
        """Return images/s of a prediction: all images through the model."""
        loader = self.parts["loader/val"]
        predict_logits([self.model], loader, self.runtime)  # warm up
        wait()
        started = time.perf_counter()
        predict_logits([self.model], loader, self.runtime)
        wait()
        return len(loader.dataset) / (time.perf_counter() - started)

    def shares(self) -> dict[str, float]:
        """Return the seconds of each part of an epoch, the device waited for between them."""
        return seconds_of_parts(self)

    def profile(self, n_steps: int) -> dict[str, Any]:
        """Return where some steps of the real loop spend the device's time.

        Args:
            n_steps: Steps, as far as the epoch has so many.

        Returns:
            ``kernels``: name, share of the time and calls per step of those that take the longest
            (of operations on a CPU). ``busy``: share of the time in which the device computes or
            copies. ``gaps_ms``: the longest pauses between two kernels. ``step_ms``.
        """
        from torch.profiler import ProfilerActivity, profile

        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if CUDA else [])]
        self.loader.set_epoch(0)
        self.model.train()
        batches = iter(self.loader)
        self._step(next(batches), 0)  # the loader has begun
        wait()
        n = 0
        with profile(activities=activities) as profiler:
            started = time.perf_counter()
            for n, raw in enumerate(batches, 1):
                self._step(raw, n)
                if n == n_steps:
                    break
            wait()
            seconds = time.perf_counter() - started
        del batches
        if not n:
            return {"steps": 0}
        return _where(profiler, seconds, n)

    def _step(self, raw: Any, index: int) -> None:
        batch = self.runtime.transfer(raw, self.loader.on_device)
        self.train_step(batch, index)


def _where(profiler: Any, seconds: float, n_steps: int) -> dict[str, Any]:
    """Return what a profile of some steps shows; see :meth:`Deep.profile`."""
    device = torch.autograd.DeviceType.CUDA if CUDA else torch.autograd.DeviceType.CPU
    events = [e for e in profiler.events() if e.device_type == device]
    if not CUDA:
        events = [e for e in events if e.cpu_parent is None]
    took: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    busy, longest, end = 0.0, [], None
    for event in sorted(events, key=lambda e: e.time_range.start):
        start, stop = event.time_range.start, event.time_range.end
        took[event.name] += stop - start
        calls[event.name] += 1
        if end is None or start >= end:
            if end is not None:
                longest.append(start - end)
            busy += stop - start
            end = stop
        elif stop > end:
            busy += stop - end
            end = stop
    whole = sum(took.values()) or 1.0
    top = sorted(took, key=lambda name: took[name], reverse=True)[:12]
    return {
        "steps": n_steps,
        "step_ms": 1e3 * seconds / n_steps,
        "busy": busy / 1e6 / seconds,
        "gaps_ms": [round(gap / 1e3, 3) for gap in sorted(longest, reverse=True)[:8]],
        "kernels": [
            {
                "name": name[:90],
                "share": round(took[name] / whole, 4),
                "calls_per_step": round(calls[name] / n_steps, 1),
            }
            for name in top
        ],
    }


def _repeated(batch: Batch, n: int) -> Batch:
    """Return a batch of n images, those of another again and again."""
    times = -(-n // len(batch.rows))

    def longer(tensor: torch.Tensor) -> torch.Tensor:
        return torch.cat([tensor] * times)[:n] if times > 1 else tensor[:n]

    views = tuple(
        longer(view).contiguous(memory_format=torch.channels_last)
        if view.is_contiguous(memory_format=torch.channels_last)
        else longer(view)
        for view in batch.views
    )
    return Batch(views, longer(batch.targets), longer(batch.rows))


def create(name: str) -> Any:
    """Return the class of a contender, foldsmith's with what is measured here."""
    return Deep if name == "foldsmith" else contenders.create(name)
