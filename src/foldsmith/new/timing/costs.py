"""Seconds of the parts of a run, from facts about the data and measured speeds."""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from foldsmith.new.timing.facts import Facts, Level, MachineSpeeds

# An image of a training takes as long as so many that are predicted, in larger batches.
_TRAINING_PASS = 3.5

# Seconds of a step beside its images: the training of a fold begins, draws its curves and ends.
_FOLD_S, _INFER_S = 1.5, 0.5


@dataclass(frozen=True)
class FineTuning:
    """Seconds of the fine-tunings at a level.

    Attributes:
        epoch_s: Seconds of an epoch of a fold.
        validation_s: Seconds of a validation of a fold.
        validations: Validations of a fold at most; None for one each epoch.
        infer_s: Seconds of the inference of each fine-tuning.
    """

    epoch_s: float
    validation_s: float
    validations: int | None
    infer_s: tuple[float, ...]

    @classmethod
    def of(cls, level: Level, facts: Facts, speeds: MachineSpeeds) -> "FineTuning":
        """Return those of the data and the machine."""
        per_s = speeds.levels[level.name].taken
        predicted = facts.n_train + facts.n_splits * facts.n_test
        return cls(
            epoch_s=facts.n_fold / per_s + speeds.epoch_s,
            validation_s=(facts.n_train - facts.n_fold) / (_TRAINING_PASS * per_s),
            validations=facts.validations,
            infer_s=tuple(
                _INFER_S + views * predicted / (_TRAINING_PASS * per_s) for views in facts.views
            ),
        )

    def fold_s(self, epochs: int) -> float:
        """Return the seconds of the training of a fold."""
        validated = min(epochs, self.validations or epochs)
        return _FOLD_S + epochs * self.epoch_s + validated * self.validation_s


def seconds_of_start(facts: Facts, speeds: MachineSpeeds) -> float:
    """Return the seconds until the first member begins."""
    return speeds.start_s + (facts.n_train + facts.n_test) * speeds.preprocess_s


def seconds_of_rest(n_members: int, facts: Facts, speeds: MachineSpeeds) -> float:
    """Return the seconds of blends, simple baselines and reports, with so many members."""
    # The blends between the first and the last one are shorter, and beside other steps.
    between = max(0, n_members - 2) / (2 * facts.processes)
    return (2 + between) * speeds.member_s + speeds.baselines_s


def end_of_trainings(
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
    return max(side_by_side(steps, free)) + infer_s[-1]


def side_by_side(seconds: Iterable[float], free: Sequence[float]) -> list[float]:
    """Return when each process is free after steps that begin in their order, as soon as one is.

    Args:
        seconds: Duration of each step.
        free: When each process is free before.
    """
    ends = sorted(free)
    for each_s in seconds:
        heapq.heapreplace(ends, ends[0] + each_s)
    return ends
