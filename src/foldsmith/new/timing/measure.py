"""Facts of a project's data, and speeds of this machine: a few batches of each candidate."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from foldsmith.config import Context, Experiment
from foldsmith.data.images import image_values
from foldsmith.errors import DataError
from foldsmith.models.devices import kind_of_device
from foldsmith.models.runtime import create_runtime, seed_everything
from foldsmith.models.threads import threads_of
from foldsmith.new.timing.facts import Facts, Level, MachineSpeeds, Speed
from foldsmith.new.timing.rule import levels_of
from foldsmith.new.timing.untrained import untrained_s
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import image_paths, read_test, read_train
from foldsmith.run.sample_project import sampled
from foldsmith.run.slots import processes_with
from foldsmith.steps.baselines import MOST_ROWS
from foldsmith.steps.fold_components import build_fold, read_labels
from foldsmith.steps.image_store import open_store
from foldsmith.steps.kinds.predictions import PASSES
from foldsmith.steps.registry import types_of
from foldsmith.targets.tasks import create_task
from foldsmith.training.batch_size import train_one_batch
from foldsmith.training.fine_tune_step import FineTuneStep
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.machine import cores_here, idle_cores

# Images whose sides are read.
_SAMPLE = 40

# Variables that keep numpy's own threads away.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# A candidate is timed for about so long, in at least so many batches; the median counts.
_TIMED_S, _LEAST_BATCHES = 0.4, 3

# Seconds on an idle core: until the first step of a run begins (two processes import torch), an
# epoch beside its images (log, snapshot), a blend with its report.
_START_S, _EPOCH_S, _MEMBER_S = 8.0, 0.05, 3.0

# Seconds of the simple baselines for each labelled image that they are scored on.
_BASELINE_S = 0.012

# Speed of a training, as a part of the speed of a few batches (their median): loaders have to
# start, some batches are not full, and the manager works after each.
_SUSTAINED = 0.92

# Seconds for which other processes are watched.
_WATCHED_S = 0.5

# Seconds of the command before it measures.
_BEFORE_S = 3.0


def facts_of(
    project: ProjectFolder, fine_tunings: Mapping[str, str], untrained: Mapping[str, str]
) -> Facts:
    """Return the facts of a project that the choice depends on.

    Args:
        project: The project; it need not be preprocessed.
        fine_tunings: Names of the experiments that may be fine-tuned, the most useful first, with
            their files.
        untrained: The same of the members without a training.

    Raises:
        ConfigError: An experiment is wrong.
        DataError: A table is wrong, or no image can be read.
    """
    train, test = read_train(project), read_test(project)
    on_gpu = kind_of_device("auto") != "cpu"
    paths = image_paths(project, train)
    shapes = []
    for path in paths[:: -(-len(paths) // _SAMPLE)]:
        try:
            shapes.append(image_values(path).shape[:2])
        except DataError:
            continue  # preprocess will say so
    if not shapes:
        raise DataError(f"{project.data_dir}: none of the first images can be read")
    tuned = [Experiment.load(project, project.path(file)) for file in fine_tunings.values()]
    fitted = [Experiment.load(project, project.path(file)) for file in untrained.values()]
    beside = [processes_with(experiment.globals.threads) for experiment in fitted]
    return Facts(
        n_train=len(train),
        n_test=len(test),
        side=round(float(np.median(np.prod(shapes, axis=1) ** 0.5))),
        longest=round(float(np.median(np.max(shapes, axis=1)))),
        n_splits=project.n_splits,
        fine_tunings=tuple(fine_tunings),
        untrained=tuple(untrained),
        on_gpu=on_gpu,
        views=tuple(_views(experiment) for experiment in tuned),
        validations=tuned[0].globals.validations,
        processes=1 if on_gpu else processes_with(1),
        untrained_processes=1 if on_gpu else min(beside, default=1),
    )


def _views(experiment: Experiment) -> float:
    """Return the views of an image that is predicted, by their area in crops of the training."""
    steps = experiment.written_out().tree["dataset"]["val"]["transforms"]
    area: float = min((step.get("crop_pct", 1.0) for step in steps), default=1.0) ** -2
    return PASSES[experiment.globals.tta] * area


def measured_speeds(
    project: ProjectFolder,
    facts: Facts,
    fine_tuning: str,
    untrained: Sequence[str],
    time_s: float,
) -> MachineSpeeds:
    """Return the speeds of this machine for the images of a project.

    A few images are preprocessed in a temporary folder. A model of each candidate is trained on
    some batches of them, with the recipe's transforms, loss and optimizer. Members without a
    training are timed part by part (:func:`~foldsmith.new.timing.untrained.untrained_s`).

    Args:
        project: The project.
        facts: Its facts.
        fine_tuning: Its experiment file that is timed.
        untrained: Its experiment files without a training.
        time_s: Seconds of the run: candidates for longer ones are left out.

    Raises:
        FoldsmithError: A table, an image or the experiment is wrong.
    """
    started = time.perf_counter()
    idle = None if facts.on_gpu else idle_cores(_WATCHED_S)
    begun = time.perf_counter()
    with sampled(project) as sample:
        n_sample = len(read_train(sample)) + len(read_test(sample))
        preprocess_s = (time.perf_counter() - begun) / max(1, n_sample)
        experiment = Experiment.load(project, project.path(fine_tuning)).within(sample)
        levels = {}
        with _neighbours(facts.processes - 1):
            for level in levels_of(facts, time_s):
                # In turn, and the faster of two: another process that computes for a second would
                # otherwise decide the precision.
                rates = [
                    [_images_per_s(experiment, level, amp, facts) for amp in (True, False)]
                    for _ in range(2)
                ]
                mixed, full = np.max(rates, axis=0).tolist()
                levels[level.name] = Speed(mixed=mixed, full=full)
        with _neighbours(facts.untrained_processes - 1):
            members = [Experiment.load(project, project.path(file)) for file in untrained]
            seconds = untrained_s([member.within(sample) for member in members], facts)
    return MachineSpeeds(
        levels=levels,
        preprocess_s=preprocess_s,
        untrained_s=seconds,
        start_s=_START_S,
        epoch_s=_EPOCH_S,
        member_s=_MEMBER_S,
        baselines_s=_BASELINE_S * min(facts.n_train, MOST_ROWS),
        spent_s=_BEFORE_S + time.perf_counter() - started,
        busy_cores=0.0 if idle is None else cores_here() - idle,
    )


def values_of(level: Level, mixed: bool, facts: Facts) -> dict[str, Any]:
    """Return the values of a fine-tuning at a level, by their paths."""
    values: dict[str, Any] = {
        "model/base_name": level.backbone,
        "dataset/img_size": level.side,
        "model/backbone_options": {"options": dict(level.options)} if level.options else {},
        "globals/enable_amp": mixed,
    }
    if facts.processes > 1:
        # Folds run side by side, on one core each.
        values["globals/threads"] = 1
    return values


@contextmanager
def _neighbours(n: int) -> Iterator[None]:
    """Keep cores busy, as trainings that run beside this process do."""
    # They end with this process, also if it is killed.
    code = (
        "import os, numpy as np\na = np.ones((256, 256), np.float32)\n"
        f"while os.getppid() == {os.getpid()}: a @ a"
    )
    environment = os.environ | dict.fromkeys(_ONE_THREAD, "1")
    busy = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(n)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def _images_per_s(experiment: Experiment, level: Level, mixed: bool, facts: Facts) -> float:
    """Return how many images per second a training takes, loading included."""
    values = {
        **values_of(level, mixed, facts),
        "globals/val_fold": 0,
        "model/pretrained": None,
    }
    experiment = experiment.with_values(values)
    with threads_of(experiment.globals):
        return _timed(experiment)


def _timed(experiment: Experiment) -> float:
    """Return the images per second of some batches of a fine-tuning."""
    types, settings, project = types_of(experiment.project), experiment.globals, experiment.project
    runtime = create_runtime(settings)
    seed_everything(settings.seed)
    task = create_task(settings, project)
    _, labels = read_labels(experiment, task)
    form, _ = task.scale_form(settings.target_scale, labels)
    store = open_store(project, settings, FileHashes(project.hash_store))
    fold = build_fold(
        experiment, types, Context(images=store, runtime=runtime, task=task), task, form
    )
    parts, task = fold.components, fold.task
    model = runtime.place(parts["model"])
    step = FineTuneStep(
        *(model, parts["loss"], task, None, settings.max_epoch, settings.seed),
        weights=fold.weights_on(runtime.device),
    )
    loader, optimizer = parts["loader/train"], parts["optimizer"]
    n_images = loader.sampler.batch_size
    keys = [(0, index % len(loader.dataset)) for index in range(n_images)]
    train_one_batch(step, loader, optimizer, runtime, n_images)  # decodes, allocates
    loading_s = _median_s(lambda: loader.dataset.__getitems__(keys), _TIMED_S / 4)

    def trained() -> None:
        train_one_batch(step, loader, optimizer, runtime, n_images)
        runtime.wait()

    both_s = _median_s(trained, _TIMED_S)
    # Loader processes work beside the device.
    beside = loader.num_workers
    batch_s = max(both_s - loading_s, loading_s / beside) if beside else both_s
    return float(_SUSTAINED * n_images / batch_s)


def _median_s(work: Callable[[], object], for_s: float) -> float:
    """Return the median of the seconds that some work takes, repeated for some time."""
    seconds: list[float] = []
    while len(seconds) < _LEAST_BATCHES or sum(seconds) < for_s:
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))
