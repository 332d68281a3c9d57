"""The recommendation on simulated members whose true loss is known."""

import numpy as np
import pytest

from foldsmith.blending.base import Goal, Rows
from foldsmith.blending.candidates import BASELINE, candidates_of
from foldsmith.blending.comparison import MEAN_OF_BEST, compare, recommend, within_noise
from foldsmith.config import EnsembleSettings
from foldsmith.project.column_forms import OneNumber
from foldsmith.targets.metrics import RMSE

RANGE = (-4.0, 4.0)
TASKS = ["reg", "reg", "hl-gauss", "hl-gauss"]
SETTINGS = EnsembleSettings(
    experiments=["a"],
    method="simplex",
    methods=["mean", "best", "simplex", "ridge", "nnls"],
    calibrate="isotonic",
)
N_LABELLED, N_NEW, PROBLEMS = 300, 4000, 5


def members(rng, n, kind):
    """Targets, and predictions as networks make them: shrunk by their own noise."""
    signal, common = rng.normal(size=(2, n))
    targets = signal + 0.5 * rng.normal(size=n)

    def member(own=0.6, shared=0.4):
        seen = signal + shared * common + own * rng.normal(size=n)
        return seen / (1 + own**2 + shared**2)

    made = {
        "equal": lambda: [member() for _ in range(4)],
        "one terrible": lambda: [member(), member(), member(), 1.5 + 4 * rng.normal(size=n)],
        "one knows nothing": lambda: [member(), member(), member(), 0.1 * rng.normal(size=n)],
        "one dominates": lambda: [member(0.3, 0.2), member(1.2), member(1.3), member(1.4)],
        "calibration helps": lambda: [0.35 * member(0.5, 0.3) - 0.5 for _ in range(4)],
    }[kind]()
    return np.clip(made, *RANGE), np.clip(targets, *RANGE)


def problem(kind, seed):
    """What was compared on labelled rows, and the true RMSE of every candidate and the raw mean."""
    rng = np.random.default_rng(seed)
    predictions, targets = members(rng, N_LABELLED, kind)
    new, truth = members(rng, N_NEW, kind)
    goal = Goal(RMSE, OneNumber("target", RANGE))
    rows = Rows(predictions, np.empty((N_LABELLED, 0)))
    number = np.arange(N_LABELLED)
    candidates = candidates_of(TASKS, SETTINGS, goal, 0)
    found = compare(candidates, BASELINE, goal, rows, targets, number % 5, number // 2, 0)
    new_rows = Rows(new, np.empty((N_NEW, 0)))
    loss = {c.name: RMSE(c.fitted.predict(new_rows), truth) for c in found}
    return found, loss, RMSE(new.mean(axis=0), truth)


def recommended(found):
    return recommend(found, BASELINE, RMSE)[0]


def simplest(found):
    """The least complex blend within noise of the best, a rule that had to be better."""
    single = [one for one in found if one.name != MEAN_OF_BEST]
    return min(within_noise(single, RMSE), key=lambda one: one.complexity).name


def losses(problems, rule=recommended):
    """Mean true loss of what a rule chooses, of the best single blend and of the raw mean."""
    chosen = [loss[rule(found)] for found, loss, _ in problems]
    best = [min(v for name, v in loss.items() if name != MEAN_OF_BEST) for _, loss, _ in problems]
    return np.mean(chosen), np.mean(best), np.mean([raw for *_, raw in problems])


@pytest.fixture(scope="module")
def problems():
    kinds = ("equal", "one terrible", "one knows nothing", "one dominates", "calibration helps")
    return {kind: [problem(kind, seed) for seed in range(PROBLEMS)] for kind in kinds}


# By how much the mean true loss may exceed that of the best single blend, which nobody can know,
# and how much of the loss of the mean of all members must be saved.
@pytest.mark.parametrize(
    ("kind", "regret", "saved"),
    [
        ("equal", 0.02, -0.01),
        ("one terrible", 0.02, 0.2),
        ("one knows nothing", 0.025, 0.03),
        ("one dominates", 0.02, 0.15),
        ("calibration helps", 0.01, 0.3),
    ],
)
def test_the_regret_of_the_rule(problems, kind, regret, saved):
    chosen, best, raw_mean = losses(problems[kind])
    assert chosen <= best * (1 + regret), (chosen, best)
    assert chosen <= raw_mean * (1 - saved), (chosen, raw_mean)


@pytest.mark.parametrize(
    ("rule", "share"),
    [(simplest, 1.0), (lambda _: "best", 0.5), (lambda _: BASELINE, 0.5), (lambda _: "nnls", 0.7)],
)
def test_other_rules_cost_more(problems, rule, share):
    """``benchmarks/selection.py`` has more problems, and docs/stages.md its table."""
    every = [one for found in problems.values() for one in found]
    chosen, best, _ = losses(every)
    others, _, _ = losses(every, rule)
    assert chosen - best <= share * (others - best), (chosen, others, best)
