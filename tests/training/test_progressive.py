import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foldsmith.data.datasets import Batch
from foldsmith.errors import ConfigError
from foldsmith.ssl.method import Method
from foldsmith.training.pretrain_step import PretrainStep
from foldsmith.training.progressive import ProgressiveResize


def test_sizes_follow_the_epochs():
    progressive = ProgressiveResize([16, 32], [0.6, 0.4])
    assert [progressive.size(epoch, 10) for epoch in range(10)] == [16] * 6 + [32] * 4
    assert [progressive.size(epoch, 2) for epoch in range(2)] == [16, 32]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 50))
def test_every_epoch_has_a_size_and_they_come_in_order(weights, max_epoch):
    shares = [weight / sum(weights) for weight in weights]
    progressive = ProgressiveResize(list(range(1, len(shares) + 1)), shares)
    sizes = [progressive.size(epoch, max_epoch) for epoch in range(max_epoch)]
    assert sizes == sorted(sizes)


def test_all_views_shrink_by_one_factor():
    progressive = ProgressiveResize([16, 32], [0.5, 0.5])
    views = torch.full((2, 3, 32, 48), 0.5), torch.full((2, 3, 12, 12), -1.0)
    small = progressive(views, 0, 4)
    assert [tuple(view.shape) for view in small] == [(2, 3, 16, 24), (2, 3, 6, 6)]
    assert torch.allclose(small[0], torch.tensor(0.5)) and torch.allclose(
        small[1], torch.tensor(-1.0)
    )
    assert progressive(views, 2, 4) is views


def test_the_step_gives_the_method_small_views():
    class Width(Method):
        def forward(self, views):
            return {"loss": torch.tensor(float(views[0].shape[-1]))}

    batch = Batch((torch.zeros(1, 3, 32, 32),) * 2, torch.zeros(1), torch.zeros(1))
    step = PretrainStep(Width(), ProgressiveResize([16, 32], [0.5, 0.5]), max_epoch=2)
    assert [step(batch, epoch, 0)["loss"].item() for epoch in (0, 1)] == [16, 32]
    assert PretrainStep(Width())(batch, 0, 0)["loss"].item() == 32


@pytest.mark.parametrize(
    ("sizes", "shares"), [([16], [0.5, 0.5]), ([], []), ([0], [1]), ([1, 2], [0.5, 0.6])]
)
def test_what_does_not_fit_is_refused(sizes, shares):
    with pytest.raises(ConfigError):
        ProgressiveResize(sizes, shares)


def test_views_do_not_grow():
    with pytest.raises(ConfigError, match="dataset/img_size=64"):
        ProgressiveResize([64], [1])((torch.zeros(1, 3, 32, 32),), 0, 1)
