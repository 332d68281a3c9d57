import numpy as np
import pytest
import timm
import torch
from torch import nn

from foldsmith.errors import ConfigError, OutputError
from foldsmith.predictor import onnx_model
from foldsmith.predictor.onnx_model import OnnxModel, write_onnx


@pytest.fixture
def images():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 32, 32))).float()


def test_onnx_runtime_says_what_torch_says_of_any_number_of_images(images, tmp_path):
    model = timm.create_model("test_resnet", num_classes=4).eval()
    write_onnx(model, images, tmp_path / "model.onnx")
    read = OnnxModel(tmp_path / "model.onnx")
    more = torch.cat([images, images.flip(3), images[:1]])
    with torch.inference_mode():
        wanted = model(more)
    assert wanted.std() > 1e-3
    np.testing.assert_allclose(read(more), wanted, rtol=0, atol=1e-5)
    channels_last = more.to(memory_format=torch.channels_last)
    np.testing.assert_allclose(read(channels_last), wanted, rtol=0, atol=1e-5)


class Off(nn.Module):
    """Says something else whenever it is asked again."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, images):
        self.asked += 1
        return images.mean(dim=(2, 3)) + self.asked


def test_a_file_that_says_something_else_is_not_kept(images, tmp_path):
    with pytest.raises(OutputError, match="ONNX Runtime is off by"):
        write_onnx(Off(), images, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


class Choosy(nn.Module):
    """Does what no graph can hold."""

    def forward(self, images):
        return images[0] if images.sum().item() > 0 else images[1]


def test_a_model_that_cannot_be_traced_is_named(images, tmp_path):
    with pytest.raises(ConfigError, match="Choosy cannot be written as ONNX .*leave out --onnx"):
        write_onnx(Choosy(), images, tmp_path / "model.onnx")


def test_what_is_missing_is_said(images, tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"none")
    with pytest.raises(OutputError, match="not a readable ONNX file"):
        OnnxModel(tmp_path / "model.onnx")
    monkeypatch.setattr(onnx_model.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install 'onnx>="):
        write_onnx(nn.Identity(), images, tmp_path / "model.onnx")
