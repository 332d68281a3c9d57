"""The rule that turns a time, facts about the data and measured speeds into a choice of values.

:func:`choose` is a pure function. Its numbers are the constants below, so that they can be changed
after new measurements.
"""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from foldsmith.new.timing.costs import (
    FineTuning,
    end_of_trainings,
    seconds_of_rest,
    seconds_of_start,
    side_by_side,
)
from foldsmith.new.timing.facts import Facts, Level, MachineSpeeds

# Epochs of a fold: no fine-tuning has more, and a larger image size needs at least ENOUGH.
MOST_EPOCHS, ENOUGH_EPOCHS = 500, 60

# A second fine-tuning needs this many epochs for each, or as many as show LEAST_IMAGES to a fold;
# below FEWEST_EPOCHS no fine-tuning is planned.
LEAST_EPOCHS, LEAST_IMAGES, FEWEST_EPOCHS = 20, 20_000, 3

# A pretraining gets this share of the time where it is worth it: on a GPU, from this time on, if
# it sees every image this often.
PRETRAINING_SHARE, PRETRAINING_FROM_S, PRETRAINING_EPOCHS = 0.3, 3600.0, (100, 300)

# Members without a training may take as long as a first fine-tuning with the epochs above, and in
# a longer run this share. The rest of the time is for fine-tunings.
UNTRAINED_SHARE = 0.5

# Larger networks and images are for runs of at least this many seconds.
_LARGER_FROM_S = 3600.0

# Views of an image in each epoch of a pretraining.
_VIEWS = 2

# Part of the time that is planned: the machine may be slower than it was while it was measured.
_PLANNED = 0.97

