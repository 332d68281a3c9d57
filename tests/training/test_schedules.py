import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from foldsmith.errors import ConfigError
from foldsmith.training.schedules import warmup_cosine


def rates(total, **options):
    """Return the learning rates of all steps, of a scheduled and of a fixed group."""
    groups = [
        {"params": [nn.Parameter(torch.zeros(1))]},
        {"params": [nn.Parameter(torch.zeros(1))], "fixed_lr": True},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.4)
    scheduler = warmup_cosine(optimizer, total, **options)
    seen = []
    for _ in range(total):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return [lr for lr, _ in seen], [lr for _, lr in seen], optimizer.param_groups[0]["lr"]


@given(st.integers(1, 200), st.floats(0, 1), st.floats(0, 1))
def test_up_in_a_line_and_down_along_a_cosine(total, warmup_fraction, final_fraction):
    lrs, fixed, after = rates(total, warmup_fraction=warmup_fraction, final_fraction=final_fraction)
    warmup = round(warmup_fraction * total)
    assert lrs[:warmup] == pytest.approx([0.4 * (k + 1) / warmup for k in range(warmup)])
    down = lrs[warmup:]
    assert down == sorted(down, reverse=True)
    assert all(0.4 * final_fraction - 1e-9 <= lr <= 0.4 + 1e-9 for lr in down)
    assert fixed == [0.4] * total
    if down:
        assert down[0] == pytest.approx(0.4) and after == pytest.approx(0.4 * final_fraction)


def test_half_way_is_half_the_rate():
    lrs, _, _ = rates(100, warmup_fraction=0.2)
    assert lrs[60] == pytest.approx(0.2)


def test_shares_are_shares():
    with pytest.raises(ConfigError, match="must be in 0..1"):
        rates(10, warmup_fraction=5)


def two_groups():
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(parameters, (1.0, 0.25), strict=True)]
    return torch.optim.SGD(groups, lr=1.0)


def steps(optimizer, scheduler, n):
    seen = []
    for _ in range(n):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return seen


def test_groups_keep_their_ratios():
    optimizer = two_groups()
    for one, other in steps(optimizer, warmup_cosine(optimizer, 30), 30):
        assert other == pytest.approx(one / 4)


def test_a_schedule_continues_where_it_was():
    whole, stopped, resumed = two_groups(), two_groups(), two_groups()
    expected = steps(whole, warmup_cosine(whole, 20), 20)
    scheduler = warmup_cosine(stopped, 20)
    seen = steps(stopped, scheduler, 7)
    again = warmup_cosine(resumed, 20)
    resumed.load_state_dict(stopped.state_dict())
    again.load_state_dict(scheduler.state_dict())
    assert seen + steps(resumed, again, 13) == expected
