"""The rule that turns a time, facts and speeds into sizes and epochs: laws, whatever they are."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldsmith.new.timing.facts import Facts, MachineSpeeds, Speed
from foldsmith.new.timing.rule import (
    FEWEST_EPOCHS,
    LEAST_EPOCHS,
    MOST_EPOCHS,
    choose,
    levels_of,
)

FACTS = Facts(
    n_train=1297,
    n_test=300,
    side=200,
    longest=240,
    n_splits=5,
    fine_tunings=("410", "420"),
    untrained=("400", "403", "404"),
    on_gpu=False,
    views=(4, 2),
    processes=2,
    untrained_processes=2,
)


def speeds_for(facts, fastest=400.0, mixed=2.0, **others):
    """MachineSpeeds that fall with the work of a level."""
    levels = levels_of(facts, 1e6)
    found = {}
    for level in levels:
        width = {"wrn_16_2": 1, "wrn_16_4": 3.5}.get(level.backbone, 8)
        full = fastest * (levels[0].side / level.side) ** 2 / width
        found[level.name] = Speed(full * mixed, full)
    n_all = facts.n_train + facts.n_test
    untrained_s = [n_all * image_s + 2 for image_s in (0.01, 0.002, 0.02, 0.015)]
    given_s = {
        "preprocess_s": 0.01,
        "untrained_s": tuple(untrained_s[: len(facts.untrained)]),
        "start_s": 5.0,
        "epoch_s": 0.5,
        "member_s": 6.0,
        "baselines_s": 4.0,
        "spent_s": 20.0,
    }
    return MachineSpeeds(found, **(given_s | others))


def times():
    return st.floats(min_value=30, max_value=100_000)


facts_of_any = st.builds(
    Facts,
    n_train=st.integers(20, 50_000),
    n_test=st.integers(0, 50_000),
    side=st.integers(16, 4000),
    longest=st.just(4000),
    n_splits=st.integers(2, 10),
    fine_tunings=st.sampled_from([("410",), ("410", "420")]),
    untrained=st.integers(1, 4).map(lambda n: ("400", "403", "404", "402")[:n]),
    on_gpu=st.booleans(),
    views=st.sampled_from([(2, 4), (4, 2)]),
    processes=st.integers(1, 16),
    untrained_processes=st.integers(1, 3),
)


def rank(choice, facts):
    return [level.name for level in levels_of(facts, 1e6)].index(choice.level.name)


@given(facts_of_any, times(), st.floats(1, 20_000), st.floats(0.3, 3))
def test_the_estimate_is_within_the_time_or_there_is_no_fine_tuning(facts, time, fast, mixed):
    choice = choose(time, facts, speeds_for(facts, fast, mixed))
    assert choice.total_s <= time or not choice.fine_tunings
    assert choice.epochs <= MOST_EPOCHS
    assert choice.epochs >= FEWEST_EPOCHS if choice.fine_tunings else choice.epochs == 0
    assert choice.mixed == (mixed >= 1.1)


def some_seconds():
    """Seconds of members without a training, short or very long."""
    return st.lists(st.floats(0.1, 1000) | st.floats(0.1, 20_000), min_size=4, max_size=4)


@given(facts_of_any, times(), times(), st.floats(1, 20_000), some_seconds())
def test_more_time_never_gives_less(facts, one, other, fast, seconds):
    speeds = speeds_for(facts, fast, untrained_s=tuple(seconds[: len(facts.untrained)]))
    less, more = (choose(time, facts, speeds) for time in sorted((one, other)))
    assert rank(less, facts) <= rank(more, facts)
    assert less.level.side <= more.level.side
    assert len(less.fine_tunings) <= len(more.fine_tunings)

    def alike(choice):
        return choice.level, choice.untrained, choice.fine_tunings, bool(choice.pretraining)

    if alike(less) == alike(more):
        assert less.epochs <= more.epochs
    elif rank(less, facts) < rank(more, facts):
        # A larger size begins only where enough epochs are left.
        assert more.epochs >= LEAST_EPOCHS
    # A member without a training is lost only to a better one.
    kept = [[name in choice.untrained for name in facts.untrained] for choice in (less, more)]
    assert kept[0] <= kept[1]


@given(facts_of_any, times(), st.floats(1, 20_000), some_seconds())
def test_what_does_not_fit_is_left_out_and_named(facts, time, fast, seconds):
    speeds = speeds_for(facts, fast, untrained_s=tuple(seconds[: len(facts.untrained)]))
    choice = choose(time, facts, speeds)
    # The first one always stays, whatever it takes; with others the time is kept.
    assert choice.untrained[0] == "400" and {*choice.untrained} <= {*facts.untrained}
    if choice.untrained != ("400",):
        assert choice.total_s <= time
    left_out = [name for name in facts.untrained if name not in choice.untrained]
    named = [what for what in choice.why if what == f"members without {' and '.join(left_out)}"]
    assert bool(named) == bool(left_out)
    assert all("in the order 400" in choice.why[what] for what in named)


def test_little_time_is_for_the_members_that_are_worth_most():
    facts = replace(FACTS, untrained=("400", "403", "404", "402"))
    speeds = speeds_for(facts, 300)  # 18, 5, 34 and 26 s on two processes; other parts 63 s
    kept = {time: choose(time, facts, speeds).untrained for time in (40, 88, 94, 300)}
    assert kept[40] == ("400",)
    assert kept[88] == ("400", "403")
    # One that fits is not lost with a better one that does not.
    assert kept[94] == ("400", "403", "402")
    assert kept[300] == facts.untrained
    choice = choose(88, facts, speeds)
    [what] = [what for what in choice.why if "404" in what]
    assert what == "members without 404 and 402"
    assert choice.why[what].startswith("34 s and 26 s for 1,597 images; the time has 22 s for ")


@pytest.mark.parametrize(
    ("n_train", "fast", "long_s"), [(1_297, 100, 200.0), (20_000, 300, 4_000.0)]
)
def test_a_member_that_begins_to_fit_costs_no_fine_tuning_and_no_size(n_train, fast, long_s):
    facts = replace(FACTS, n_train=n_train)
    speeds = speeds_for(facts, fast, untrained_s=(20.0, 5.0, long_s))
    choices = [choose(40 * 1.02**k, facts, speeds) for k in range(350)]
    assert choices[0].untrained != choices[-1].untrained == facts.untrained
    for less, more in pairwise(choices):
        assert rank(less, facts) <= rank(more, facts)
        assert len(less.fine_tunings) <= len(more.fine_tunings)


def test_a_member_that_takes_most_of_the_time_leaves_it_to_the_networks():
    many = replace(FACTS, n_train=20_000, n_test=2_000)
    speeds = speeds_for(many, 300, untrained_s=(60.0, 30.0, 4_000.0))
    for hours, kept in ((1, ("400", "403")), (8, many.untrained)):
        choice = choose(3600 * hours, many, speeds)
        assert choice.untrained == kept and choice.fine_tunings


@given(times(), st.floats(10, 5000), st.floats(1.0, 3.0))
def test_a_faster_machine_never_gives_fewer_epochs_at_one_size(time, fast, factor):
    slow = choose(time, FACTS, speeds_for(FACTS, fast))
    quick = choose(time, FACTS, speeds_for(FACTS, fast * factor))
    assert rank(slow, FACTS) <= rank(quick, FACTS)
    if (slow.level, slow.fine_tunings) == (quick.level, quick.fine_tunings):
        assert slow.epochs <= quick.epochs


def test_the_time_is_used():
    """Unless all epochs that are planned at most are reached, little of it is left."""
    for minutes in (5, 15, 60):
        choice = choose(60 * minutes, FACTS, speeds_for(FACTS, 300))
        assert 0.93 * 60 * minutes < choice.total_s <= 60 * minutes


def test_the_time_of_the_measurement_is_part_of_it():
    speeds = speeds_for(FACTS, 300)
    with_it = choose(900, FACTS, speeds)
    without = choose(900, FACTS, replace(speeds, spent_s=0.0))
    assert with_it.epochs < without.epochs
    assert choose(880, FACTS, replace(speeds, spent_s=0.0)).epochs == pytest.approx(
        with_it.epochs, abs=1
    )


def simulated_s(choice, facts, speeds):
    """Seconds of a run whose engine gives the first step that is ready to each free process."""
    now = speeds.start_s + (facts.n_train + facts.n_test) * speeds.preprocess_s
    seconds = dict(zip(facts.untrained, speeds.untrained_s, strict=True))
    fits = {f"fit {name}": seconds[name] for name in sorted(choice.untrained)}
    waiting, needs = dict(fits), {}
    for name, infer_s in zip(choice.fine_tunings, choice.infer_s, strict=True):
        folds = [f"train {name} {fold}" for fold in range(facts.n_splits)]
        waiting |= dict.fromkeys(folds, choice.fold_s) | {f"infer {name}": infer_s}
        needs[f"infer {name}"] = folds
    running, done = {}, set()
    while waiting or running:
        for name in list(waiting):
            if len(running) < facts.processes and set(needs.get(name, ())) <= done:
                running[name] = now + waiting.pop(name)
        first = min(running, key=running.__getitem__)
        now = running.pop(first)
        done.add(first)
    return now


@given(
    st.integers(2, 8), st.sampled_from([("410",), ("410", "420")]), st.integers(1, 5),
    st.floats(0, 300), st.integers(0, 5000), st.floats(300, 5000),
)  # fmt: skip
def test_the_total_is_that_of_the_engine(n_splits, names, processes, fit_s, n_test, time):
    facts = replace(
        FACTS,
        n_splits=n_splits,
        fine_tunings=names,
        n_test=n_test,
        processes=processes,
        untrained_processes=processes,
    )
    speeds = speeds_for(facts, 300, untrained_s=(fit_s, 2.0, fit_s / 3))
    choice = choose(time, facts, speeds)
    trained_s = choice.total_s - choice.rest_s - speeds.spent_s
    engine_s = simulated_s(choice, facts, speeds)
    # A step more or less beside the last fold of a fine-tuning.
    assert abs(trained_s - engine_s) <= max(choice.infer_s, default=0.0) + 1e-6


def test_a_short_run_has_one_fine_tuning_or_none():
    speeds = speeds_for(FACTS, 100)
    assert choose(3600, FACTS, speeds).fine_tunings == ("410", "420")
    short = choose(500, FACTS, speeds)
    assert short.fine_tunings == ("410",)
    assert any("420" in what for what in short.why)
    assert choose(60, FACTS, speeds).fine_tunings == ()
    # The reason for no pretraining names the fine-tunings only where there are some.
    assert "fine-tunings" in short.why["pretraining none"]
    assert choose(60, FACTS, speeds).why["pretraining none"] == "too little time"


def test_folds_that_run_side_by_side_get_more_epochs():
    alone = choose(900, replace(FACTS, processes=1), speeds_for(FACTS))
    beside = choose(900, replace(FACTS, processes=2), speeds_for(FACTS))
    assert 1.8 * alone.epochs <= beside.epochs <= 2.3 * alone.epochs


def test_sizes_follow_the_images_and_the_time():
    small = replace(FACTS, side=32)
    assert choose(900, small, speeds_for(small)).level.side == 32
    assert dict(choose(900, small, speeds_for(small)).level.options) == {"stem_stride": 1}
    assert choose(900, FACTS, speeds_for(FACTS)).level.side == 64
    assert choose(8 * 3600, FACTS, speeds_for(FACTS)).level.side == 96
    card = replace(FACTS, on_gpu=True, processes=1)
    assert choose(8 * 3600, card, speeds_for(card, 9000)).level.backbone == "resnet34d"


def test_a_pretraining_needs_a_gpu_and_time():
    card = replace(FACTS, on_gpu=True, processes=1)
    fast = speeds_for(card, 20_000)
    assert choose(3600, card, fast).pretraining >= 100
    assert not choose(900, card, fast).pretraining
    assert not choose(8 * 3600, FACTS, speeds_for(FACTS, 20_000)).pretraining
