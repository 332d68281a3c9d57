"""Is it fast: images per second beside the model alone and beside the loop of 2021.

For SimSiam and fine-tuning, two backbones and two sizes: batch sizes that fill the card, then the
model alone, foldsmith and the plain loop in turn. Beside that: augmentation on the CPU by the
number of loader processes and on the GPU, prediction, and where the time goes. What the limit
leaves no time for is named in the results.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from batches import enough
from contender_process import Process
from contenders import CONFIGS, CUDA
from deep import create
from figures import Figures
from generated import generated_project
from plain_transforms import LIBRARY

from foldsmith.config import Experiment
from foldsmith.project import ProjectFolder
from foldsmith.steps.preprocess import preprocess
from foldsmith.utils.machine import cores_here

PLAIN, OURS = "plain", "foldsmith"
ON_CPU, ON_GPU = "augmenting on the CPU", "augmenting on the GPU"

# Kind, backbone, px.
Kind = tuple[str, str, int]


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        images: Images of an epoch.
        cases: What is trained, the most important first.
        first_batch: Where the search for the batch begins.
        largest_batch: Where it ends.
        workers: Numbers of loader processes that are compared.
        rounds: How often each contender is measured.
        profiled: Steps whose kernels are looked at.
    """

    images: int
    cases: tuple[Kind, ...]
    first_batch: int
    largest_batch: int
    workers: tuple[int, ...]
    rounds: int
    profiled: int


CARD = Scale(
    6144,
    (
        ("SimSiam", "resnet18d", 224),
        ("fine-tuning", "resnet18d", 224),
        ("SimSiam", "resnet50d", 224),
        ("fine-tuning", "resnet50d", 224),
        ("SimSiam", "resnet18d", 128),
        ("fine-tuning", "resnet18d", 128),
    ),
    64,
    2048,
    (2, 4, 8, 16),
    2,
    10,
)
SMALL = Scale(
    8, (("SimSiam", "test_resnet", 32), ("fine-tuning", "test_resnet", 32)), 2, 4, (0, 1), 1, 1
)


class Local:
    """A contender in this process, with the methods of :class:`contender_process.Process`.

    For the rehearsal, where a process would take longer to start than everything that it measures.
    """

    def __init__(self, name: str, project: Path) -> None:
        self._name, self._project = name, project
        self._contender: Any = None
        self.workers: int | None = None

    def begin(self, case: tuple[Any, ...], workers: int) -> None:
        """Get ready for a case; runs an epoch to warm up."""
        kind, size, batch, *backbone = case
        self.workers = workers
        self._contender = None
        made = create(self._name)
        self._contender = made(self._project, kind, size, batch, workers, *backbone)
        self.measure()

    def measure(self, what: str = "epoch") -> float:
        """Return images/s."""
        return float(self.ask(what))

    def ask(self, what: str, *arguments: Any) -> Any:
        """Return what a method of the contender returns."""
        with contextlib.redirect_stdout(io.StringIO()):
            return getattr(self._contender, what)(*arguments)

    def end(self) -> None:
        """Free it."""
        self._contender = None


class Clock:
    """The time that is left of the part's limit."""

    def __init__(self, limit_s: float) -> None:
        self._until = time.monotonic() + limit_s

    def left(self) -> float:
        """Return the seconds that are left, some kept back for the end."""
        return self._until - time.monotonic() - 8