# Images up to this side keep their size; on a GPU, those from the other one on get others.
SMALL_SIDE, LARGE_SIDE = 40, 128


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
        untrained: The members without a training.
        fine_tunings: The experiments that are fine-tuned.
        why: Each choice, for people -> its reason.
    """

    level: Level
    mixed: bool
    untrained: tuple[str, ...]
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

    More time never gives a smaller image size or fewer fine-tunings and, with the same size,
    members and pretraining or none, never fewer epochs. A larger size or a second fine-tuning
    begins only where enough epochs are left for it. A member without a training is left out only
    if it does not fit beside those before it in the order.

    Args:
        time_s: Seconds that the whole run may take.
        facts: The data.
        speeds: The machine; it has the speed of every level of :func:`levels_of`.
    """
    levels = levels_of(facts, time_s)
    n_fine = len(facts.fine_tunings)
    # A set of many images needs fewer epochs for as many steps.
    least = max(FEWEST_EPOCHS, min(LEAST_EPOCHS, LEAST_IMAGES // facts.n_fold))
    for_untrained_s = _for_untrained_s(time_s, levels[0], least, facts, speeds)
    untrained = _kept(for_untrained_s, facts, speeds)
    # Sizes and fine-tunings are chosen as if the others took their time, too: they would be
    # fewer when one more of them fits.
    reserved = untrained
    if len(untrained.names) < len(facts.untrained):
        reserved_s = max(for_untrained_s, max(untrained.free))
        reserved = _Untrained(facts.untrained, (reserved_s,) * facts.processes)
    enough = max(LEAST_EPOCHS, min(ENOUGH_EPOCHS, ENOUGH_EPOCHS * 1_000 // facts.n_fold))

    def fitting(
        level: Level, members: int, beside: _Untrained = reserved, pretrained: bool = False
    ) -> EpochPlan:
        return _fitting(time_s, level, members, beside, facts, speeds, pretrained)

    fits = [fitting(level, n_fine) for level in levels]
    rank = max((k for k, fit in enumerate(fits) if fit.epochs >= enough), default=0)
    level, members = levels[rank], n_fine
    if fits[rank].epochs < least:
        members = 1
    if fitting(level, members).epochs < FEWEST_EPOCHS:
        members = 0
    pretrained = False
    if facts.on_gpu and time_s >= PRETRAINING_FROM_S and members == n_fine:
        with_pretraining = fitting(level, members, pretrained=True)
        pretrained = bool(with_pretraining.pretraining and with_pretraining.epochs >= enough)
    fit = fitting(level, members, untrained, pretrained)
    return _made(level, members, untrained.names, for_untrained_s, fit, facts, speeds)


@dataclass(frozen=True)
class _Untrained:
    """Members without a training.

    Attributes:
        names: Their names.
        free: Seconds after which each process has fitted its share of them.
    """

    names: tuple[str, ...]
    free: tuple[float, ...]


def _for_untrained_s(
    time_s: float, level: Level, epochs: int, facts: Facts, speeds: MachineSpeeds
) -> float:
    """Return the seconds that the members without a training may take.

    Args:
        time_s: Seconds of the run.
        level: The fastest level.
        epochs: Epochs that make a fine-tuning worth more than these members.
        facts: The data.
        speeds: The machine.
    """
    start_s, rest_s = (
        seconds_of_start(facts, speeds),
        seconds_of_rest(len(facts.untrained + facts.fine_tunings), facts, speeds),
    )
    left_s = max(0.0, _PLANNED * time_s - speeds.spent_s - start_s - rest_s)
    costs = FineTuning.of(level, facts, speeds)
    network_s = end_of_trainings(
        costs.fold_s(epochs), costs.infer_s[:1], facts, [0.0] * facts.processes
    )
    return min(left_s, max(network_s, UNTRAINED_SHARE * left_s))


def _kept(for_s: float, facts: Facts, speeds: MachineSpeeds) -> _Untrained:
    """Return the members without a training that fit some seconds; the first one always."""
    seconds = dict(zip(facts.untrained, speeds.untrained_s, strict=True))
    kept = _beside(facts.untrained[:1], seconds, facts)
    for name in facts.untrained[1:]:
        more = _beside((*kept.names, name), seconds, facts)
        if max(more.free) <= for_s:
            kept = more
    return kept


def _beside(names: tuple[str, ...], seconds: Mapping[str, float], facts: Facts) -> _Untrained:
    """Return members without a training that are fitted side by side, in the order of the names."""
    fits = [seconds[name] for name in sorted(names)]
    free = side_by_side(fits, [0.0] * facts.untrained_processes)
    if facts.untrained_processes != facts.processes:
        free = [max(free)] * facts.processes
    return _Untrained(names, tuple(free))


def _fitting(
    time_s: float,
    level: Level,
    members: int,
    untrained: _Untrained,
    facts: Facts,
    speeds: MachineSpeeds,
    pretrained: bool,
) -> EpochPlan:
    """Return the most epochs of some fine-tunings at a level that fit a time."""
    costs = FineTuning.of(level, facts, speeds)
    infer_s, free = costs.infer_s[:members], untrained.free
    start_s = seconds_of_start(facts, speeds)
    rest_s = seconds_of_rest(len(untrained.names) + members, facts, speeds)
    left_s = _PLANNED * time_s - speeds.spent_s - start_s - rest_s
    pretraining, pretraining_s = 0, 0.0
    if pretrained:
        per_s = speeds.levels[level.name].taken
        pretraining, pretraining_s = _pretraining(left_s - max(free), per_s, facts, speeds)
        left_s -= pretraining_s

    def last_s(epochs: int) -> float:
        return end_of_trainings(costs.fold_s(epochs), infer_s, facts, free)

    epochs = bisect.bisect(range(1, MOST_EPOCHS + 1), left_s, key=last_s) if members else 0
    steps_s = last_s(epochs) if epochs else max(free)
    return EpochPlan(
        *(epochs, pretraining, costs.epoch_s, costs.fold_s(epochs) if epochs else 0.0, infer_s),
        *(pretraining_s, start_s + max(free), rest_s),
        speeds.spent_s + start_s + pretraining_s + steps_s + rest_s,
    )


def _pretraining(
    left_s: float, per_s: float, facts: Facts, speeds: MachineSpeeds
) -> tuple[int, float]:
    """Return epochs and seconds of a pretraining; 0 and 0 where its share is too short."""
    least, most = PRETRAINING_EPOCHS
    epoch_s = _VIEWS * (facts.n_train + facts.n_test) / per_s + speeds.epoch_s
    epochs = min(most, int(PRETRAINING_SHARE * left_s / epoch_s))
    return (epochs, speeds.start_s + epochs * epoch_s) if epochs >= least else (0, 0.0)


def _made(
    level: Level,
    members: int,
    untrained: tuple[str, ...],
    for_untrained_s: float,
    fit: EpochPlan,
    facts: Facts,
    speeds: MachineSpeeds,
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
    left_out = [name for name in facts.untrained if name not in untrained]
    if left_out:
        why[f"members without {' and '.join(left_out)}"] = _why_left_out(
            left_out, for_untrained_s, facts, speeds
        )
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
    return Choice(
        **vars(fit),
        level=level,
        mixed=speed.takes_mixed,
        untrained=untrained,
        fine_tunings=names,
        why=why,
    )


def _why_left_out(names: Sequence[str], for_s: float, facts: Facts, speeds: MachineSpeeds) -> str:
    """Return why members without a training are left out."""
    seconds = dict(zip(facts.untrained, speeds.untrained_s, strict=True))
    each = " and ".join(f"{seconds[name]:,.0f} s" for name in names)
    return (
        f"{each} for {facts.n_train + facts.n_test:,} images; the time has {for_s:,.0f} s for "
        f"members without a training, which are worth it in the order {', '.join(facts.untrained)}"
    )
