"""Models as ONNX files, which run without torch's own code for them."""

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from foldsmith.errors import ConfigError, OutputError, one_line
from foldsmith.utils.atomic import replacing
from foldsmith.utils.optional_packages import install_command

# How far a file may be from the model that it was made from.
TOLERANCE = 1e-4

_RUNTIME = "onnxruntime"


def check_onnx(needed: Sequence[str] = ("onnx", "onnxscript", _RUNTIME)) -> None:
    """Check that the packages for ONNX are installed.

    Args:
        needed: Names of packages.

    Raises:
        ConfigError: One is not.
    """
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"ONNX needs {', '.join(missing)}; run: {install_command('onnx')}")


class OnnxModel(nn.Module):
    """A model that ONNX Runtime runs on the CPU.

    Args:
        path: File written by :func:`write_onnx`.

    Raises:
        ConfigError: ONNX Runtime is not installed.
        OutputError: The file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        check_onnx([_RUNTIME])
        import onnxruntime

        if not path.is_file():
            raise OutputError(f"{path}: no such file")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its errors have no common class but this
            raise OutputError(f"{path}: not a readable ONNX file: {one_line(error)}") from None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return outputs, float32, shape (n, n_outputs), of normalised images (n, 3, H, W)."""
        batch = np.ascontiguousarray(images.detach().cpu().numpy(), np.float32)
        outputs = self._session.run(None, {"images": batch})[0]
        return torch.from_numpy(outputs).to(images.device)


def write_onnx(model: nn.Module, images: torch.Tensor, path: Path) -> None:
    """Write a model as ONNX, and check that the file gives the model's outputs.

    The input ``images`` is float32, normalised, shape (n, 3, H, W) with any n and the images'
    height and width; the output ``outputs`` has shape (n, n_outputs).

    Args:
        model: On the CPU.
        images: Examples, shape (2 or more, 3, H, W).
        path: The file.

    Raises:
        ConfigError: The packages for ONNX are not installed, or ONNX does not support the model.
        OutputError: The file gives other outputs.
    """
    check_onnx()
    model.eval()
    with torch.inference_mode():
        wanted = model(images.float())
    any_number = {0: torch.export.Dim.DYNAMIC}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                (images.float(),),
                input_names=["images"],
                output_names=["outputs"],
                dynamic_shapes=(any_number,),
                verbose=False,
            )
    except Exception as error:  # whatever torch makes of a model that it cannot trace
        raise ConfigError(
            f"{type(model).__name__} cannot be written as ONNX ({one_line(error)[:200]}); leave "
            "out --onnx"
        ) from error
    assert program is not None, "no file was named, so that the program is returned"
    with replacing(path) as temporary:
        program.save(str(temporary))
    off = float((OnnxModel(path)(images) - wanted).abs().max())
    if not off <= TOLERANCE:
        path.unlink()
        raise OutputError(f"{path}: ONNX Runtime is off by {off:.1e}, more than {TOLERANCE:.0e}")