def main() -> None:
    """Measure what fits into the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    clock = Clock(arguments.limit)
    figures = Figures(arguments.out)
    scale = SMALL if arguments.rehearse else CARD
    with tempfile.TemporaryDirectory() as folder:
        project = many_images(Path(folder), scale.images)
        with contextlib.redirect_stdout(io.StringIO()):
            preprocess(project, False, [Experiment.load(project, CONFIGS[k]) for k in CONFIGS])
        figures.add(what="images", images=scale.images, left_s=round(clock.left()))
        names = (OURS, PLAIN, *((ON_CPU, ON_GPU) if CUDA else (ON_CPU,)))
        running: dict[str, Any] = {
            name: Local(name, project.folder)
            if arguments.rehearse
            else Process(name, project.folder, "deep")
            for name in names
        }
        try:
            measure_all(running, scale, clock, figures)
        finally:
            for process in running.values():
                process.end()


def measure_all(running: dict[str, Any], scale: Scale, clock: Clock, figures: Figures) -> None:
    """Measure everything, the most important first.

    Args:
        running: Name -> process of each contender.
        scale: How large everything is.
        clock: What time is left.
        figures: Where results go.
    """
    workers = min(16, cores_here()) if CUDA else 0
    batches: dict[Kind, int] = {}

    def attempt(what: str, needs_s: float, work: Callable[[], None]) -> None:
        """Do some of it if there is time, and go on if it fails."""
        if CUDA and clock.left() < needs_s:
            figures.add(what=what, skipped=f"{clock.left():.0f} s left, {needs_s:.0f} s needed")
            figures.line(f"{what}: left out, no time")
            return
        try:
            work()
        except Exception as error:
            figures.add(what=what, error=f"{type(error).__name__}: {error}")
            figures.line(f"{what}: failed: {error}"[:160])
            failures.append(what)

    failures: list[str] = []
    first, second, *others = scale.cases

    def case(each: Kind) -> Callable[[], None]:
        return lambda: compare(running, each, scale, workers, batches, figures)

    attempt(title(first), 45, case(first))
    attempt(title(second), 30, case(second))
    attempt(
        "augmentation", 30, lambda: augmentation(running, first, scale, workers, batches, figures)
    )
    attempt("prediction", 6, lambda: prediction(running[OURS], second, workers, batches, figures))
    attempt("profile", 15, lambda: profile(running[OURS], first, scale, workers, batches, figures))
    for each in others:
        attempt(title(each), 22, case(each))
    if failures:
        raise SystemExit(1)


def title(case: Kind) -> str:
    """Return what a case is called."""
    kind, backbone, size = case
    return f"{kind} {backbone} {size} px"


def compare(
    running: dict[str, Any],
    case: Kind,
    scale: Scale,
    workers: int,
    batches: dict[Kind, int],
    figures: Figures,
) -> None:
    """Measure the model alone, foldsmith and the plain loop in turn, the card full."""
    kind, backbone, size = case
    ours, plain = running[OURS], running[PLAIN]
    ours.begin((kind, size, scale.first_batch, backbone), workers)
    found = ours.ask("batches", scale.largest_batch, 10.0)
    # An epoch has several batches; BatchNorm cannot train on a single image.
    batch = batches[case] = max(2, min(enough(found), scale.images // 6))
    figures.add(what="batch", case=title(case), found=found, batch=batch)
    ours.begin((kind, size, batch, backbone), workers)
    plain.begin((kind, size, batch, backbone), workers)
    ours.measure("floor")
    speeds: dict[str, list[float]] = {"floor": [], OURS: [], PLAIN: []}
    waits = []
    for _ in range(scale.rounds):
        speeds["floor"].append(ours.measure("floor"))
        speeds[OURS].append(ours.measure())
        waits.append(ours.ask("wait_share"))
        speeds[PLAIN].append(plain.measure())
    median = {name: statistics.median(values) for name, values in speeds.items()}
    row = {
        "images_per_s": median,
        "share_of_floor": median[OURS] / median["floor"],
        "times_plain": median[OURS] / median[PLAIN],
        "data_wait": statistics.median(waits),
        "peak_mib": ours.ask("peak_mib"),
        "augmented_on": ours.ask("augments_on"),
        "layout": ours.ask("layout"),
        "workers": workers,
        "plain_transforms": LIBRARY,
    }
    figures.add(what="training", case=title(case), batch=batch, rounds=speeds, **row)
    figures.line(
        f"{title(case)}, batch {batch}: model alone {median['floor']:.0f}, foldsmith "
        f"{median[OURS]:.0f}, plain loop {median[PLAIN]:.0f} images/s; "
        f"{row['share_of_floor']:.2f} of the floor, {row['times_plain']:.1f} times the plain loop, "
        f"data wait {row['data_wait']:.2f}, augmented on {row['augmented_on']}"
    )


def augmentation(
    running: dict[str, Any],
    case: Kind,
    scale: Scale,
    most: int,
    batches: dict[Kind, int],
    figures: Figures,
) -> None:
    """Measure augmentation on the CPU by the number of loader processes, and on the GPU."""
    kind, backbone, size = case
    for name in (ON_CPU, ON_GPU):
        if name not in running:
            continue
        for workers in scale.workers if name == ON_CPU else scale.workers[-2:]:
            if workers > max(most, 1):  # more than there are cores
                continue
            running[name].begin((kind, size, batches[case], backbone), workers)
            speed = running[name].measure()
            figures.add(what="augmentation", where=name, workers=workers, images_per_s=speed)
            figures.line(f"{title(case)}, {name}, {workers} loader processes: {speed:.0f} images/s")
        # Its memory is for what follows.
        running.pop(name).end()


def prediction(
    ours: Any, case: Kind, workers: int, batches: dict[Kind, int], figures: Figures
) -> None:
    """Measure images/s of a prediction."""
    kind, backbone, size = case
    ours.begin((kind, size, batches[case], backbone), workers)
    speed = ours.ask("inference")
    figures.add(what="prediction", case=title(case), images_per_s=speed)
    figures.line(f"prediction, {backbone} {size} px: {speed:.0f} images/s")


def profile(
    ours: Any, case: Kind, scale: Scale, workers: int, batches: dict[Kind, int], figures: Figures
) -> None:
    """Measure where the time goes: the parts of an epoch, and the kernels of some steps."""
    kind, backbone, size = case
    ours.begin((kind, size, batches[case], backbone), workers)
    shares = ours.ask("shares")
    figures.add(what="shares", case=title(case), seconds=shares)
    whole = sum(shares.values())
    figures.line(
        f"{title(case)}: "
        + ", ".join(f"{part} {seconds / whole:.0%}" for part, seconds in shares.items())
    )
    found = ours.ask("profile", scale.profiled)
    figures.add(what="profile", case=title(case), **found)
    if not found["steps"]:
        return
    gaps = ", ".join(f"{gap:.2f}" for gap in found["gaps_ms"][:4])
    figures.line(
        f"{found['steps']} steps of {found['step_ms']:.1f} ms, the device busy "
        f"{found['busy']:.0%}; longest gaps {gaps} ms"
    )
    for kernel in found["kernels"][:6]:
        figures.line(
            f"{kernel['share']:>6.1%} {kernel['calls_per_step']:>6.1f} per step  "
            f"{kernel['name'][:60]}"
        )


def many_images(folder: Path, n: int) -> ProjectFolder:
    """Return the bundled project with n labelled images, made fast: shifted ones of a few works."""
    few = generated_project(folder, min(n, 60), 12)
    data = few.folder / "input" / "atmaCup-11"
    train = pd.read_csv(data / "train.csv")
    images = {name: cv2.imread(str(data / "photos" / f"{name}.jpg")) for name in train["object_id"]}
    rng = np.random.default_rng(0)
    rows = train.iloc[np.arange(n) % len(train)].copy()
    rows["object_id"] = [f"image{k:06}" for k in range(n)]
    rows["art_series_id"] = [f"series{k:06}" for k in range(n)]
    shifts = rng.integers(0, 200, (n, 2))
    noise = rng.normal(0, 6, (300, 300, 3)).astype(np.float32)

    def write(k: int) -> None:
        image = np.roll(images[train["object_id"].iloc[k % len(train)]], shifts[k], axis=(0, 1))
        grain = noise[: image.shape[0], : image.shape[1]]
        shifted = image + np.roll(grain, int(shifts[k, 0]), axis=1)
        cv2.imwrite(
            str(data / "photos" / f"image{k:06}.jpg"),
            shifted.clip(0, 255).astype(np.uint8),
            [cv2.IMWRITE_JPEG_QUALITY, 88],
        )

    with ThreadPoolExecutor() as threads:
        list(threads.map(write, range(n)))
    rows.to_csv(data / "train.csv", index=False)
    return few


if __name__ == "__main__":
    main()
