import pytest
import timm
import torch

from foldsmith.errors import ConfigError
from foldsmith.models.backbone import create_backbone, num_features
from foldsmith.models.classifier import ImageModel, trainable_parameters
from foldsmith.models.snapshots import load_weights


@pytest.mark.parametrize("name", ["resnet18d", "resnest50d_1s4x24d", "mobilenetv3_small_050"])
def test_num_features_is_the_length_of_the_features(name):
    backbone = create_backbone(name).eval()
    with torch.inference_mode():
        features = backbone(torch.zeros(1, 3, 64, 64))
    assert features.shape == (1, num_features(backbone))


def test_unknown_models_get_near_names():
    with pytest.raises(ConfigError, match="no model 'resnet18dd'.*did you mean.*resnet18d"):
        create_backbone("resnet18dd")


def test_refused_arguments_are_said():
    with pytest.raises(ConfigError, match="resnet18d: .*no_such_option"):
        create_backbone("resnet18d", options={"no_such_option": 1})


def test_weights_round_trip(tmp_path):
    first, second = create_backbone("resnet10t"), create_backbone("resnet10t")
    torch.save(first.state_dict(), tmp_path / "w.pth")
    load_weights(second, tmp_path / "w.pth")
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    timm.create_model("resnet10t", num_classes=0).load_state_dict(
        torch.load(tmp_path / "w.pth", weights_only=True), strict=True
    )


def test_a_mismatch_lists_the_keys(tmp_path):
    torch.save(create_backbone("resnet18d").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ConfigError) as error:
        ImageModel("resnet34d", [None, 2], pretrained="w.pth", folder=tmp_path)
    assert "keys missing in the file: layer1.2.bn1.bias" in str(error.value)
    state = create_backbone("resnet18d").state_dict()
    torch.save({**state, "neck.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="1 keys unknown to the model: neck.weight"):
        ImageModel("resnet18d", [None, 2], pretrained="w.pth", folder=tmp_path)
    torch.save({**state, "conv1.0.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match=r"another shape: conv1.0.weight \(1,\) instead of"):
        ImageModel("resnet18d", [None, 2], pretrained="w.pth", folder=tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a snapshot", None])
def test_files_that_are_no_weights_are_named(tmp_path, content):
    path = tmp_path / "w.pth"
    if content is None:
        torch.save({"epoch": 3}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"w\.pth: "):
        load_weights(create_backbone("resnet10t"), path)


def test_the_head_follows_dims_head():
    model = ImageModel("resnet10t", [None, 16, 3]).eval()
    assert [layer.out_features for layer in model.head if hasattr(layer, "out_features")] == [16, 3]
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


@pytest.mark.parametrize(("dims", "message"), [([4], "must be"), ([100, 4], "gives 512 features")])
def test_heads_that_do_not_fit_are_refused(dims, message):
    with pytest.raises(ConfigError, match=message):
        ImageModel("resnet10t", dims)


def test_a_frozen_backbone_keeps_weights_and_statistics():
    model = ImageModel("resnet10t", [None, 1], freeze_backbone=True).train()
    before = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    parameters = trainable_parameters(model)
    assert {id(p) for p in parameters} == {id(p) for p in model.head.parameters()}
    optimizer = torch.optim.SGD(parameters, lr=1.0)
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    optimizer.step()
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[key]), key
