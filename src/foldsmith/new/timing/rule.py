"""The rule that turns a time, facts about the data and measured speeds into a choice of values.

:func:`choose` is a pure function. Its numbers are the constants below, so that they can be changed
after new measurements.
"""

import bisect
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

# Epochs of a fold: no fine-tuning has more, and a larger image size needs at least ENOUGH.
MOST_EPOCHS, ENOUGH_EPOCHS = 500, 60

# A second fine-tuning needs this many epochs for each, or as many as show LEAST_IMAGES to a fold;
# below FEWEST_EPOCHS no fine-tuning is planned.
LEAST_EPOCHS, LEAST_IMAGES, FEWEST_EPOCHS = 20, 20_000, 3

# bf16 or fp16 must be this much faster than float32 to be taken.
MIXED_GAIN = 1.1

# A pretraining gets this share of the time where it is worth it: on a GPU, from this time on, if
# it sees every image this often.
PRETRAINING_SHARE, PRETRAINING_FROM_S, PRETRAINING_EPOCHS = 0.3, 3600.0, (100, 300)

# Larger networks and images are for runs of at least this many seconds.
_LARGER_FROM_S = 3600.0

# Views of an image in each epoch of a pretraining.
_VIEWS = 2

# Part of the time that is planned: the machine may be slower than it was while it was measured.
_PLANNED = 0.97

# An image of a training takes as long as so many that are predicted, in larger batches.
_TRAINING_PASS = 3.5

# Seconds of a step beside its images: the training of a fold begins, draws its curves and ends.
_FOLD_S, _INFER_S = 1.5, 0.5

# Images up to this side keep their size; on a GPU, those from the other one on get others.
SMALL_SIDE, LARGE_SIDE = 40, 128


@dataclass(frozen=True)
class Level:
    """A backbone at an image size.

    Attributes:
        backbone: Name of the timm model.
        side: Side of its images in pixels.
        options: Arguments of the timm model.
        from_s: It is for runs of at least this many seconds.
    """

    backbone: str
    side: int
    options: tuple[tuple[str, Any], ...] = ()
    from_s: float = 0.0

    @property
    def name(self) -> str:
        """Name for people."""
        return f"{self.backbone} at {self.side} px"


@dataclass(frozen=True)
class Facts:
    """Facts about the data and the run.

    Attributes:
        n_train: Labelled images.
        n_test: Images to predict.
        side: Typical side of the images in pixels.
        n_splits: Folds.
        fine_tunings: Names of the experiments that are fine-tuned, the most useful first.
        untrained: Number of the members without a training.
        on_gpu: Whether trainings run on a GPU.
        views: Views of each image that a fine-tuning predicts, by fine-tuning.
        validations: Validations of a fold (``globals/validations``); None for one each epoch.
        processes: Trainings that run side by side.
        untrained_processes: Members without a training that are fitted side by side.
    """

    n_train: int
    n_test: int
    side: int
    n_splits: int
    fine_tunings: tuple[str, ...]
    untrained: int
    on_gpu: bool
    views: tuple[int, ...]
    validations: int | None = None
    processes: int = 1
    untrained_processes: int = 1

    @property
    def n_fold(self) -> int:
        """Images that the model of a fold is trained on."""
        return max(1, round(self.n_train * (self.n_splits - 1) / self.n_splits))


@dataclass(frozen=True)
class Speed:
    """The measured speed of a level.

    Attributes:
        mixed: Images per second of a training in mixed precision, loading included.
        full: The same in float32.
    """

    mixed: float
    full: float

    @property
    def takes_mixed(self) -> bool:
        """Whether mixed precision is enough faster to be taken."""
        return self.mixed >= MIXED_GAIN * self.full

    @property
    def taken(self) -> float:
        """Images per second in the precision that is taken."""
        return self.mixed if self.takes_mixed else self.full


@dataclass(frozen=True)
class Fit:
    """The measured time of a member without a training.

    Attributes:
        image_s: Seconds per image.
        fixed_s: Seconds that do not depend on the number of images.
    """

    image_s: float
    fixed_s: float

    def seconds(self, n_images: int) -> float:
        """Return the seconds that it takes."""
        return n_images * self.image_s + self.fixed_s


@dataclass(frozen=True)
class MachineSpeeds:
    """Measured speeds of this machine.

    Attributes:
        levels: Name of each level -> its speed.
        preprocess_s: Seconds of ``preprocess`` per image.
        untrained: Times of the members without a training.
        start_s: Seconds until the first step of a run begins.
        epoch_s: Seconds of an epoch beside its images.
        member_s: Seconds of the first blend, and of the last one with the report.
        baselines_s: Seconds of the simple baselines, which the first blend waits for.
        spent_s: Seconds of the time that the measurement itself has taken.
        busy_cores: Cores that other processes kept busy, where that slows trainings.
    """

    levels: Mapping[str, Speed]
    preprocess_s: float
    untrained: tuple[Fit, ...]
    start_s: float
    epoch_s: float
    member_s: float
    baselines_s: float = 0.0
    spent_s: float = 0.0
    busy_cores: float = 0.0


