"""Where an epoch spends its time: the parts of foldsmith's loop, measured one after another.

Runs the parts of the real loop (loader, transfer, step, backward pass, optimizer) under a clock
each, with the device waited for between them, so that on a GPU the shares are those of the work
and not of its launching. The whole is therefore a little slower than the loop itself.
"""

import argparse
import contextlib
import io
import tempfile
import time
from pathlib import Path

import report
from contenders import CONFIGS, CUDA, Foldsmith, wait
from generated import generated_project
from matplotlib.figure import Figure

from foldsmith.config import Experiment
from foldsmith.steps.preprocess import preprocess

PARTS = ("images and augmentation", "to the device", "forward", "backward", "optimizer")


def seconds_of(contender: Foldsmith) -> dict[str, float]:
    """Return the seconds of each part of one epoch."""
    spent = dict.fromkeys(PARTS, 0.0)
    runtime, optimizer = contender.runtime, contender.optimizer
    contender.loader.set_epoch(0)
    contender.model.train()
    batches = iter(contender.loader)

    @contextlib.contextmanager
    def clock(part: str):
        started = time.perf_counter()
        yield
        wait()
        spent[part] += time.perf_counter() - started

    for index in range(len(contender.loader)):
        with clock("images and augmentation"):
            raw = next(batches)
        with clock("to the device"):
            batch = runtime.transfer(raw, contender.loader.on_device)
        with clock("forward"), runtime.autocast():
            loss = contender.step(batch, 0, index)["loss"]
        with clock("backward"):
            runtime.scaler.scale(loss).backward()
        with clock("optimizer"):
            runtime.scaler.step(optimizer)
            runtime.scaler.update()
            optimizer.zero_grad(set_to_none=True)
            contender.step.after_update((index + 1) / len(contender.loader))
    return spent


def draw(rows: dict[str, dict[str, float]], path: Path) -> None:
    """Draw the shares of each case as a bar."""
    figure = Figure(figsize=(8.0, 0.9 + 0.6 * len(rows)), layout="constrained")
    axes = figure.subplots()
    colours = ("#4878a8", "#9ab8d4", "#e3a857", "#c8643c", "#7a7a7a")
    for row, spent in enumerate(rows.values()):
        left = 0.0
        for part, colour in zip(PARTS, colours, strict=True):
            share = spent[part] / sum(spent.values())
            axes.barh(row, share, left=left, color=colour, label=part if row == 0 else None)
            if share >= 0.04:
                axes.text(left + share / 2, row, f"{share:.0%}", ha="center", va="center", size=9)
            left += share
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(PARTS), frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print the table, write JSON and the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=4096 if CUDA else 256)
    parser.add_argument("--batch", type=int, default=256 if CUDA else 64)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224] if CUDA else [64, 128])
    parser.add_argument("--workers", type=int, default=8 if CUDA else 0)
    parser.add_argument("--picture", type=Path, default=report.FOLDER / "shares.png")
    arguments = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        project = generated_project(Path(folder), arguments.images)
        with contextlib.redirect_stdout(io.StringIO()):
            preprocess(project, False, [Experiment.load(project, CONFIGS[k]) for k in CONFIGS])
        for kind in CONFIGS:
            for size in arguments.sizes:
                contender = Foldsmith(
                    project.folder, kind, size, arguments.batch, arguments.workers
                )
                seconds_of(contender)  # warm up
                rows[f"{kind}, {size} px"] = seconds_of(contender)
    for case, spent in rows.items():
        whole = sum(spent.values())
        listed = ", ".join(f"{part} {seconds / whole:.1%}" for part, seconds in spent.items())
        print(f"{case}: {listed}")
    report.write("shares", [{"case": case, "seconds": spent} for case, spent in rows.items()])
    draw(rows, arguments.picture)
    print(f"wrote {arguments.picture}")


if __name__ == "__main__":
    main()
