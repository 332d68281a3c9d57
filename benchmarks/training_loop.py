"""How close the training loop comes to the model alone: `make bench`.

For self-supervised pretraining and fine-tuning, at 64 and 128 px, measures in alternation

* floor: forward, backward and optimizer step on one batch that stays where it is,
* loop: foldsmith's own loop on generated photos with the published augmentations,

with the same model, batch, precision and memory format, and prints the share of the floor
that the loop keeps. Ratios are taken round by round, so that a machine whose speed drifts
does not blur them.
"""

import argparse
import importlib.util
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from foldsmith.config import Experiment, Project
from foldsmith.hashing import FileHashes
from foldsmith.models.runtime import Runtime, create_runtime, seed_everything
from foldsmith.stages import preprocess
from foldsmith.stages.photos import open_store
from foldsmith.stages.types import types_of
from foldsmith.tasks.task import create_task
from foldsmith.training.loop import run_training
from foldsmith.training.manager import create_manager
from foldsmith.training.steps import FineTuneStep, PretrainStep, Step

REPOSITORY = Path(__file__).resolve().parents[1]
ATMACUP = REPOSITORY / "competitions" / "atmacup11"

CASES = {
    "SimSiam": ("exp_config/000.yml", ["loader/train/batch_size=64"]),
    "fine-tuning": (
        "exp_config/100.yml",
        ["loader/train/batch_size=64", "model/pretrained=null", "loader/train/drop_last=true"],
    ),
}


class Case:
    """One measured training: its parts, and one epoch of either kind."""

    def __init__(self, project: Project, config: str, overrides: list[str]) -> None:
        experiment = Experiment.load(project, Path(config), overrides)
        self.settings = experiment.globals
        seed_everything(self.settings.seed)
        self.runtime: Runtime = create_runtime(self.settings)
        task = None
        if self.settings.task != "self-supervised":
            task = create_task(self.settings.task, project)
        context: dict[str, Any] = {
            "project": project,
            "images": open_store(project, self.settings, FileHashes(project.hash_store)),
            "runtime": self.runtime,
            "task": task,
        }
        parts = experiment.build(types_of(project), context)
        self.model: nn.Module = self.runtime.place(parts["model"])
        self.loader = parts["loader/train"]
        self.optimizer = parts["optimizer"]
        self.step: Step = (
            PretrainStep(self.model)
            if task is None
            else FineTuneStep(self.model, parts["loss"], task, None, 1, self.settings.seed)
        )
        self.batch = self.runtime.transfer(next(iter(self.loader)), self.loader.dataset.normalize)
        self.n_images = sum(self.loader.sampler.sizes())

    def floor(self) -> float:
        """Return the images/s of the model alone, over as many batches as an epoch has."""
        self.model.train()
        self._wait()
        started = time.perf_counter()
        for index in range(len(self.loader)):
            with self.runtime.autocast():
                loss = self.step(self.batch, 0, index)["loss"]
            self.runtime.scaler.scale(loss).backward()
            self.runtime.scaler.step(self.optimizer)
            self.runtime.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        self._wait()
        return self.n_images / (time.perf_counter() - started)

    def loop(self, folder: str) -> float:
        """Return the images/s of one epoch of the real loop."""
        manager = create_manager(self.model, self.optimizer, 1, len(self.loader), folder)
        self._wait()
        started = time.perf_counter()
        run_training(
            *(manager, self.step, self.loader, self.optimizer, None, self.runtime),
            grad_accum=1,
            seed=self.settings.seed,
        )
        self._wait()
        return self.n_images / (time.perf_counter() - started)

    def _wait(self) -> None:
        if self.runtime.device.type == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    """Measure, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("build/bench/training_loop.json"))
    arguments = parser.parse_args()

    results = []
    with tempfile.TemporaryDirectory() as folder:
        project = generated_project(Path(folder), arguments.photos)
        print(f"{'training':<12} {'px':>4} {'floor':>8} {'loop':>8} {'share':>6}   (images/s)")
        for name, (config, overrides) in CASES.items():
            for size in arguments.sizes:
                options = [
                    f"dataset/img_size={size}",
                    f"loader/train/num_workers={arguments.workers}",
                ]
                case = Case(project, config, [*overrides, *options])
                case.floor(), case.loop(folder)  # warm up
                rounds = [(case.floor(), case.loop(folder)) for _ in range(arguments.rounds)]
                floors, loops = zip(*rounds, strict=True)
                share = statistics.median(loop / floor for floor, loop in rounds)
                result = {
                    "training": name,
                    "img_size": size,
                    "device": str(case.runtime.device),
                    "dtype": str(case.runtime.dtype),
                    "channels_last": case.runtime.channels_last,
                    "batch_size": case.loader.sampler.batch_size,
                    "num_workers": arguments.workers,
                    "floor_images_per_s": statistics.median(floors),
                    "loop_images_per_s": statistics.median(loops),
                    "share": share,
                    "shares": [loop / floor for floor, loop in rounds],
                }
                results.append(result)
                print(
                    f"{name:<12} {size:>4} {statistics.median(floors):>8.1f} "
                    f"{statistics.median(loops):>8.1f} {share:>6.3f}",
                    flush=True,
                )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(results, indent=2) + "\n")
    print(f"wrote {arguments.output}")


def generated_project(folder: Path, n_photos: int) -> Project:
    """Return the bundled project with generated photos in it, preprocessed."""
    spec = importlib.util.spec_from_file_location("demo_data", ATMACUP / "make_demo_data.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    project = folder / "project"
    shutil.copytree(ATMACUP, project, ignore=shutil.ignore_patterns("input", "output"))
    module.make_demo_data(project / "input" / "atmaCup-11", n_photos, 20, seed=1)
    opened = Project.open(project)
    preprocess(opened)
    return opened


if __name__ == "__main__":
    main()