@dataclass(frozen=True)
class EpochPlan:
    """Numbers of epochs that fit a time, and the estimated seconds of all parts of a run.

    Attributes:
        epochs: Epochs of each fold of each fine-tuning; 0 for none.
        pretraining: Epochs of the pretraining; 0 for none.
        fold_epoch_s: Seconds of one epoch of one fold.
        fold_s: Seconds of the training of one fold.
        infer_s: Seconds of the inference of each fine-tuning.
        pretraining_s: Seconds of the pretraining.
        first_s: Seconds of the start, ``preprocess`` and the members without a training.
        rest_s: Seconds of the blends, simple baselines and reports.
        total_s: Seconds of the whole run, and of the measurement before it.
    """

    epochs: int
    pretraining: int
    fold_epoch_s: float
    fold_s: float
    infer_s: tuple[float, ...]
    pretraining_s: float
    first_s: float
    rest_s: float
    total_s: float


@dataclass(frozen=True)
class Choice(EpochPlan):
    """The values of a run.

    Attributes:
        level: Backbone and image size.
        mixed: Mixed precision (``globals/enable_amp``).
        fine_tunings: The experiments that are fine-tuned.
        why: Each choice, for people -> its reason.
    """

    level: Level
    mixed: bool
    fine_tunings: tuple[str, ...]
    why: Mapping[str, str]


def levels_of(facts: Facts, time_s: float) -> tuple[Level, ...]:
    """Return the backbones and image sizes that fit the images and the time, from fast to slow."""
    return tuple(level for level in _all_levels(facts) if level.from_s <= time_s)


def _all_levels(facts: Facts) -> list[Level]:
    """Return the backbones and image sizes that fit the images, from fast to slow."""
    if facts.side <= SMALL_SIDE:
        return [_wide(2, 32, 1), _wide(4, 32, 1, _LARGER_FROM_S)]
    found = [_wide(2, 64, 2)]
    if facts.side >= 80:
        found += [_wide(2, 96, 2, _LARGER_FROM_S), _wide(4, 96, 2, _LARGER_FROM_S)]
    if facts.on_gpu and facts.side >= LARGE_SIDE:
        found.append(Level("resnet18d", 128))
    if facts.on_gpu and facts.side >= 200:
        found.append(Level("resnet34d", 224, from_s=_LARGER_FROM_S))
    return found


def _wide(width: int, side: int, stem_stride: int, from_s: float = 0.0) -> Level:
    """Return the level of a wide residual network, whose map fits small images."""
    return Level(f"wrn_16_{width}", side, (("stem_stride", stem_stride),), from_s)


