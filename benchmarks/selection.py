"""What the choice of a blend costs, on simulated members whose score on new images is known.

    python benchmarks/selection.py --metric RMSE
    python benchmarks/selection.py --metric RMSE --few-groups

A problem has 200 to 2,500 labelled images in groups, the out-of-fold predictions of 3 to 12
members, and 4,000 new images of the same kind. All blends are fitted, cross-fitted and compared as
an ensemble does it. The regret of a rule is how much worse its choice is on the new images than the
best single blend there, in % of that one's score. Nobody can know that blend, so that every rule
has a regret.

Members see some of six hidden signals and noise, a part of which is common to all, and predict what
these lead to expect. In one respect they are networks: a fifth to half of their own noise belongs
to the fold's model, and averages out over new images, which all models predict.

With `--few-groups`, the labelled images are 10 or 40 of each of 3 to 100 groups, and the new ones
are of other groups. Some members exaggerate there, and some are far off for a tenth of the groups.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from foldsmith.blending.base import Goal, Rows
from foldsmith.blending.candidates import BASELINE, OPTIMISED, candidates_of
from foldsmith.blending.comparison import (
    MEAN_OF_BEST,
    ComparedBlend,
    compare,
    recommend,
    within_noise,
)
from foldsmith.config import EnsembleSettings
from foldsmith.project.column_forms import Classes, OneNumber
from foldsmith.targets.metrics import Metric, metric_named

Array = npt.NDArray[np.float64]
Groups = npt.NDArray[np.int64]

SETTINGS = EnsembleSettings(experiments=["simulated"], method="simplex")
# With few groups, without the blends that take most of the time: box, greedy and the stack.
QUICK = SETTINGS.model_copy(update={"methods": ["mean", "best", "simplex", "nnls", "ridge"]})
FOLDS, SIGNALS, N_NEW = 5, 6, 4000
SIZES = {"RMSE": (200, 800, 2500), "Accuracy": (200, 800), "LogLoss": (200, 800)}
GROUPS, GROUP_SIZES = (3, 5, 8, 20, 100), (10, 40)
EVERYWHERE = ("equal", "strong and weak", "strong and useless", "many weak", "miscalibrated")
KINDS = {
    "RMSE": (*EVERYWHERE, "complementary", "nonlinear", "hardly learnable", "by image"),
    "Accuracy": EVERYWHERE,
    "LogLoss": EVERYWHERE,
}
# With few groups, too: members that exaggerate, and for numbers some that are far off.
IN_FEW_GROUPS = {name: (*EVERYWHERE, "exaggerating") for name in KINDS}
IN_FEW_GROUPS["RMSE"] += ("far off in some groups",)


@dataclass(frozen=True)
class Member:
    """A member: what it sees, and how it errs.

    Attributes:
        sees: Weight of each signal, shape (SIGNALS,).
        own: Standard deviation of its own noise.
        of_fold: Share of that noise which belongs to the fold's model.
        stretch: Factor of its predictions, 1 if it is calibrated.
        shift: Added to them.
        saturation: How far they bend at both ends; 0 for not at all.
        far_off: By how much they are wrong in a tenth of the groups.
    """

    sees: Array
    own: float
    of_fold: float = 0.3
    stretch: float = 1.0
    shift: float = 0.0
    saturation: float = 0.0
    far_off: float = 0.0


@dataclass(frozen=True)
class Population:
    """What labelled and new images are drawn from.

    Attributes:
        signal: Weight of each signal in the target, of length 1.
        noise: Standard deviation of what no member can see.
        group_size: Images in a group, on average.
        n_groups: Groups of the labelled images; None for as many as fit.
        group_share: Share of the variance that images of a group have in common.
        common: Standard deviation of the noise that all members share.
        members: The members.
        curve: Share of the signal's square in the target.
        by_image: How strongly a member's noise depends on facts of the image that are known.
    """

    signal: Array
    noise: float
    group_size: int
    group_share: float
    common: float
    members: list[Member] = field(default_factory=list)
    curve: float = 0.0
    by_image: float = 0.0
    n_groups: int | None = None


def population(kind: str, rng: np.random.Generator) -> Population:
    """Draw a population of a kind."""
    signal = np.abs(rng.normal(size=SIGNALS)) + 0.2
    signal /= np.linalg.norm(signal)
    size = int(rng.choice([1, 1, 3, 8]))
    found = Population(
        signal, rng.uniform(0.3, 1.2), size, rng.uniform(0.2, 0.7), rng.uniform(0.1, 0.5)
    )

    def some(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    def add(n: tuple[int, int], own: tuple[float, float], blind: float, **how: object) -> None:
        """Add some members, which do not see a share of the signals."""
        for _ in range(rng.integers(*n)):
            sees = signal * (rng.uniform(size=SIGNALS) > blind)
            if not sees.any():
                sees[rng.integers(SIGNALS)] = signal.max()
            drawn = {name: some(*v) if isinstance(v, tuple) else v for name, v in how.items()}
            found.members.append(Member(sees, some(*own), **drawn))

    match kind:
        case "equal":
            add((3, 7), (0.5, 0.7), 0.0)
        case "strong and weak":
            add((1, 2), (0.2, 0.5), 0.0, of_fold=0.2)
            add((2, 5), (0.8, 2.0), 0.3)
        case "strong and useless":
            add((1, 2), (0.2, 0.5), 0.0, of_fold=0.2)
            add((3, 6), (3.0, 6.0), 0.5)
        case "many weak":
            add((8, 13), (0.8, 1.6), 0.5)
        case "complementary":
            half = np.arange(SIGNALS) % 2
            found.members.extend(Member(signal * k, some(0.3, 0.6)) for k in (half, 1 - half))
            add((1, 2), (0.8, 1.4), 0.4)
        case "nonlinear":
            found = replace(found, curve=some(0.4, 1.0))
            add((3, 6), (0.4, 0.9), 0.2, saturation=(0.5, 1.5), shift=(-0.4, 0.4))
        case "hardly learnable":
            found = replace(found, noise=some(2.0, 3.0))
            add((1, 2), (0.3, 0.6), 0.0, of_fold=0.2)
            add((2, 5), (0.5, 1.5), 0.2, of_fold=0.5)
        case "miscalibrated":
            add((3, 6), (0.4, 0.9), 0.2, stretch=(0.3, 1.6), shift=(-0.4, 0.4))
        case "exaggerating":
            add((1, 3), (0.4, 0.9), 0.0)
            add((2, 4), (0.8, 2.0), 0.2, stretch=(1.5, 4.0))
        case "far off in some groups":
            add((2, 4), (0.4, 0.9), 0.2)
            add((1, 3), (0.4, 0.9), 0.2, far_off=(2.0, 20.0))
        case "by image":
            found = replace(found, by_image=some(0.5, 1.5))
            add((3, 6), (0.3, 0.6), 0.2)
    return found


class Images:
    """Images of a population: their groups, and fields of numbers that groups share in part."""

    def __init__(self, of: Population, rng: np.random.Generator, n: int, new: bool) -> None:
        n_groups = max(10, n // of.group_size) if new or of.n_groups is None else of.n_groups
        drawn = np.sort(rng.integers(0, n_groups, n))
        self.groups: Groups = np.unique(drawn, return_inverse=True)[1].astype(np.int64)
        self._of, self._rng, self._new = of, rng, new

    def numbers(self, *shape: int, share: float) -> Array:
        """Return standard normal numbers, shape (*shape, n), which groups share in part."""
        n = len(self.groups)
        common = self._rng.normal(size=(*shape, self.groups.max() + 1))[..., self.groups]
        own = self._rng.normal(size=(*shape, n))
        result: Array = np.sqrt(share) * common + np.sqrt(1 - share) * own
        return result

    def noise(self, member: Member, *shape: int) -> Array:
        """Return a member's own noise; the part of the fold's model averages out on new images."""
        own, of_model = self.numbers(2, *shape, share=0.3)
        of_model = of_model / (np.sqrt(FOLDS) if self._new else 1)
        result: Array = member.own * (
            np.sqrt(1 - member.of_fold) * own + np.sqrt(member.of_fold) * of_model
        )
        return result

    def far_off(self) -> Array:
        """Return -1 or 1 for the images of a tenth of the groups, else 0, shape (n,)."""
        n_groups = self.groups.max() + 1
        signs = self._rng.choice([-1.0, 1.0], n_groups) * (self._rng.random(n_groups) < 0.1)
        result: Array = signs[self.groups]
        return result

    def seen(self, member: Member, signals: Array, common: Array, noise: Array) -> Array:
        """Return what a member sees, scaled to what it leads to expect of the signal."""
        of, sees = self._of, member.sees
        variance = sees @ sees + member.own**2 + of.common**2
        x = np.tensordot(sees, signals, 1) + noise + of.common * common
        expected: Array = (sees @ of.signal) / variance * x
        return expected


def numbers_of(of: Population, rng: np.random.Generator, n: int, new: bool) -> "Drawn":
    """Draw images with a number as their target."""
    images = Images(of, rng, n, new)
    signals = images.numbers(SIGNALS, share=of.group_share)
    signal = of.signal @ signals
    unseen = images.numbers(share=of.group_share)
    targets = signal + 0.7 * of.curve * (signal**2 - 1) + of.noise * unseen
    common, facts = images.numbers(share=0.3), images.numbers(4, share=0.5)
    predictions = []
    for k, member in enumerate(of.members):
        noise = images.noise(member) * np.exp(of.by_image * facts[k % 4] * (-1) ** k)
        seen = images.seen(member, signals, common, noise)
        if member.saturation:
            seen = np.tanh(2 * seen * member.saturation) / member.saturation / 2
        off = member.far_off * images.far_off() if member.far_off else 0.0
        predictions.append(member.stretch * seen + member.shift + off)
    end = 3.5 * np.sqrt(1 + of.noise**2)
    goal = Goal(metric_named("RMSE"), OneNumber("target", (-end, end)))
    clipped = np.clip(predictions, -end, end)
    return Drawn(goal, Rows(clipped, facts.T), np.clip(targets, -end, end), images.groups)


def classes_of(
    of: Population, rng: np.random.Generator, n: int, new: bool, metric: Metric
) -> "Drawn":
    """Draw images with a class as their target: the members give probabilities."""
    values, images = metric.class_values, Images(of, rng, n, new)
    signals = images.numbers(SIGNALS, len(values), share=of.group_share)
    # The less noise there is, the clearer are the classes.
    clear = 2.5 / (1 + of.noise)
    chance = rng.gumbel(size=(len(values), n))
    targets = (clear * np.tensordot(of.signal, signals, 1) + chance).argmax(axis=0)
    common, facts = images.numbers(len(values), share=0.3), images.numbers(4, share=0.5)
    predictions = []
    for member in of.members:
        noise = images.noise(member, len(values))
        logits = member.stretch * clear * images.seen(member, signals, common, noise)
        odds = np.exp(logits - logits.max(axis=0))
        predictions.append((odds / odds.sum(axis=0)).T)
    goal = Goal(
        metric,
        Classes(
            "target",
            (0.0, len(values) - 1.0),
            values,
            tuple(f"class {v:g}" for v in values),
        ),
    )
    rows = Rows(np.array(predictions), facts.T)
    return Drawn(goal, rows, targets.astype(np.float64), images.groups)


@dataclass(frozen=True)
class Drawn:
    """Images with targets, and the members' predictions of them."""

    goal: Goal
    rows: Rows
    targets: Array
    groups: Groups


