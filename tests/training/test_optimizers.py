import math

import pytest
import torch

from foldsmith.errors import ConfigError
from foldsmith.models.classifier import ImageModel
from foldsmith.training.optimizers import WarmupCosine, layer_decay_groups


def rates(optimizer, scheduler, steps):
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return seen


def two_groups():
    parameters = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(parameters, (1.0, 0.25), strict=True)]
    return torch.optim.SGD(groups, lr=1.0)


def test_the_schedule_rises_then_falls_as_a_cosine():
    optimizer = two_groups()
    seen = rates(optimizer, WarmupCosine(optimizer, 100, warmup_steps=0.1, final=0.01), 100)
    first = [lr for lr, _ in seen]
    assert first[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert max(first) == first[9] == pytest.approx(1.0)
    assert first[10:] == sorted(first[10:], reverse=True)
    halfway = 0.01 + 0.99 * (1 + math.cos(math.pi / 2)) / 2
    assert first[55] == pytest.approx(halfway)
    assert 0.01 < first[-1] < 0.012


def test_groups_keep_their_ratios():
    optimizer = two_groups()
    for one, other in rates(optimizer, WarmupCosine(optimizer, 30), 30):
        assert other == pytest.approx(one / 4)


def test_a_schedule_continues_where_it_was():
    whole, stopped = two_groups(), two_groups()
    expected = rates(whole, WarmupCosine(whole, 20), 20)
    scheduler = WarmupCosine(stopped, 20)
    seen = rates(stopped, scheduler, 7)
    resumed = two_groups()
    again = WarmupCosine(resumed, 20)
    resumed.load_state_dict(stopped.state_dict())
    again.load_state_dict(scheduler.state_dict())
    assert seen + rates(resumed, again, 13) == expected


def test_a_schedule_may_have_no_warm_up_or_a_single_step():
    optimizer = two_groups()
    assert rates(optimizer, WarmupCosine(optimizer, 1), 1) == [[1.0, 0.25]]
    with pytest.raises(ConfigError, match="warmup_steps: 200"):
        WarmupCosine(two_groups(), 1000, warmup_steps=200)


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224"])
def test_the_deeper_the_slower(name):
    options = {"img_size": 32} if name.startswith("vit") else {}
    model = ImageModel(name, [None, 8, 4], backbone_options=options)
    groups = layer_decay_groups(model, 0.1, layer_decay=0.5, weight_decay=0.05)
    rate, decay = {}, {}
    names = {id(p): key for key, p in model.named_parameters()}
    for group in groups:
        for parameter in group["params"]:
            assert id(parameter) in names
            key = names.pop(id(parameter))
            rate[key], decay[key] = group["lr"], group["weight_decay"]
    assert not names  # every parameter in one group
    assert {rate[key] for key in rate if key.startswith("head.")} == {0.1}
    assert groups[0]["lr"] == 0.1
    body = {key: lr for key, lr in rate.items() if key.startswith("backbone.")}
    assert max(body.values()) == pytest.approx(0.05)
    stem = min(body, key=body.get)
    assert (
        "conv1" in stem or "bn1" in stem or "patch_embed" in stem or "pos" in stem or "cls" in stem
    )
    deep, shallow = ("layer1", "layer4") if name == "resnet10t" else ("blocks.0.", "blocks.11.")
    deepest = max(lr for key, lr in body.items() if deep in key)
    assert deepest < min(lr for key, lr in body.items() if shallow in key)
    for key, parameter in model.named_parameters():
        free = parameter.ndim <= 1 or key.endswith(("pos_embed", "cls_token"))
        assert decay[key] == (0.0 if free else 0.05), key


def test_a_frozen_backbone_has_no_groups():
    model = ImageModel("resnet10t", [None, 4], freeze_backbone=True)
    groups = layer_decay_groups(model, 0.1)
    assert [len(group["params"]) for group in groups] == [1, 1]


def test_what_is_refused():
    with pytest.raises(ConfigError, match="layer_decay: 1.5"):
        layer_decay_groups(ImageModel("resnet10t", [None, 4]), 0.1, layer_decay=1.5)
    with pytest.raises(ConfigError, match="Linear has no backbone"):
        layer_decay_groups(torch.nn.Linear(2, 2), 0.1)
