import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from foldsmith.targets.class_values import nearest, off_values

numbers = st.lists(st.floats(-1e6, 1e6), max_size=30)


@given(numbers, st.lists(st.integers(-1000, 1000), min_size=2, max_size=30, unique=True))
def test_the_nearest_value_is_as_near_as_any(found, values):
    numbers, values = np.array(found), np.array(values, float)
    apart = np.abs(numbers[:, None] - values)
    positions = nearest(numbers, values)
    np.testing.assert_allclose(
        apart[np.arange(len(numbers)), positions], apart.min(axis=1), atol=1e-9, rtol=0
    )


@given(st.permutations(range(8)), st.floats(1e-6, 1e12), st.floats(-1e6, 1e6))
def test_what_is_a_class_value_depends_on_no_unit(order, scale, shift):
    values = np.array(order) * scale + shift * scale
    assert not off_values(values, values).any()
    assert off_values(values + 0.2 * scale, values).all()
    assert off_values(np.array([np.nan]), values).all()


def test_thousands_of_classes_take_no_matrix():
    values = np.arange(50_000.0)
    # As a matrix of distances these are 37 GiB.
    numbers = np.tile(values, 2) + 0.25
    np.testing.assert_array_equal(nearest(numbers, values), np.tile(np.arange(50_000), 2))