def problem(
    name: str, kind: str, n: int, seed: int, n_groups: int | None = None
) -> tuple[Drawn, Drawn]:
    """Return labelled and new images of a population.

    Args:
        name: The metric.
        kind: The kind of population.
        n: Number of labelled images.
        seed: Seed of everything.
        n_groups: Number of their groups; None to draw it.
    """
    rng = np.random.default_rng(
        [seed, n, *map(ord, name + kind), *([n_groups] if n_groups else [])]
    )
    of = population(kind, rng)
    if n_groups is not None:
        of = replace(of, n_groups=n_groups, group_size=8)
    if name == "RMSE":
        return numbers_of(of, rng, n, False), numbers_of(of, rng, N_NEW, True)
    classes = [float(k) for k in range(rng.choice([3, 5, 10]))]
    metric = metric_named(name).for_classes(classes, unordered=True)
    return classes_of(of, rng, n, False, metric), classes_of(of, rng, N_NEW, True, metric)


@dataclass(frozen=True)
class Compared:
    """Blends that were compared.

    Attributes:
        all: The blends, and the mean of the best if there is one.
        metric: The metric.
        n_groups: Number of groups of the labelled images.
    """

    all: list[ComparedBlend]
    metric: Metric
    n_groups: int

    @property
    def single(self) -> list[ComparedBlend]:
        """The blends with an honest score, without the mean of the best."""
        return [c for c in self.all if c.name != MEAN_OF_BEST and c.honest is not None]

    def recommended(self) -> list[str]:
        """Return foldsmith's choice."""
        return [recommend(self.all, BASELINE, self.metric)[0]]

    def within(self, errors: float = 1.0) -> list[str]:
        """Return the best blend and those within so many standard errors."""
        # Noise is one standard error of the resampled scores: spread them by so many.
        spread = [
            replace(c, resampled=c.honest.score + errors * (c.resampled - c.honest.score))
            for c in self.single
        ]
        return [c.name for c in within_noise(spread, self.metric)]

    def within_more(self) -> list[str]:
        """Return the best blend and those within more standard errors if groups are few."""
        return self.within(1 + 5 / self.n_groups)

    def with_plain_mean(self) -> list[str]:
        """Return those within one, and the plain mean in any case if there are few groups."""
        within = self.within()
        return list(dict.fromkeys([*within, BASELINE])) if self.n_groups < 10 else within

    def simplest(self) -> list[str]:
        """Return the least complex blend within noise of the best."""
        within = within_noise(self.single, self.metric)
        return [min(within, key=lambda c: c.complexity).name]

    def best(self) -> list[str]:
        """Return the best blend out of fold."""
        return self.within()[:1]


