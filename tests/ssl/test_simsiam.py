import pytest
import torch
from torch import nn
from torch.nn import functional

from foldsmith.models.backbone import create_backbone
from foldsmith.ssl.simsiam import SimSiam


@pytest.fixture
def simsiam():
    torch.manual_seed(0)
    return SimSiam(create_backbone("test_resnet"), proj_hidden_dim=64)


def test_the_published_shape():
    model = SimSiam(create_backbone("resnet18d"))
    linear = [layer for layer in model.projection.modules() if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [
        (512, 2048),
        (2048, 512),
    ]
    norms = [layer for layer in model.projection.modules() if isinstance(layer, nn.BatchNorm1d)]
    assert [norm.affine for norm in norms] == [True, True]
    predictor = [layer for layer in model.prediction.modules() if isinstance(layer, nn.Linear)]
    assert [(p.in_features, p.out_features) for p in predictor] == [(512, 128), (128, 512)]


def test_the_loss_is_the_symmetric_cosine(simsiam):
    simsiam.eval()
    views = torch.randn(8, 3, 32, 32), torch.randn(8, 3, 32, 32)
    z = [simsiam.projection(simsiam.backbone(view)) for view in views]
    p = [simsiam.prediction(projection) for projection in z]
    expected = -0.5 * (
        functional.cosine_similarity(p[0], z[1]).mean()
        + functional.cosine_similarity(p[1], z[0]).mean()
    )
    assert simsiam(views)["loss"].item() == pytest.approx(expected.item(), abs=1e-6)


def test_no_gradient_flows_through_the_target(simsiam):
    # With the predictor's output cut off there is no other way to the backbone.
    simsiam.prediction.register_forward_hook(lambda module, inputs, output: output.detach())
    views = torch.randn(8, 3, 32, 32), torch.randn(8, 3, 32, 32)
    assert not simsiam(views)["loss"].requires_grad


def test_std_tells_collapse_from_spread(simsiam):
    dim = simsiam.projection(torch.zeros(2, 96)).shape[1]
    spread = simsiam((torch.randn(64, 3, 32, 32), torch.randn(64, 3, 32, 32)))["std"].item()
    assert 0.3 / dim**0.5 < spread <= 1.01 / dim**0.5
    simsiam.eval()
    same = torch.zeros(64, 3, 32, 32)
    assert simsiam((same, same))["std"].item() < 1e-6
