"""Wide residual networks for small images, registered with timm beside its own models.

Backbones made for 224 px end in a feature map of 2 x 2 cells at 64 px. The last feature map of
these has a quarter of the image's side (an eighth with ``stem_stride`` 2).
"""

from typing import Any

import torch
from timm.layers import DropPath, create_classifier  # type: ignore[attr-defined]
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn


class PreActBlock(nn.Module):
    """Basic block whose norms and activations come before the convolutions (He et al. 2016).

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        stride: Stride of the first convolution.
        drop_path: Probability that the residual branch is dropped, 0..1.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, drop_path: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.act1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.downsample = (
            nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            if inputs != outputs or stride > 1
            else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output, (n, outputs, H / stride, W / stride) of (n, inputs, H, W)."""
        y = self.act1(self.bn1(x))
        shortcut = x if self.downsample is None else self.downsample(y)
        y = self.conv2(self.act2(self.bn2(self.conv1(y))))
        result: torch.Tensor = shortcut + self.drop_path(y)
        return result


class WideResNet(nn.Module):
    """Wide residual network (Zagoruyko and Komodakis, "Wide Residual Networks", 2016).

    With few images, such small networks, trained plainly with a tuned learning rate and weight
    decay, are hard to beat (Brigato et al., "Image Classification with Small Datasets: Overview
    and Benchmark", 2022).

    Args:
        depth: Number of layers, 6 n + 4.
        width: Factor of the channels 16, 32 and 64 of the three stages.
        num_classes: Outputs of the classifier; 0 for pooled features.
        in_chans: Channels of the images.
        global_pool: timm's name of the pooling.
        stem_stride: Stride of the first convolution: 1 for images of about 32 px, 2 for 64 px
            and more.
        drop_rate: Dropout before the classifier, 0..1.
        drop_path_rate: Stochastic depth of the last block (Huang et al. 2016), 0..1; it rises
            linearly from 0.
    """

    def __init__(
        self,
        depth: int = 16,
        width: int = 2,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        stem_stride: int = 1,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        per_stage, rest = divmod(depth - 4, 6)
        if rest or per_stage < 1:
            raise ValueError(f"depth must be 6 n + 4, not {depth}")
        self.num_classes, self.drop_rate = num_classes, drop_rate
        self.conv_stem = nn.Conv2d(in_chans, 16, 3, stem_stride, 1, bias=False)
        # Plain numbers: checks build the network without memory for tensors.
        last = max(3 * per_stage - 1, 1)
        drops = [drop_path_rate * k / last for k in range(3 * per_stage)]
        self.stages = nn.Sequential()
        self.feature_info = []
        channels = 16
        for k in range(3):
            outputs, stage = 16 * width * 2**k, nn.Sequential()
            for n in range(per_stage):
                stride = 2 if k and not n else 1
                stage.append(PreActBlock(channels, outputs, stride, drops[k * per_stage + n]))
                channels = outputs
            self.stages.append(stage)
            reduction = stem_stride * 2**k
            self.feature_info.append(
                {"num_chs": channels, "reduction": reduction, "module": f"stages.{k}"}
            )
        self.num_features = self.head_hidden_size = channels
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU(inplace=True)
        self.global_pool, self.fc = create_classifier(channels, num_classes, pool_type=global_pool)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return timm's patterns of the layers, for rates that fall with depth."""
        block = r"^stages\.(\d+)" if coarse else r"^stages\.(\d+)\.(\d+)"
        return {"stem": r"^conv_stem", "blocks": [(block, None), (r"^norm", (99999,))]}

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        classifier: nn.Module = self.fc
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str = "avg") -> None:
        """Replace the pooling and the last layer; 0 classes for pooled features."""
        self.num_classes = num_classes
        self.global_pool, self.fc = create_classifier(
            self.num_features, num_classes, pool_type=global_pool
        )

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return the last feature map, (n, num_features, h, w) of images (n, in_chans, H, W)."""
        features: torch.Tensor = self.act(self.norm(self.stages(self.conv_stem(x))))
        return features

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return logits (n, num_classes), or pooled features, of a feature map."""
        pooled = self.global_pool(x)
        if self.drop_rate:
            pooled = nn.functional.dropout(pooled, self.drop_rate, self.training)
        outputs: torch.Tensor = pooled if pre_logits else self.fc(pooled)
        return outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits, or pooled features without a classifier, of images (n, in_chans, H, W)."""
        return self.forward_head(self.forward_features(x))


# timm needs a configuration for every name. There are no weights to download.
_CONFIG = {
    "url": "",
    "num_classes": 1000,
    "input_size": (3, 64, 64),
    "pool_size": (16, 16),
    "first_conv": "conv_stem",
    "classifier": "fc",
    "license": "mit",
}
default_cfgs = generate_default_cfgs(
    {name: dict(_CONFIG) for name in ("wrn_16_2", "wrn_16_4", "wrn_28_4")}
)


def _create(name: str, pretrained: bool, **arguments: Any) -> WideResNet:
    model: WideResNet = build_model_with_cfg(WideResNet, name, pretrained, **arguments)
    return model


@register_model
def wrn_16_2(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-16-2: 0.7 million weights."""
    return _create("wrn_16_2", pretrained, **{"depth": 16, "width": 2, **kwargs})


@register_model
def wrn_16_4(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-16-4: 2.8 million weights."""
    return _create("wrn_16_4", pretrained, **{"depth": 16, "width": 4, **kwargs})


@register_model
def wrn_28_4(pretrained: bool = False, **kwargs: Any) -> WideResNet:
    """WRN-28-4: 5.8 million weights."""
    return _create("wrn_28_4", pretrained, **{"depth": 28, "width": 4, **kwargs})