def choose(time_s: float, facts: Facts, speeds: MachineSpeeds) -> Choice:
    """Return the values whose run fits a time.

    More time never gives a smaller image size or fewer members and, with the same size, members
    and pretraining or none, never fewer epochs. A larger size or a second member begins only where
    enough epochs are left for it.

    Args:
        time_s: Seconds that the whole run may take.
        facts: The data.
        speeds: The machine; it has the speed of every level of :func:`levels_of`.
    """
    levels = levels_of(facts, time_s)
    n_fine = len(facts.fine_tunings)
    enough = max(LEAST_EPOCHS, min(ENOUGH_EPOCHS, ENOUGH_EPOCHS * 1_000 // facts.n_fold))
    fits = [_fitting(time_s, level, n_fine, facts, speeds) for level in levels]
    rank = max((k for k, fit in enumerate(fits) if fit.epochs >= enough), default=0)
    members = n_fine
    # A set of many images needs fewer epochs for as many steps.
    least = max(FEWEST_EPOCHS, min(LEAST_EPOCHS, LEAST_IMAGES // facts.n_fold))
    if fits[rank].epochs < least:
        members = 1
    fit = _fitting(time_s, levels[rank], members, facts, speeds)
    if fit.epochs < FEWEST_EPOCHS:
        members = 0
        fit = _fitting(time_s, levels[rank], members, facts, speeds)
    if facts.on_gpu and time_s >= PRETRAINING_FROM_S and members == n_fine:
        with_pretraining = _fitting(time_s, levels[rank], members, facts, speeds, True)
        if with_pretraining.pretraining and with_pretraining.epochs >= enough:
            fit = with_pretraining
    return _made(levels[rank], members, fit, facts, speeds)


def _fitting(
    time_s: float,
    level: Level,
    members: int,
    facts: Facts,
    speeds: MachineSpeeds,
    pretrained: bool = False,
) -> EpochPlan:
    """Return the most epochs of some fine-tunings at a level that fit a time."""
    per_s = speeds.levels[level.name].taken
    epoch_s = facts.n_fold / per_s + speeds.epoch_s
    validation_s = (facts.n_train - facts.n_fold) / (_TRAINING_PASS * per_s)
    predicted = facts.n_train + facts.n_splits * facts.n_test
    infer_s = tuple(
        _INFER_S + views * predicted / (_TRAINING_PASS * per_s) for views in facts.views[:members]
    )
    n_all = facts.n_train + facts.n_test
    fits = [fit.seconds(n_all) for fit in speeds.untrained]
    free = _side_by_side(fits, [0.0] * facts.untrained_processes)
    if facts.untrained_processes != facts.processes:
        free = [max(free)] * facts.processes
    start_s = speeds.start_s + n_all * speeds.preprocess_s
    # The blends between the first and the last one are shorter, and beside other steps.
    between = max(0, facts.untrained + members - 2) / (2 * facts.processes)
    rest_s = (2 + between) * speeds.member_s + speeds.baselines_s
    left_s = _PLANNED * time_s - speeds.spent_s - start_s - rest_s
    pretraining, pretraining_s = 0, 0.0
    if pretrained:
        pretraining, pretraining_s = _pretraining(left_s - max(free), per_s, facts, speeds)
        left_s -= pretraining_s

    def fold_s(epochs: int) -> float:
        return _FOLD_S + epochs * epoch_s + min(epochs, facts.validations or epochs) * validation_s

    def last_s(epochs: int) -> float:
        return _end_of_trainings(fold_s(epochs), infer_s, facts, free)

    epochs = bisect.bisect(range(1, MOST_EPOCHS + 1), left_s, key=last_s) if members else 0
    steps_s = last_s(epochs) if epochs else max(free)
    return EpochPlan(
        *(epochs, pretraining, epoch_s, fold_s(epochs) if epochs else 0.0, infer_s),
        *(pretraining_s, start_s + max(free), rest_s),
        speeds.spent_s + start_s + pretraining_s + steps_s + rest_s,
    )


def _end_of_trainings(
    fold_s: float, infer_s: Sequence[float], facts: Facts, free: Sequence[float]
) -> float:
    """Return when the fine-tunings are trained and inferred.

    Args:
        fold_s: Seconds of the training of one fold.
        infer_s: Seconds of the inference of each fine-tuning.
        facts: The number of folds.
        free: When each process is free.
    """
    folds = [fold_s] * facts.n_splits
    # When the last fold of a fine-tuning ends, the other processes are at folds of the next one.
    first = folds[: len(free) - 1]
    steps = list(folds)
    for each_s in infer_s[:-1]:
        steps += [*first, each_s, *folds[len(first) :]]
    return max(_side_by_side(steps, free)) + infer_s[-1]


def _side_by_side(seconds: Iterable[float], free: Sequence[float]) -> list[float]:
    """Return when each process is free after steps that begin in their order, as soon as one is.

    Args:
        seconds: Duration of each step.
        free: When each process is free before.
    """
    ends = sorted(free)
    for each_s in seconds:
        heapq.heapreplace(ends, ends[0] + each_s)
    return ends


def _pretraining(
    left_s: float, per_s: float, facts: Facts, speeds: MachineSpeeds
) -> tuple[int, float]:
    """Return epochs and seconds of a pretraining; 0 and 0 where its share is too short."""
    least, most = PRETRAINING_EPOCHS
    epoch_s = _VIEWS * (facts.n_train + facts.n_test) / per_s + speeds.epoch_s
    epochs = min(most, int(PRETRAINING_SHARE * left_s / epoch_s))
    return (epochs, speeds.start_s + epochs * epoch_s) if epochs >= least else (0, 0.0)


def _made(
    level: Level, members: int, fit: EpochPlan, facts: Facts, speeds: MachineSpeeds
) -> Choice:
    """Return a choice with its reasons."""
    speed = speeds.levels[level.name]
    names = facts.fine_tunings[:members]
    if not names:
        fit = replace(fit, epochs=0, pretraining=0)
    why = {
        f"network {level.name}": f"images of about {facts.side} px, "
        f"{'a GPU' if facts.on_gpu else 'no GPU'}",
        f"numbers {'in mixed precision' if speed.takes_mixed else 'in float32'}": (
            f"{speed.mixed:,.0f} images/s in mixed precision, {speed.full:,.0f} in float32"
        ),
    }
    if not names:
        why["networks none"] = (
            f"{FEWEST_EPOCHS} epochs of {facts.n_fold:,} images in {facts.n_splits} folds do not "
            "fit the time: members without a training only"
        )
    else:
        capped = ", the most that is planned" if fit.epochs == MOST_EPOCHS else ""
        which = " and ".join(names)
        why[f"epochs {fit.epochs} of {which}"] = (
            f"{facts.n_fold:,} images of a fold at {speed.taken:,.0f} images/s, "
            f"{facts.n_splits} folds{capped}"
        )
        if len(names) < len(facts.fine_tunings):
            why[f"members without {' and '.join(facts.fine_tunings[members:])}"] = (
                "two fine-tunings would have too few epochs"
            )
    if fit.pretraining:
        why[f"pretraining {fit.pretraining} epochs"] = "a GPU, and time to see each image so often"
    else:
        why["pretraining none"] = (
            "too little time"
            if facts.on_gpu or not names
            else "without a GPU the time goes to the fine-tunings: on three measured sets, in "
            "equal time, no member with a pretraining was the best one"
        )
    return Choice(**vars(fit), level=level, mixed=speed.takes_mixed, fine_tunings=names, why=why)