# From compared blends to the names of those whose mean is submitted.
RULES: dict[str, Callable[[Compared], Sequence[str]]] = {
    "the mean of the best and those within noise (foldsmith)": Compared.recommended,
    "the same, noise of 1 + 5 / groups standard errors": Compared.within_more,
    "the same, and the plain mean if there are fewer than ten groups": Compared.with_plain_mean,
    "the simplest within noise of the best": Compared.simplest,
    "the best out of fold": Compared.best,
    "always the best member": lambda _: ["best"],
    "always the plain mean": lambda _: [BASELINE],
    "always simplex": lambda _: [OPTIMISED],
    "always box": lambda _: ["box"],
    "always the stack": lambda _: ["stack"],
}


def regrets(name: str, kind: str, n: int, seed: int, groups: int | None = None) -> dict[str, float]:
    """Return the regret of each rule in a problem, in %; arguments as for :func:`problem`."""
    labelled, new = problem(name, kind, n, seed, groups)
    n_groups = int(labelled.groups.max()) + 1
    folds = np.random.default_rng(seed).permutation(n_groups)[labelled.groups] % FOLDS
    tasks = (["descriptors", "frozen-features"] + ["reg", "hl-gauss"] * 8)[
        : len(labelled.rows.predictions)
    ]
    compared = compare(
        *(candidates_of(tasks, QUICK if groups else SETTINGS, labelled.goal, 0), BASELINE),
        labelled.goal,
        *(labelled.rows, labelled.targets, folds, labelled.groups, 0),
    )
    found = Compared(compared, labelled.goal.metric, n_groups)
    gain = found.metric.gain
    predicted = {c.name: c.fitted.predict(new.rows) for c in compared}

    def score(names: Sequence[str]) -> float:
        return found.metric(np.mean([predicted[each] for each in names], axis=0), new.targets)

    best = max((score([c.name]) for c in found.single), key=lambda value: gain(value, 0.0))
    chosen = {rule: choose(found) for rule, choose in RULES.items()}
    return {
        rule: 100 * gain(best, score(names)) / best
        for rule, names in chosen.items()
        if predicted.keys() >= set(names)
    }


