"""Image classifiers: residual, depth-wise, squeeze-excite, grouped and ConvNeXt networks."""

from __future__ import annotations

import torch
from torch import nn

from .blocks import Activation, ConvNorm, SqueezeExcite


class GlobalMean(nn.Module):
    """Mean over the image: ``[N, C, H, W]`` to ``[N, C]``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


class Bottleneck(nn.Module):
    """1x1, 3x3 (strided, possibly grouped), 1x1 around a shortcut."""

    def __init__(self, cin: int, width: int, cout: int, stride: int = 1, groups: int = 1, dilation: int = 1):
        super().__init__()
        self.body = nn.Sequential(
            ConvNorm(cin, width),
            ConvNorm(width, width, 3, stride, dilation, groups),
            ConvNorm(width, cout, act=None),
        )
        same = stride == 1 and cin == cout
        self.shortcut = nn.Identity() if same else ConvNorm(cin, cout, 1, stride, act=None)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.body(x) + self.shortcut(x))


def residual_trunk(
    depths: tuple[int, ...], width: int = 64, groups: int = 1, dilate_last: bool = False
) -> nn.Sequential:
    """Stem and bottleneck stages of a ResNet or ResNeXt.

    ``dilate_last`` dilates the last stage instead of striding it: stride 16 in all, as for segmentation.
    """
    layers: list[nn.Module] = [ConvNorm(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    cin = 64
    for stage, depth in enumerate(depths):
        cout, last = 256 << stage, stage == len(depths) - 1
        for index in range(depth):
            stride = 2 if index == 0 and stage > 0 else 1
            dilation = 1
            if dilate_last and last:
                stride, dilation = 1, 2
            layers.append(Bottleneck(cin, width << stage, cout, stride, groups, dilation))
            cin = cout
    return nn.Sequential(*layers)


def resnet50() -> nn.Module:
    """ResNet-50 (He et al., 2015), stride on the 3x3 convolutions."""
    return nn.Sequential(residual_trunk((3, 4, 6, 3)), GlobalMean(), nn.Linear(2048, 1000))


def resnext50() -> nn.Module:
    """ResNeXt-50 32x4d (Xie et al., 2016): grouped 3x3 convolutions."""
    return nn.Sequential(residual_trunk((3, 4, 6, 3), 128, 32), GlobalMean(), nn.Linear(2048, 1000))


def mobilenet() -> nn.Module:
    """MobileNet v1 (Howard et al., 2017): depth-wise 3x3 and point-wise layers."""
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    plan += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    layers: list[nn.Module] = [ConvNorm(3, 32, 3, 2)]
    cin = 32
    for cout, stride in plan:
        layers += [ConvNorm(cin, cin, 3, stride, groups=cin), ConvNorm(cin, cout)]
        cin = cout
    return nn.Sequential(nn.Sequential(*layers), GlobalMean(), nn.Linear(cin, 1000))


class InvertedResidual(nn.Module):
    """Expand, depth-wise, optional squeeze-excite, project; a shortcut where shapes allow."""

    def __init__(
        self,
        cin: int,
        hidden: int,
        cout: int,
        kernel: int,
        stride: int,
        act: Activation,
        squeeze: int,
        gate: Activation,
    ):
        super().__init__()
        layers: list[nn.Module] = [ConvNorm(cin, hidden, act=act)] if hidden != cin else []
        layers.append(ConvNorm(hidden, hidden, kernel, stride, groups=hidden, act=act))
        if squeeze:
            layers.append(SqueezeExcite(hidden, squeeze, act if gate is nn.Sigmoid else nn.ReLU, gate))
        layers.append(ConvNorm(hidden, cout, act=None))
        self.body, self.residual = nn.Sequential(*layers), stride == 1 and cin == cout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.body(x)
        return x + y if self.residual else y


def efficientnet() -> nn.Module:
    """EfficientNet-B0 (Tan and Le, 2019): SiLU and squeeze-excite in every block."""
    stages = [  # expansion, channels, blocks, stride, kernel
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
    ]  # fmt: skip
    layers: list[nn.Module] = [ConvNorm(3, 32, 3, 2, act=nn.SiLU)]
    cin = 32
    for expansion, cout, blocks, stride, kernel in stages:
        for index in range(blocks):
            step, squeezed = stride if index == 0 else 1, max(1, cin // 4)
            hidden = cin * expansion
            layers.append(InvertedResidual(cin, hidden, cout, kernel, step, nn.SiLU, squeezed, nn.Sigmoid))
            cin = cout
    layers.append(ConvNorm(cin, 1280, act=nn.SiLU))
    return nn.Sequential(nn.Sequential(*layers), GlobalMean(), nn.Linear(1280, 1000))


def mobilenet_v3() -> nn.Module:
    """MobileNet v3 large (Howard et al., 2019): HardSwish, gates by HardSigmoid in some blocks."""
    relu, swish = nn.ReLU, nn.Hardswish
    plan = [  # kernel, hidden, channels, squeeze-excite, activation, stride
        (3, 16, 16, False, relu, 1), (3, 64, 24, False, relu, 2), (3, 72, 24, False, relu, 1),
        (5, 72, 40, True, relu, 2), (5, 120, 40, True, relu, 1), (5, 120, 40, True, relu, 1),
        (3, 240, 80, False, swish, 2), (3, 200, 80, False, swish, 1), (3, 184, 80, False, swish, 1),
        (3, 184, 80, False, swish, 1), (3, 480, 112, True, swish, 1), (3, 672, 112, True, swish, 1),
        (5, 672, 160, True, swish, 2), (5, 960, 160, True, swish, 1), (5, 960, 160, True, swish, 1),
    ]  # fmt: skip
    layers: list[nn.Module] = [ConvNorm(3, 16, 3, 2, act=swish)]
    cin = 16
    for kernel, hidden, cout, gated, act, stride in plan:
        squeezed = (hidden // 4 + 7) // 8 * 8 if gated else 0
        layers.append(InvertedResidual(cin, hidden, cout, kernel, stride, act, squeezed, nn.Hardsigmoid))
        cin = cout
    layers.append(ConvNorm(cin, 960, act=swish))
    head = nn.Sequential(nn.Linear(960, 1280), swish(), nn.Linear(1280, 1000))
    return nn.Sequential(nn.Sequential(*layers), GlobalMean(), head)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of an image, by way of channels-last."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    """Depth-wise 7x7, layer norm, linear up, GELU, linear down, scaled, around a shortcut."""

    def __init__(self, channels: int):
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.up, self.down = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(torch.full((channels,), 0.5))
        self.act = nn.GELU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.spatial(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.down(self.act(self.up(tokens)))).permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    """ConvNeXt tiny (Liu et al., 2022)."""
    widths, depths = (96, 192, 384, 768), (3, 3, 9, 3)
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 4), ChannelNorm(widths[0])]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if stage:
            layers += [ChannelNorm(widths[stage - 1]), nn.Conv2d(widths[stage - 1], width, 2, 2)]
        layers += [ConvNextBlock(width) for _ in range(depth)]
    return nn.Sequential(nn.Sequential(*layers), GlobalMean(), nn.LayerNorm(768), nn.Linear(768, 1000))
