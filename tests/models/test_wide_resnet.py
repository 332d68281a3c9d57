import pytest
import torch

from foldsmith.errors import ConfigError
from foldsmith.models.backbone import create_backbone, num_features


@pytest.mark.parametrize(
    ("name", "features", "millions"),
    [("wrn_16_2", 128, 0.69), ("wrn_16_4", 256, 2.75), ("wrn_28_4", 256, 5.85)],
)
def test_the_sizes_of_the_paper(name, features, millions):
    """As in tables 4 and 5 of Zagoruyko and Komodakis 2016: 0.7, 2.7 and 5.8 million."""
    backbone = create_backbone(name)
    assert num_features(backbone) == features
    weights = sum(parameter.numel() for parameter in backbone.parameters())
    assert weights / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize(("stem_stride", "cells"), [(1, 8), (2, 4)])
def test_the_last_map_fits_small_images(stem_stride, cells):
    backbone = create_backbone("wrn_16_2", options={"stem_stride": stem_stride})
    images = torch.rand(2, 3, 32, 32)
    assert backbone.forward_features(images).shape == (2, 128, cells, cells)
    assert backbone(images).shape == (2, 128)


def test_stochastic_depth_acts_in_training_only():
    torch.manual_seed(0)
    backbone = create_backbone("wrn_16_2", drop_path_rate=0.5)
    images = torch.rand(8, 3, 16, 16)
    backbone.train()
    assert not torch.equal(backbone(images), backbone(images))
    backbone.eval()
    assert torch.equal(backbone(images), backbone(images))


def test_a_depth_that_no_network_has():
    with pytest.raises(ConfigError, match=r"wrn_16_2: depth must be 6 n \+ 4, not 17"):
        create_backbone("wrn_16_2", options={"depth": 17})
