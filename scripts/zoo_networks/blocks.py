"""Building blocks that several networks of the zoo share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

Activation = Callable[[], nn.Module]


class ConvNorm(nn.Sequential):
    """Convolution, batch norm and an optional activation, "same" padding for odd kernels.

    Parameters
    ----------
    cin, cout : int
        Channels in and out.
    kernel, stride, dilation, groups : int
        As in :class:`torch.nn.Conv2d`.
    act : callable returning a module, or None
        Activation class; ``None`` leaves the result linear.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int = 1,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        act: Activation | None = nn.ReLU,
    ):
        padding = dilation * (kernel - 1) // 2
        layers: list[nn.Module] = [
            nn.Conv2d(cin, cout, kernel, stride, padding, dilation, groups, bias=False),
            nn.BatchNorm2d(cout),
        ]
        if act is not None:
            layers.append(act())
        super().__init__(*layers)


class SqueezeExcite(nn.Module):
    """Channel gate from the image's mean: ``x * gate(expand(act(squeeze(mean(x)))))``."""

    def __init__(self, channels: int, squeezed: int, act: Activation, gate: Activation):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.act, self.gate = act(), gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.expand(self.act(self.squeeze(mean))))


class SelfAttention(nn.Module):
    """Multi-head self-attention on tokens ``[batch, tokens, hidden]``.

    ``packed`` makes queries, keys and values by one linear layer, as vision transformers do, else by three.
    """

    def __init__(self, hidden: int, heads: int, packed: bool):
        super().__init__()
        self.heads, self.packed = heads, packed
        if packed:
            self.qkv = nn.Linear(hidden, 3 * hidden)
        else:
            self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.out = nn.Linear(hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, hidden = x.shape
        parts = self.qkv(x).chunk(3, -1) if self.packed else (self.query(x), self.key(x), self.value(x))
        q, k, v = (part.reshape(batch, tokens, self.heads, -1).transpose(1, 2) for part in parts)
        scores = q @ k.transpose(-1, -2) * (hidden // self.heads) ** -0.5
        mixed = scores.softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, hidden))
