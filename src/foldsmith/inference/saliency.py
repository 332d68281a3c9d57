"""Which parts of images a model's predictions come from: Grad-CAM."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from foldsmith.errors import ConfigError
from foldsmith.models.classifier import ImageModel
from foldsmith.targets.task import Explained

Array = npt.NDArray[np.float32]

# A map with fewer cells a side shows no place: a cell is half of the image.
COARSE = 3


def grad_cam(model: ImageModel, images: torch.Tensor, score: Explained) -> Array:
    """Return where in images a score comes from.

    Of convolutional backbones, Grad-CAM (Selvaraju et al., "Grad-CAM: Visual Explanations from
    Deep Networks via Gradient-based Localization", 2017): each channel of the last feature map is
    weighted by the mean gradient of the score on it, and these are summed. If this map has fewer
    than :data:`COARSE` cells a side, as for small images, the map of the previous stage is used.

    For vision transformers, whose last tokens reach the head only through the class token or a
    mean, the map uses the last block's normalised tokens of patches,
    laid out as the grid of patches. Here each value is weighted by its own gradient (as in
    Draelos and Carin, "HiResCAM", 2020; for a pooled feature map that is the same): the mean over
    the patches says next to nothing after attention. The size counts, not the sign, which the
    attention may turn.

    Args:
        model: In evaluation mode, on the images' device; its gradients are left alone.
        images: Normalised, shape (n, 3, H, W).
        score: As the task's ``explained`` returns it.

    Returns:
        In 0..1, float32, shape (n, rows, columns) of the feature map; 1 at the strongest place
        of each image, all 0 where nothing speaks for the score.

    Raises:
        ConfigError: The backbone has no feature map that is known how to read.
    """
    backbone: Any = model.backbone
    norm = _last_norm(backbone)
    if norm is None:
        return _scaled(_of_features(model, images, score))
    leaf, outputs = _through_module(model, norm, images)
    (gradient,) = torch.autograd.grad(score.of(outputs).sum(), leaf)
    return _scaled(_on_grid((gradient * leaf.detach()).sum(dim=2).abs(), backbone))


def _of_features(model: ImageModel, images: torch.Tensor, score: Explained) -> torch.Tensor:
    """Return the weighted sum over the channels of the last feature map, its relevant part."""
    backbone: Any = model.backbone
    with torch.no_grad():
        features = backbone.forward_features(images)
    if not torch.is_tensor(features) or features.ndim != 4:
        raise ConfigError(
            f"{type(backbone).__name__}: neither gives a feature map nor has blocks of tokens that "
            "are known how to read"
        )
    # Some, such as Swin, have the channels last.
    channels = 1 if features.shape[1] == backbone.num_features else 3
    earlier = _stage_before_last(backbone) if _is_coarse(features, channels) else None
    if earlier is not None:
        module, n_channels = earlier
        leaf, outputs = _through_module(model, module, images)
        channels = 1 if leaf.shape[1] == n_channels else 3
    else:
        with torch.enable_grad():
            leaf = features.float().requires_grad_()
            outputs = model.head(backbone.forward_head(leaf))
    (gradient,) = torch.autograd.grad(score.of(outputs).sum(), leaf)
    places = (2, 3) if channels == 1 else (1, 2)
    weighted = (gradient.mean(dim=places, keepdim=True) * leaf.detach()).sum(dim=channels)
    return weighted.clamp_min(0) if score.one_way else weighted.abs()


def _is_coarse(features: torch.Tensor, channels: int) -> bool:
    """Return whether a map has too few cells to show a place."""
    sides = features.shape[2:] if channels == 1 else features.shape[1:3]
    return min(sides) < COARSE


def _stage_before_last(backbone: Any) -> tuple[nn.Module, int] | None:
    """Return the module of the last stage but one and its channels, where timm names it."""
    stages = getattr(backbone, "feature_info", None)
    if not isinstance(stages, list) or len(stages) < 2:
        return None
    name, n_channels = stages[-2].get("module"), stages[-2].get("num_chs")
    try:
        return backbone.get_submodule(name), int(n_channels)
    except (AttributeError, TypeError):
        return None


def _scaled(maps: torch.Tensor) -> Array:
    highest = maps.amax(dim=(1, 2), keepdim=True)
    scaled: Array = (maps / highest.clamp_min(torch.finfo(maps.dtype).tiny)).float().cpu().numpy()
    return scaled


def _last_norm(backbone: Any) -> nn.Module | None:
    """Return the norm before the last block's attention, if there is one."""
    blocks = getattr(backbone, "blocks", None)
    # Hiera orders its tokens differently from the grid.
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or hasattr(backbone, "reroll"):
        return None
    norm = getattr(blocks[-1], "norm1", None)
    return norm if isinstance(norm, nn.Module) else None


def _through_module(
    model: ImageModel, norm: nn.Module, images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a module's output for images, and the outputs of the model.

    Returns:
        A leaf of the graph, of the shape that the module gives; outputs, shape (n, n_outputs).
    """
    leaves: list[torch.Tensor] = []

    def cut(_: nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        # Nothing before it needs a graph.
        torch.set_grad_enabled(True)
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    handle = norm.register_forward_hook(cut)
    try:
        with torch.no_grad():
            outputs: torch.Tensor = model(images)
    finally:
        handle.remove()
    return leaves[-1], outputs


def _on_grid(tokens: torch.Tensor, backbone: Any) -> torch.Tensor:
    """Lay values of tokens, shape (n, tokens), out as patches, shape (n, rows, columns)."""
    count = tokens.shape[1]
    grid = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    if grid is None or not 0 < grid[0] * grid[1] <= count:
        side = math.isqrt(count)
        grid = (side, side)
    # Class and register tokens come first.
    return tokens[:, count - grid[0] * grid[1] :].reshape(len(tokens), *grid)
