"""What the choice of a blend costs, on simulated members whose score on new images is known.

    python benchmarks/selection.py --metric RMSE

A problem has 200 to 2,500 labelled images in groups, the out-of-fold predictions of 3 to 12
members, and 4,000 new images of the same kind. All blends are fitted, cross-fitted and compared as
an ensemble does it. The regret of a rule is how much worse its choice is on the new images than the
best single blend there, in % of that one's score. Nobody can know that blend, so that every rule
has a regret.

Members see some of six hidden signals and noise, a part of which is common to all, and predict what
these lead to expect. In one respect they are networks: a fifth to half of their own noise belongs
to the fold's model, and averages out over new images, which all models predict.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable
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
FOLDS, SIGNALS, N_NEW = 5, 6, 4000
SIZES = {"RMSE": (200, 800, 2500), "Accuracy": (200, 800), "LogLoss": (200, 800)}
EVERYWHERE = ("equal", "strong and weak", "strong and useless", "many weak", "miscalibrated")
KINDS = {
    "RMSE": (*EVERYWHERE, "complementary", "nonlinear", "hardly learnable", "by image"),
    "Accuracy": EVERYWHERE,
    "LogLoss": EVERYWHERE,
}


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
    """

    sees: Array
    own: float
    of_fold: float = 0.3
    stretch: float = 1.0
    shift: float = 0.0
    saturation: float = 0.0


@dataclass(frozen=True)
class Population:
    """What labelled and new images are drawn from.

    Attributes:
        signal: Weight of each signal in the target, of length 1.
        noise: Standard deviation of what no member can see.
        group_size: Images in a group.
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
        case "by image":
            found = replace(found, by_image=some(0.5, 1.5))
            add((3, 6), (0.3, 0.6), 0.2)
    return found


class Images:
    """Images of a population: their groups, and fields of numbers that groups share in part."""

    def __init__(self, of: Population, rng: np.random.Generator, n: int, new: bool) -> None:
        drawn = np.sort(rng.integers(0, max(10, n // of.group_size), n))
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
        predictions.append(member.stretch * seen + member.shift)
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


def problem(name: str, kind: str, n: int, seed: int) -> tuple[Drawn, Drawn]:
    """Return labelled and new images of a population."""
    rng = np.random.default_rng([seed, n, *map(ord, name + kind)])
    of = population(kind, rng)
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
    """

    all: list[ComparedBlend]
    metric: Metric

    @property
    def single(self) -> list[ComparedBlend]:
        """The blends with an honest score, without the mean of the best."""
        return [c for c in self.all if c.name != MEAN_OF_BEST and c.honest is not None]

    def recommended(self) -> str:
        """Return foldsmith's choice."""
        return recommend(self.all, BASELINE, self.metric)[0]

    def simplest(self) -> str:
        """Return the least complex blend within noise of the best."""
        return min(within_noise(self.single, self.metric), key=lambda c: c.complexity).name

    def best(self) -> str:
        """Return the best blend out of fold."""
        return within_noise(self.single, self.metric)[0].name


RULES: dict[str, Callable[[Compared], str]] = {
    "the mean of the best and those within noise (foldsmith)": Compared.recommended,
    "the simplest within noise of the best": Compared.simplest,
    "the best out of fold": Compared.best,
    "always the best member": lambda _: "best",
    "always the plain mean": lambda _: BASELINE,
    "always simplex": lambda _: OPTIMISED,
    "always box": lambda _: "box",
    "always the stack": lambda _: "stack",
}


def regrets(name: str, kind: str, n: int, seed: int) -> dict[str, float]:
    """Return the regret of each rule in a problem, in %."""
    labelled, new = problem(name, kind, n, seed)
    n_groups = int(labelled.groups.max()) + 1
    folds = np.random.default_rng(seed).permutation(n_groups)[labelled.groups] % FOLDS
    tasks = (["descriptors", "frozen-features"] + ["reg", "hl-gauss"] * 8)[
        : len(labelled.rows.predictions)
    ]
    compared = compare(
        *(candidates_of(tasks, SETTINGS, labelled.goal, 0), BASELINE, labelled.goal),
        *(labelled.rows, labelled.targets, folds, labelled.groups, 0),
    )
    found = Compared(compared, labelled.goal.metric)
    gain = found.metric.gain
    score = {c.name: found.metric(c.fitted.predict(new.rows), new.targets) for c in compared}
    best = max((score[c.name] for c in found.single), key=lambda value: gain(value, 0.0))
    return {rule: 100 * gain(best, score[choose(found)]) / best for rule, choose in RULES.items()}


def main() -> None:
    """Print a table for one metric."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--metric", choices=list(KINDS), default="RMSE")
    parser.add_argument("--seeds", type=int, default=8)
    arguments = parser.parse_args()
    kinds, sizes = KINDS[arguments.metric], SIZES[arguments.metric]
    found = defaultdict(list)
    for seed in range(arguments.seeds):
        for n in sizes:
            for kind in kinds:
                for rule, value in regrets(arguments.metric, kind, n, seed).items():
                    found[rule].append(value)
    shape = (arguments.seeds, len(sizes), len(kinds))
    values = {rule: np.array(each).reshape(shape) for rule, each in found.items()}
    count = int(np.prod(shape))
    print(f"{arguments.metric}: regret in %, {count} problems ({', '.join(kinds)})")
    print(f"| rule | mean | {' | '.join(f'{n} images' for n in sizes)} | worst tenth |")
    print("|---" * (len(sizes) + 3) + "|")
    for rule, each in values.items():
        error = each.std() / np.sqrt(count)
        by_size = " | ".join(f"{value:.2f}" for value in each.mean(axis=(0, 2)))
        tenth = np.quantile(each, 0.9)
        print(f"| {rule} | {each.mean():.2f} ± {error:.2f} | {by_size} | {tenth:.2f} |")
    ours, former = list(values.values())[:2]
    less = former - ours
    print(
        f"the mean is better than the simplest by {less.mean():.2f} ± {less.std() / count**0.5:.2f}"
    )
    for k, kind in enumerate(kinds):
        row = ", ".join(f"{each[:, :, k].mean():.2f}" for each in list(values.values())[:3])
        print(f"{kind}: {row}")


if __name__ == "__main__":
    main()
