"""Seconds of the members without a training, from measured parts of each.

A member computes features of each image, learns from a fixed number of samples if it learns
without labels, and fits a head for each fold. These parts grow differently with the number of
images, so that each is timed on its own: on a few images of the project, or on rows made of their
features.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from foldsmith.config import Context, Experiment
from foldsmith.data.loader import ImageLoader
from foldsmith.data.project_images import all_images
from foldsmith.inference.predict import image_batches, predict_logits
from foldsmith.models.feature_heads import FeatureHead
from foldsmith.models.head_time import TimePart, time_parts
from foldsmith.models.learns_from_images import LearnsFromImages, Samples
from foldsmith.models.runtime import create_runtime, seed_everything
from foldsmith.models.threads import threads_of
from foldsmith.new.timing.extrapolation import seconds_at
from foldsmith.new.timing.facts import Facts
from foldsmith.project.tables import read_test, read_train, targets_of
from foldsmith.steps.features import fit_experiment
from foldsmith.steps.fold_heads import head_of
from foldsmith.steps.frozen_features import images_to_learn_from
from foldsmith.steps.image_store import open_store
from foldsmith.steps.registry import types_of
from foldsmith.utils.hashing import FileHashes
from foldsmith.utils.log_output import lines_hidden

# Seconds for which a part of a head, and learning without labels, are tried with more and more
# rows.
_HEAD_S, _LEARN_S = 0.5, 0.6

# Samples that learning is first tried with, as a part of all; its time is a line of them.
_FIRST_SAMPLES, _LEARN_SIZES = 1 / 16, 2

# Deviation of the noise on rows that are made of others, as a part of the features' deviation.
_NOISE = 0.3

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Parts:
    """Seconds of the parts of a member.

    Attributes:
        decoding_s: Seconds to decode an image.
        features_s: Seconds for the features of an image.
        learning_s: Seconds to learn without labels from all images.
        small_head_s: Seconds to fit a head to the sample.
        head_s: Seconds to fit a head for a fold, its predictions included.
    """

    decoding_s: float
    features_s: float
    learning_s: float
    small_head_s: float
    head_s: float


def untrained_s(experiments: Sequence[Experiment], facts: Facts) -> tuple[float, ...]:
    """Return the seconds of members without a training on all images of a project.

    Args:
        experiments: The members, on a sample of the project that is preprocessed.
        facts: Numbers of the project's images and folds.

    Raises:
        FoldsmithError: A table, an image or an experiment is wrong.
    """
    found = []
    for experiment in experiments:
        with threads_of(experiment.globals), lines_hidden():
            found.append(_parts(experiment, facts))
    n_all, n_splits = facts.n_train + facts.n_test, facts.n_splits
    beside_s = _beside_s(experiments, found, n_splits)
    return tuple(
        beside_s
        + n_all * (parts.decoding_s + parts.features_s)
        + parts.learning_s
        + n_splits * parts.head_s
        for parts in found
    )


def _beside_s(experiments: Sequence[Experiment], found: Sequence[_Parts], n_splits: int) -> float:
    """Return the seconds of a member beside its timed parts: checks, files, scores.

    The shortest member is fitted to the sample.
    """
    n_sample = len(read_train(experiments[0].project)) + len(read_test(experiments[0].project))
    known_s = [n_sample * parts.features_s + n_splits * parts.small_head_s for parts in found]
    shortest = int(np.argmin(known_s))
    with tempfile.TemporaryDirectory(prefix="foldsmith-") as output, lines_hidden():
        # A folder inside, since the lock of an output folder lies beside it.
        inside = str(Path(output) / "fitted")
        experiment = experiments[shortest].with_values({"globals/output_root": inside})
        started = time.perf_counter()
        fit_experiment(experiment, "force")
        whole_s = time.perf_counter() - started
    return max(0.0, whole_s - known_s[shortest])


def _parts(experiment: Experiment, facts: Facts) -> _Parts:
    """Time the parts of a member."""
    project, settings = experiment.project, experiment.globals
    types, runtime = types_of(project), create_runtime(settings)
    seed_everything(settings.seed)
    store = open_store(project, settings, FileHashes(project.hash_store))
    built = experiment.build(types, Context(images=store, runtime=runtime))
    started = time.perf_counter()
    dataset = all_images(project, store, built["dataset/test/transforms"], settings.seed, n_views=1)
    decoding_s = time.perf_counter() - started
    loader = ImageLoader(dataset, len(dataset), num_workers=0, device=runtime.device)
    model = runtime.place(built["model"])
    learning_s = 0.0
    if isinstance(model, LearnsFromImages):
        with torch.no_grad():
            started = time.perf_counter()
            batches = image_batches(loader, runtime)
            samples = model.sample(batches, len(dataset), settings.seed)
            sampling_s = (time.perf_counter() - started) / len(dataset)
            n_images = images_to_learn_from(experiment, facts.n_train + facts.n_test)
            learning_s = n_images * sampling_s + _learning_s(model, samples, settings.seed)
    few = ImageLoader(dataset, 2, num_workers=0, device=runtime.device)
    with torch.inference_mode(), runtime.autocast():
        model.eval()(next(image_batches(few, runtime)))  # allocates
    started = time.perf_counter()
    features = predict_logits([model], loader, runtime, tta=settings.tta)[0]
    features_s = time.perf_counter() - started
    head = head_of(experiment, types)[0]
    table = read_train(project)
    targets = targets_of(project, table)
    small_s, head_s = _head_s(head, features[: len(table)], targets, facts, settings.seed)
    n_sample = len(dataset)
    return _Parts(decoding_s / n_sample, features_s / n_sample, learning_s, small_s, head_s)


def _learning_s(model: LearnsFromImages, samples: Samples, seed: int) -> float:
    """Return the seconds of learning from all samples."""
    n_all = len(samples[0])

    def prepared(size: int) -> Callable[[], object]:
        rows = torch.linspace(0, n_all - 1, size).long()
        some = tuple(part[rows] for part in samples)
        return lambda: model.learn(some, seed)

    first = max(1, round(n_all * _FIRST_SAMPLES))
    prepared(first // 2)()  # loads libraries
    return seconds_at(prepared, first, n_all, _LEARN_S, _LEARN_SIZES)[1]


def _head_s(
    head: FeatureHead,
    features: Array,
    targets: npt.NDArray[np.float64],
    facts: Facts,
    seed: int,
) -> tuple[float, float]:
    """Return the seconds of a head for the rows of a sample, and for a fold of the project."""
    parts = time_parts(head, features.shape[1])
    each = [_part_s(part, features, targets, facts, seed) for part in parts]
    return sum(small_s for small_s, _ in each), sum(fold_s for _, fold_s in each)


def _part_s(
    part: TimePart, features: Array, targets: npt.NDArray[np.float64], facts: Facts, seed: int
) -> tuple[float, float]:
    """Return the same of a part of a head."""
    n_fold = facts.n_fold
    first = min(n_fold, max(1, round(len(features) * n_fold / facts.n_train)))
    most = n_fold if part.rows is None else min(n_fold, max(first, part.rows))
    # Images that the model of a fold predicts, for each that it is fitted to.
    predicted = (facts.n_train - n_fold + facts.n_test) / n_fold

    def prepared(size: int) -> Callable[[], object]:
        rows, wanted = _rows_like(features, targets, size, seed)
        others = np.resize(features, (round(size * predicted), features.shape[1]))
        groups = np.arange(size)

        def work() -> None:
            fitted = part.fit(rows, wanted, groups, seed)
            if fitted is not None:
                fitted.predict(others)

        return work

    prepared(first)()  # loads libraries
    small_s, most_s = seconds_at(prepared, first, most, _HEAD_S)
    return small_s, float(most_s * (n_fold / most) ** part.power)


def _rows_like(
    features: Array, targets: npt.NDArray[np.float64], n: int, seed: int
) -> tuple[Array, npt.NDArray[np.float64]]:
    """Return rows between those of a sample, with noise, and the target of the nearer one.

    Args:
        features: Shape (n_sample, n_features).
        targets: Shape (n_sample,).
        n: Number of the rows.
        seed: Seed of what is drawn.
    """
    rng = np.random.default_rng(seed)
    # Every row once, before any twice: no class is left out.
    near = np.concatenate(
        [rng.permutation(len(features)) for _ in range(-(-n // len(features)))] or [np.arange(0)]
    )[:n]
    far = rng.integers(0, len(features), n)
    share = rng.uniform(0, 0.5, (n, 1)).astype(np.float32)
    rows = (1 - share) * features[near] + share * features[far]
    deviations = features.std(axis=0) * np.float32(_NOISE)
    rows += rng.standard_normal(rows.shape, dtype=np.float32) * deviations
    return rows, targets[near]
