"""Networks with an image or a grid of boxes as output: detector, U-Net, dilated segmentation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .blocks import ConvNorm
from .classifiers import residual_trunk


def silu_conv(cin: int, cout: int, kernel: int = 1, stride: int = 1) -> ConvNorm:
    """Convolution, batch norm, SiLU."""
    return ConvNorm(cin, cout, kernel, stride, act=nn.SiLU)


class PartialStage(nn.Module):
    """Cross-stage partial stage: one half passes a chain of residual blocks, both halves are concatenated."""

    def __init__(self, cin: int, cout: int, depth: int, residual: bool = True):
        super().__init__()
        half = cout // 2
        self.left, self.right = silu_conv(cin, half), silu_conv(cin, half)
        self.blocks = nn.ModuleList(
            nn.Sequential(silu_conv(half, half), silu_conv(half, half, 3)) for _ in range(depth)
        )
        self.merge, self.residual = silu_conv(2 * half, cout), residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.left(x)
        for block in self.blocks:
            y = y + block(y) if self.residual else block(y)
        return self.merge(torch.cat([y, self.right(x)], 1))


class PyramidPool(nn.Module):
    """Three max pools in a row, all concatenated: receptive fields of 5, 9 and 13."""

    def __init__(self, channels: int):
        super().__init__()
        self.reduce, self.merge = silu_conv(channels, channels // 2), silu_conv(channels * 2, channels)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = [self.reduce(x)]
        for _ in range(3):
            levels.append(self.pool(levels[-1]))
        return self.merge(torch.cat(levels, 1))


class Detector(nn.Module):
    """One-stage detector in the manner of YOLO v5 small: SiLU, concatenations, up- and downward pyramid.

    Returns ``[N, boxes, 5 + classes]`` with sigmoids applied.
    """

    def __init__(self, classes: int = 80, anchors: int = 3):
        super().__init__()
        self.columns = 5 + classes
        self.stem = nn.Sequential(silu_conv(3, 32, 6, 2), silu_conv(32, 64, 3, 2), PartialStage(64, 64, 1))
        self.stage3 = nn.Sequential(silu_conv(64, 128, 3, 2), PartialStage(128, 128, 2))
        self.stage4 = nn.Sequential(silu_conv(128, 256, 3, 2), PartialStage(256, 256, 3))
        self.stage5 = nn.Sequential(silu_conv(256, 512, 3, 2), PartialStage(512, 512, 1), PyramidPool(512))
        self.lateral5, self.lateral4 = silu_conv(512, 256), silu_conv(256, 128)
        self.top4, self.top3 = PartialStage(512, 256, 1, False), PartialStage(256, 128, 1, False)
        self.down3, self.down4 = silu_conv(128, 128, 3, 2), silu_conv(256, 256, 3, 2)
        self.bottom4, self.bottom5 = PartialStage(256, 256, 1, False), PartialStage(512, 512, 1, False)
        self.heads = nn.ModuleList(nn.Conv2d(c, anchors * self.columns, 1) for c in (128, 256, 512))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        c3 = self.stage3(self.stem(x))
        c4 = self.stage4(c3)
        p5 = self.lateral5(self.stage5(c4))
        p4 = self.lateral4(self.top4(torch.cat([F.interpolate(p5, scale_factor=2.0), c4], 1)))
        n3 = self.top3(torch.cat([F.interpolate(p4, scale_factor=2.0), c3], 1))
        n4 = self.bottom4(torch.cat([self.down3(n3), p4], 1))
        n5 = self.bottom5(torch.cat([self.down4(n4), p5], 1))
        rows = []
        for head, level in zip(self.heads, (n3, n4, n5), strict=True):
            grid = head(level)
            batch, _, height, width = grid.shape
            grid = grid.view(batch, -1, self.columns, height, width).permute(0, 1, 3, 4, 2)
            rows.append(grid.sigmoid().reshape(batch, -1, self.columns))
        return torch.cat(rows, 1)


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions with batch norm and ReLU."""

    def __init__(self, cin: int, cout: int):
        super().__init__(ConvNorm(cin, cout, 3), ConvNorm(cout, cout, 3))


class UNet(nn.Module):
    """U-Net (Ronneberger et al., 2015) with transposed convolutions, ``[N, 3, H, W]`` to ``[N, 2, H, W]``."""

    def __init__(self, width: int = 32, levels: int = 4):
        super().__init__()
        widths = [width << level for level in range(levels + 1)]
        inner = list(zip(widths, widths[1:], strict=False))
        self.first = DoubleConv(3, width)
        self.down = nn.ModuleList(DoubleConv(a, b) for a, b in inner)
        self.lift = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, 2) for a, b in reversed(inner))
        self.up = nn.ModuleList(DoubleConv(2 * a, a) for a, _ in reversed(inner))
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = [self.first(x)]
        for block in self.down:
            skips.append(block(F.max_pool2d(skips[-1], 2)))
        y = skips.pop()
        for lift, block in zip(self.lift, self.up, strict=True):
            skip, lifted = skips.pop(), lift(y)
            # Odd sizes lose a row or column in the pool and get it back here.
            missing = [int(skip.shape[axis]) - int(lifted.shape[axis]) for axis in (3, 2)]
            if any(missing):
                lifted = F.pad(lifted, (0, missing[0], 0, missing[1]))
            y = block(torch.cat([skip, lifted], 1))
        return self.head(y)


class DeepLab(nn.Module):
    """DeepLab v3 (Chen et al., 2017): dilated trunk, parallel dilated convolutions, resized to the input."""

    def __init__(self, classes: int = 21):
        super().__init__()
        self.trunk = residual_trunk((3, 4, 6, 3), dilate_last=True)
        self.branches = nn.ModuleList(
            [ConvNorm(2048, 256)] + [ConvNorm(2048, 256, 3, dilation=d) for d in (6, 12, 18)]
        )
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2048, 256, 1), nn.ReLU())
        self.merge, self.refine = ConvNorm(5 * 256, 256), ConvNorm(256, 256, 3)
        self.head = nn.Conv2d(256, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.trunk(x)
        size = [int(y.shape[2]), int(y.shape[3])]
        pooled = F.interpolate(self.pooled(y), size=size, mode="nearest")
        y = self.merge(torch.cat([branch(y) for branch in self.branches] + [pooled], 1))
        size = [int(x.shape[2]), int(x.shape[3])]
        return F.interpolate(self.head(self.refine(y)), size=size, mode="bilinear", align_corners=False)
