"""Times of work that is too long to be tried, from the times of less of it."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from foldsmith.new.timing.extrapolation import continued, seconds_at


class Machine:
    """Work whose seconds are known, and the clock that it moves."""

    def __init__(self, seconds):
        self.seconds, self.now, self.sizes = seconds, 0.0, []

    def prepared(self, size):
        self.sizes.append(size)

        def work():
            self.now += self.seconds(size)

        return work

    def at(self, first, full, for_s):
        return seconds_at(self.prepared, first, full, for_s, clock=lambda: self.now)


@example(0.0, 1e-9, 3, 63, 5, 1.0)
@given(
    st.floats(0, 0.5), st.floats(1e-9, 1e-4), st.sampled_from([1, 2, 3]), st.integers(20, 100),
    st.integers(1, 500), st.floats(0.01, 2),
)  # fmt: skip
def test_powers_of_the_size_are_continued(fixed_s, factor, power, first, times, for_s):
    def seconds(size):
        return fixed_s + factor * size**power

    machine = Machine(seconds)
    small_s, full_s = machine.at(first, first * times, for_s)
    assert small_s == pytest.approx(seconds(first))
    # A lower power within the noise of what was tried is taken.
    tried = machine.sizes
    assert full_s <= 1.01 * seconds(first * times)
    if fixed_s < factor * first**power:
        assert full_s == pytest.approx(seconds(first * times), rel=0.02)
    # Three sizes at least, and then only those that fit.
    assert len(tried) <= 3 or sum(map(seconds, tried)) <= 1.1 * for_s


@given(st.integers(0, 1000), st.integers(1, 8))
def test_noise_is_not_taken_for_a_cube(seed, doublings):
    rng = np.random.default_rng(seed)
    sizes = [50, 100, 200, 400]
    noisy = [(0.3 + 0.002 * size) * (1 + rng.uniform(-0.05, 0.05)) for size in sizes]
    larger = 400 * 2**doublings
    assert continued(sizes, noisy, larger) == pytest.approx(0.3 + 0.002 * larger, rel=0.3)


def test_a_size_within_reach_is_tried():
    machine = Machine(lambda size: 1e-3 * size)
    assert machine.at(60, 1000, 10)[1] == pytest.approx(1.0)
    assert machine.sizes == [60, 120, 240, 480, 960, 1000]
    # The same size is both the first and the full one.
    assert machine.at(60, 60, 10) == pytest.approx((0.06, 0.06))


def test_times_that_do_not_grow_stay():
    assert Machine(lambda size: 0.5).at(10, 10_000, 1)[1] == pytest.approx(0.5)
