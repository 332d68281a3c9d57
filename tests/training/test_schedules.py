import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from foldsmith.errors import ConfigError
from foldsmith.models.backbone import create_backbone
from foldsmith.models.ssl.simsiam import SimSiam
from foldsmith.training.parameter_groups import parameter_groups
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
def test_up_in_a_line_and_down_along_a_cosine(total, warmup_share, final_share):
    lrs, fixed, after = rates(total, warmup_share=warmup_share, final_share=final_share)
    warmup = round(warmup_share * total)
    assert lrs[:warmup] == pytest.approx([0.4 * (k + 1) / warmup for k in range(warmup)])
    down = lrs[warmup:]
    assert down == sorted(down, reverse=True)
    assert all(0.4 * final_share - 1e-9 <= lr <= 0.4 + 1e-9 for lr in down)
    assert fixed == [0.4] * total
    if down:
        assert down[0] == pytest.approx(0.4) and after == pytest.approx(0.4 * final_share)


def test_half_way_is_half_the_rate():
    lrs, _, _ = rates(100, warmup_share=0.2)
    assert lrs[60] == pytest.approx(0.2)


def test_shares_are_shares():
    with pytest.raises(ConfigError, match="must be in 0..1"):
        rates(10, warmup_share=5)


def test_biases_and_norms_do_not_decay():
    model = SimSiam(create_backbone("resnet10t"), projection_hidden=64)
    model.backbone.conv1.requires_grad_(False)
    groups = parameter_groups(model, fixed_lr=["prediction"])
    assert sum(len(group["params"]) for group in groups) == sum(
        parameter.requires_grad for parameter in model.parameters()
    )
    predictor = {id(parameter) for parameter in model.prediction.parameters()}
    for group in groups:
        assert all((p.ndim > 1) == ("weight_decay" not in group) for p in group["params"])
        assert all((id(p) in predictor) == group.get("fixed_lr", False) for p in group["params"])
    optimizer = torch.optim.SGD(groups, lr=0.1, weight_decay=0.5)
    assert sorted({group["weight_decay"] for group in optimizer.param_groups}) == [0.0, 0.5]


def test_an_unknown_part_is_named():
    with pytest.raises(ConfigError, match=r"SimSiam has no part 'predictor'.*prediction"):
        parameter_groups(SimSiam(create_backbone("resnet10t")), fixed_lr=["predictor"])
