import pytest
import torch

from foldsmith.errors import ConfigError
from foldsmith.models.backbone import create_backbone
from foldsmith.models.classifier import ImageModel
from foldsmith.ssl.simsiam import SimSiam
from foldsmith.training.parameter_groups import layer_decay_groups, parameter_groups


def test_biases_and_norms_do_not_decay():
    model = SimSiam(create_backbone("test_resnet"), proj_hidden_dim=64)
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
        parameter_groups(SimSiam(create_backbone("test_resnet")), fixed_lr=["predictor"])


@pytest.mark.parametrize("name", ["test_resnet", "vit_tiny_patch16_224"])
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
    deep, shallow = ("layer1", "layer4") if name == "test_resnet" else ("blocks.0.", "blocks.11.")
    deepest = max(lr for key, lr in body.items() if deep in key)
    assert deepest < min(lr for key, lr in body.items() if shallow in key)
    for key, parameter in model.named_parameters():
        free = parameter.ndim <= 1 or key.endswith(("pos_embed", "cls_token"))
        assert decay[key] == (0.0 if free else 0.05), key


def test_a_frozen_backbone_has_no_groups():
    model = ImageModel("test_resnet", [None, 4], freeze_backbone=True)
    groups = layer_decay_groups(model, 0.1)
    assert [len(group["params"]) for group in groups] == [1, 1]


def test_what_is_refused():
    with pytest.raises(ConfigError, match="layer_decay: 1.5"):
        layer_decay_groups(ImageModel("test_resnet", [None, 4]), 0.1, layer_decay=1.5)
    with pytest.raises(ConfigError, match="Linear has no backbone"):
        layer_decay_groups(torch.nn.Linear(2, 2), 0.1)
