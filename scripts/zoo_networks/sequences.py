"""Networks over tokens, vectors and signals: transformer encoders, perceptron, 1-D convolutions."""

from __future__ import annotations

import torch
from torch import nn

from .blocks import SelfAttention


class EncoderLayer(nn.Module):
    """Transformer encoder layer; ``norm_first`` as in vision transformers, otherwise as in BERT."""

    def __init__(self, hidden: int, heads: int, norm_first: bool):
        super().__init__()
        self.attention = SelfAttention(hidden, heads, packed=norm_first)
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.up, self.act, self.down = nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden)
        self.norm_first = norm_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.norm_first:
            x = x + self.attention(self.norm1(x))
            return x + self.down(self.act(self.up(self.norm2(x))))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.down(self.act(self.up(x))))


class Bert(nn.Module):
    """BERT base (Devlin et al., 2018) with a two-class head, token ids ``[N, T]`` to ``[N, 2]``."""

    def __init__(self, vocabulary: int = 30522, hidden: int = 768, layers: int = 12):
        super().__init__()
        self.words, self.positions = nn.Embedding(vocabulary, hidden), nn.Embedding(512, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.encoder = nn.Sequential(*(EncoderLayer(hidden, 12, False) for _ in range(layers)))
        self.classifier = nn.Linear(hidden, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.words(ids) + self.positions.weight[: ids.shape[1]])
        return self.classifier(self.encoder(x)[:, 0])


class VisionTransformer(nn.Module):
    """ViT small, 16x16 patches (Dosovitskiy et al., 2020)."""

    def __init__(self, size: int = 224, hidden: int = 384, layers: int = 12):
        super().__init__()
        self.patches = nn.Conv2d(3, hidden, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, hidden) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, (size // 16) ** 2 + 1, hidden) * 0.02)
        self.encoder = nn.Sequential(*(EncoderLayer(hidden, 6, True) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(hidden), nn.Linear(hidden, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], 1) + self.positions
        return self.head(self.norm(self.encoder(tokens))[:, 0])


def mlp() -> nn.Module:
    """Three linear layers with ReLU between, ``[N, 1024]`` to ``[N, 1024]``."""
    return nn.Sequential(
        nn.Linear(1024, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1024)
    )


class SeparableConv1d(nn.Module):
    """Depth-wise and point-wise 1-D convolution with batch norm, around a shortcut."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False),
            nn.Conv1d(channels, channels, 1, bias=False),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Conv1d(channels, channels, 1, bias=False),
            nn.BatchNorm1d(channels),
        )
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x + self.body(x))


def speech() -> nn.Module:
    """Acoustic model of separable 1-D convolutions, ``[N, 64, T]`` to letter scores ``[N, 29, T / 2]``."""
    stem = [nn.Conv1d(64, 256, 33, 2, 16, bias=False), nn.BatchNorm1d(256), nn.ReLU()]
    blocks = [SeparableConv1d(256, kernel) for kernel in (33, 33, 39, 39, 51, 51, 63, 63)]
    return nn.Sequential(*stem, *blocks, nn.Conv1d(256, 29, 1))