def main() -> None:
    """Print a table for one metric."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metric", choices=list(KINDS), default="RMSE")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--few-groups", action="store_true")
    arguments = parser.parse_args()
    name = arguments.metric
    kinds = IN_FEW_GROUPS[name] if arguments.few_groups else KINDS[name]
    # Heading of a column of the table -> its problems: number of images, of groups.
    columns: dict[str, list[tuple[int, int | None]]] = {
        f"{n} images": [(n, None)] for n in SIZES[name]
    }
    if arguments.few_groups:
        columns = {f"{k} groups": [(k * size, k) for size in GROUP_SIZES] for k in GROUPS}
    found = defaultdict(list)
    for seed in range(arguments.seeds):
        for cases in columns.values():
            for n, n_groups in cases:
                for kind in kinds:
                    for rule, value in regrets(name, kind, n, seed, n_groups).items():
                        found[rule].append(value)
    per_column = len(next(iter(columns.values())))
    shape = (arguments.seeds, len(columns), per_column, len(kinds))
    values = {rule: np.array(each).reshape(shape) for rule, each in found.items()}
    count = int(np.prod(shape))
    print(f"{name}: regret in %, {count} problems ({', '.join(kinds)})")
    print(f"| rule | mean | {' | '.join(columns)} | worst tenth |")
    print("|---" * (len(columns) + 3) + "|")
    ours = next(iter(values.values()))
    for rule, each in values.items():
        error, tenth = each.std() / np.sqrt(count), np.quantile(each, 0.9)
        by_column = " | ".join(f"{value:.2f}" for value in each.mean(axis=(0, 2, 3)))
        print(f"| {rule} | {each.mean():.2f} ± {error:.2f} | {by_column} | {tenth:.2f} |")
    for rule, each in values.items():
        less = each - ours
        print(f"more than foldsmith: {rule}: {less.mean():.2f} ± {less.std() / count**0.5:.2f}")
    for k, kind in enumerate(kinds):
        row = ", ".join(f"{each[..., k].mean():.2f}" for each in list(values.values())[:4])
        print(f"{kind}: {row}")


if __name__ == "__main__":
    main()
