import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foldsmith.data.epoch_order import balanced_order, epoch_order, of_stream_epoch, stream_epoch
from foldsmith.data.loader import EpochBatchSampler, ImageLoader
from foldsmith.errors import ConfigError

SIZES = st.integers(1, 2000)
SMALL = st.integers(0, 2**31)


@given(SIZES, SMALL, SMALL, st.none() | st.integers(1, 3000))
def test_every_image_comes_once_and_the_arguments_alone_decide(n, seed, epoch, window):
    order = epoch_order(n, seed, epoch, window)
    assert sorted(order.tolist()) == list(range(n))
    np.testing.assert_array_equal(order, epoch_order(n, seed, epoch, window))


@given(SIZES, SMALL, SMALL, st.integers(0, 3000))
def test_without_a_window_it_is_what_it_always_was(n, seed, epoch, more):
    before = np.random.default_rng([seed, epoch]).permutation(n)
    np.testing.assert_array_equal(epoch_order(n, seed, epoch), before)
    # A window that holds all images is none.
    np.testing.assert_array_equal(epoch_order(n, seed, epoch, n + more), before)


@given(st.integers(500, 3000), SMALL, SMALL, st.integers(32, 400))
def test_what_is_read_at_a_time_lies_in_few_stretches(n, seed, epoch, window):
    order = epoch_order(n, seed, epoch, window)
    run = window // 16
    for start in range(0, n, 97):
        taken = np.sort(order[start : start + window])
        # Gaps longer than a run lie between stretches. Of 2 * window neighbours in the sequence of
        # runs, whose first and last may be cut, and the first run of all is short.
        stretches = 1 + int((np.diff(taken) > run).sum())
        assert stretches <= 2 * window // run + 3


def test_epochs_and_seeds_differ_and_neighbours_part():
    n, window = 4000, 400
    orders = [epoch_order(n, seed, epoch, window) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    for k, order in enumerate(orders):
        # Of a global permutation 1 image is where it was.
        assert all((order == other).mean() < 0.02 for other in orders[k + 1 :])
    together = np.zeros(n - 1)
    epochs = 60
    for epoch in range(epochs):
        batch_of = np.empty(n, int)
        batch_of[epoch_order(n, 0, epoch, window)] = np.arange(n) // 40
        together += batch_of[1:] == batch_of[:-1]
    # Two neighbours share a batch now and then, and none of them always or most of the time.
    assert 0.02 < together.mean() / epochs < 0.3
    assert together.max() / epochs < 0.5
    # Nor are there places at which the runs are always cut.
    assert together[window // 16 - 1 :: window // 16].mean() > 0.6 * together.mean()


def test_images_from_everywhere_meet_in_a_batch():
    n, window, batch = 16_000, 1600, 64
    met = [set(), set()]
    for epoch in range(40):
        order = epoch_order(n, 0, epoch, window)
        place = int(np.flatnonzero(order == 5000)[0])
        partners = order[place // batch * batch : (place // batch + 1) * batch]
        met[epoch % 2] |= set((partners // 1000).tolist())
    assert met[0] == met[1] == set(range(16))


def test_the_sampler_takes_it():
    sampler = EpochBatchSampler(1000, 10, True, False, seed=3, window=100)
    sampler.epoch = 7
    keys = [key for batch in sampler for key in batch]
    assert [index for _, index in keys] == epoch_order(1000, 3, 7, 100).tolist()


@pytest.mark.parametrize(("window", "shuffle"), [(3, True), (100, False)])
def test_a_window_that_means_nothing_is_an_error(window, shuffle):
    with pytest.raises(ConfigError, match=f"window: {window} needs shuffle: true and at least"):
        ImageLoader([None] * 10, 4, shuffle=shuffle, window=window)


MEMBERS = st.lists(st.integers(-1, 3), min_size=1, max_size=200)


@given(MEMBERS, SMALL, st.integers(0, 2**20))
def test_a_balanced_epoch_takes_every_class_equally_often(members, seed, epoch):
    member = np.array(members)
    classes = member[:, None] == np.arange(4)
    order, repeats = balanced_order(classes, seed, epoch)
    assert len(order) == len(member)
    # Images without a class are one more.
    counts = [(member[order] == each).sum() for each in set(members)]
    assert max(counts) - min(counts) <= 1
    for each in set(members):
        taken = np.bincount(order, minlength=len(member))[member == each]
        assert taken.max() - taken.min() <= 1
    again = balanced_order(classes, seed, epoch)
    np.testing.assert_array_equal(order, again[0])
    # No two places of an epoch share an image and its augmentation.
    assert len(set(zip(order.tolist(), repeats.tolist(), strict=True))) == len(order)
    assert all(
        (repeats[order == image] == np.arange((order == image).sum())).all() for image in order[:5]
    )


@given(st.integers(0, 2**24 - 1), st.integers(0, 2**31))
def test_the_key_of_a_sample_contains_epoch_and_repeat(epoch, repeat):
    assert of_stream_epoch(stream_epoch(epoch, repeat)) == (epoch, repeat)
    assert stream_epoch(epoch, 0) == epoch


def test_labels_are_balanced_one_by_one():
    labels = np.zeros((100, 2), bool)
    labels[:50, 0] = labels[45:48, 1] = True
    order, _ = balanced_order(labels, 0, 0)
    # A third of the epoch each: the first label, the second one, none.
    assert labels[order][:, 1].sum() >= 33 and (~labels[order].any(axis=1)).sum() in (33, 34)


def test_balanced_epochs_differ_are_shuffled_and_take_all_images_in_time():
    member = np.repeat([0, 1], [20, 80])
    classes = member[:, None] == np.arange(2)
    keys = [(0, 0), (0, 1), (1, 0)]
    orders = [balanced_order(classes, seed, epoch)[0] for seed, epoch in keys]
    for k, order in enumerate(orders):
        assert all((order == other).mean() < 0.2 for other in orders[k + 1 :])
        # Of 100 places about every second one has another class than the next one.
        assert 30 < (np.diff(member[order]) != 0).sum() < 70
    taken = {int(image) for epoch in range(20) for image in balanced_order(classes, 0, epoch)[0]}
    assert taken == set(range(100))
