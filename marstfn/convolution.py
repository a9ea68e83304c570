"""Convolutions of the inference form: channels last, activation in place, dense blocks without repeated joining."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marstfn.model import RDB

STACKED, SUMMED = "stacked", "summed"
"""Forms of the dense block: one buffer that fills up, or each map at once through all layers that will see it."""
FORMS = (STACKED, SUMMED)


@dataclass(frozen=True, slots=True)
class Place:
    """Where parameters lie and in which type."""

    device: torch.device
    dtype: torch.dtype

    def put(self, tensor: Tensor) -> Tensor:
        """A copy of it here, without its history."""
        return tensor.detach().to(self.device, self.dtype).contiguous()


def matrix(conv: nn.Conv2d) -> Tensor:
    """(out, in) of a 1x1 convolution."""
    return conv.weight.detach()[:, :, 0, 0]


def bias(conv: nn.Conv2d) -> Tensor:
    """(out,) of a convolution, zeros where it has none."""
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias.detach()


def rows(x: Tensor) -> Tensor:
    """(n, c, h, w), channels last -> (n, h w, c), the same memory."""
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(n, h * w, c)


class Convolution:
    """(n, in, h, w) -> (n, out, h, w), both channels last; a kernel that keeps the size, and ReLU where `relu`."""

    def __init__(
        self, weight: Tensor, offset: Tensor | None, place: Place, *, dilation: int = 1, relu: bool = True
    ) -> None:
        self._weight = place.put(weight).contiguous(memory_format=torch.channels_last)
        self._offset = None if offset is None else place.put(offset)
        self._dilation, self._relu = dilation, relu
        self._padding = dilation * (weight.shape[2] // 2)

    def __call__(self, x: Tensor) -> Tensor:
        out = F.conv2d(x, self._weight, self._offset, padding=self._padding, dilation=self._dilation)
        return out.relu_() if self._relu else out


class Dense(Protocol):
    """A dense block; its input is written into the first channels of `room`, which it then works in."""

    def room(self, n: int, h: int, w: int) -> Tensor:
        """Uninitialised (n, h, w, at least c)."""

    def __call__(self, room: Tensor) -> Tensor:
        """-> (n, h, w, c), an array of its own."""


def dense(block: RDB, place: Place, form: str) -> Dense:
    """The block in one of `FORMS`."""
    if form not in FORMS:
        raise ValueError(f"dense block in form {form!r} is unknown; there are {', '.join(FORMS)}")
    return (_Stacked if form == STACKED else _Summed)(block, place)


class _Stacked:
    """One buffer for all maps, (n, h, w, c + layers growth): no map is copied again when one more joins."""

    def __init__(self, block: RDB, place: Place) -> None:
        self._place = place
        self._layers = [Convolution(c.weight, c.bias, place) for c in _layers(block)]
        self._fuse, self._offset = place.put(matrix(block.fuse)), place.put(bias(block.fuse))

    def room(self, n: int, h: int, w: int) -> Tensor:
        return torch.empty((n, h, w, self._fuse.shape[1]), device=self._place.device, dtype=self._place.dtype)

    def __call__(self, room: Tensor) -> Tensor:
        maps = room.permute(0, 3, 1, 2)
        known = width = len(self._fuse)
        for conv in self._layers:
            made = conv(maps[:, :known])
            maps[:, known : known + made.shape[1]] = made
            known += made.shape[1]
        out = F.linear(room, self._fuse, self._offset)
        out += room[..., :width]
        return out


class _Summed:
    """Each map goes once through the kernels of all layers that see it, side by side; what a layer was owed adds up.

    No map is ever joined to another, and convolutions are as wide as can be.
    """

    def __init__(self, block: RDB, place: Place) -> None:
        self._place = place
        layers = _layers(block)
        self._width, self._growth = block.fuse.out_channels, layers[0].out_channels
        edges = [0, *(c.in_channels for c in layers), block.fuse.in_channels]
        self._wide: list[Convolution] = []
        for k, (lo, hi) in enumerate(pairwise(edges)):
            owed = layers[k:]
            if not owed:
                break
            kernel = torch.cat([c.weight.detach()[:, lo:hi] for c in owed])
            offset = torch.cat([bias(c) for c in layers]) if k == 0 else None
            self._wide.append(Convolution(kernel, offset, place, relu=False))
        widths = [self._width, *[self._growth] * len(layers)]
        self._fuse = [place.put(part) for part in torch.split(matrix(block.fuse), widths, 1)]
        self._offset = place.put(bias(block.fuse))

    def room(self, n: int, h: int, w: int) -> Tensor:
        return torch.empty((n, h, w, self._width), device=self._place.device, dtype=self._place.dtype)

    def __call__(self, room: Tensor) -> Tensor:
        n, h, w, width = room.shape
        flat = room.view(n * h * w, width)
        out = F.linear(flat, self._fuse[0], self._offset).add_(flat)
        owed = self._wide[0](room.permute(0, 3, 1, 2))  # (n, layers growth, h, w), before ReLU
        for k, part in enumerate(self._fuse[1:]):
            first = k * self._growth
            made = F.relu(owed[:, first : first + self._growth]).contiguous(memory_format=torch.channels_last)
            out.addmm_(made.permute(0, 2, 3, 1).reshape(n * h * w, -1), part.t())
            if k + 1 < len(self._wide):
                owed[:, first + self._growth :] += self._wide[k + 1](made)
        return out.view(n, h, w, width)


def _layers(block: RDB) -> list[nn.Conv2d]:
    return [c for c in block.dense if isinstance(c, nn.Conv2d)]
