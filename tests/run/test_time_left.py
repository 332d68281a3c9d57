"""The time that a run still takes, by the rule with which its steps begin."""

import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldsmith.project import ProjectFolder
from foldsmith.run import slots
from foldsmith.run.plan import plan_of
from foldsmith.run.slots import CoreShares, cards_here
from foldsmith.run.state import Speeds
from foldsmith.run.table import next_members, plan_rows, summary
from foldsmith.run.time_left import duration_of
from foldsmith.steps.status import Status, StepState


def step(label, threads, needs=()):
    settings = SimpleNamespace(device="cpu")
    return SimpleNamespace(
        label=label,
        needs=needs,
        threads=threads,
        kind=SimpleNamespace(computes=True),
        experiment=SimpleNamespace(globals=settings),
    )


@st.composite
def runs(draw):
    steps, seconds = [], {}
    for k in range(draw(st.integers(1, 8))):
        ahead = [f"s{i}" for i in range(k)]
        needs = tuple(draw(st.sets(st.sampled_from(ahead), max_size=2))) if ahead else ()
        steps.append(step(f"s{k}", draw(st.integers(1, 4)), needs))
        seconds[f"s{k}"] = float(draw(st.integers(0, 20)))
    return steps, seconds, draw(st.integers(1, 4))


@given(runs())
def test_laws(run):
    """Not longer than one after another; not shorter than the longest chain, or the cores allow."""
    steps, seconds, cores = run
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots, "cores_here", lambda: cores)
        found = duration_of(steps, seconds, CoreShares(cores))
    chains = {}
    for each in steps:
        ahead = max((chains[label] for label in each.needs), default=0.0)
        chains[each.label] = ahead + seconds[each.label]
    work = sum(seconds[each.label] * min(cores, each.threads) for each in steps)
    assert max(*chains.values(), work / cores) - 1e-9 <= found <= sum(seconds.values())
    assert duration_of(steps, seconds, None) == sum(seconds.values())


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(slots, "cores_here", lambda: 4)
    monkeypatch.setattr(slots, "memory_here", lambda: None)


def lines(small_project, *threads, states=None):
    overrides = ("*:globals/device=cpu", *threads)
    plan = plan_of(ProjectFolder.open(small_project), "exp_config/900.yml", overrides)
    found = {each.label: StepState(Status.TO_DO, "", each.epochs) for each in plan.steps}
    found |= states or {}
    # 90 s a fold of 100, 120 s a fold of 200.
    speeds = Speeds(
        epoch_s={"000": 10.0, "100": 30.0, "200": 60.0},
        step_s={each.label: 0.0 for each in plan.steps},
    )
    rows = {row.label: row.left for row in plan_rows(plan, found, speeds)}
    return summary(plan, found, speeds), list(next_members(plan, found, speeds)), rows


def test_folds_side_by_side_take_the_time_of_one(small_project, four_cores):
    side_by_side = ("000:globals/threads=1", "[12]*:globals/threads=1")
    line, members, rows = lines(small_project, *side_by_side)
    # The pretraining, then four folds at once, of which those of 200 take the longest.
    assert "about 2 min left" in line and rows["train 100 folds 0-1"] == "90 s"
    assert members == ["the next member of 900 is 100: about 2 min"]
    line, members, rows = lines(small_project)
    assert "about 8 min left" in line and rows["train 100 folds 0-1"] == "3 min"


def test_a_running_step_has_its_place(small_project, four_cores):
    threads = ("000:globals/threads=1", "[12]*:globals/threads=2")
    states = {label: StepState(Status.DONE) for label in ("preprocess", "pretrain 000")}
    states["train 200 fold 1"] = StepState(Status.TO_DO, "", 10)
    # 90 s for the folds of 100, and then 10 min.
    assert "about 12 min left" in lines(small_project, *threads, states=states)[0]
    states["train 200 fold 1"] = StepState(Status.RUNNING, "", 10)
    assert "about 10 min left" in lines(small_project, *threads, states=states)[0]


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ["0", "1"]),
        ("", []),
        ("-1", []),
        ("1", ["1"]),
        ("GPU-4f,GPU-77", ["GPU-4f", "GPU-77"]),
    ],
)
def test_gpus_are_counted_without_torch(tmp_path, monkeypatch, visible, names):
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(slots, "_GPUS", tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert cards_here() == names
