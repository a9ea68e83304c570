"""DSTFN (Wu et al. 2022, International Journal of Applied Earth Observation 108:102738), MARSTFN's sibling.

The same order of inputs and residual dense blocks; in place of multiscale modules, SE and CBAM, Landsat passes an
attention block of its own (CSA) and a dense block, the trunk three of each, and their outputs alone are merged.
Form after the network file that Evoland's TAMRF-SITS re-published; 64 features, six layers, growth 32 are inferred.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marstfn.model import RDB, Config, Network, enlarge, kaiming, start

TRUNK = 3
"""Attention and dense blocks after the branches are joined."""


class CSA(nn.Module):
    """Channel and spatial attention side by side, added, then a 3x3 convolution; (n, c, h, w) -> same."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        narrow = channels // ratio
        self.mean = _gate(channels, narrow)
        self.peak = _gate(channels, narrow)
        self.channel = nn.Conv2d(2 * channels, channels, 3, padding=1, bias=False)
        self.depth = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.plane = nn.Conv2d(channels, 1, 1, bias=False)
        self.spatial = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.fuse = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a = x * self.mean(x.mean((2, 3), keepdim=True))
        b = x * self.peak(x.amax((2, 3), keepdim=True))
        by_channel = F.relu(self.channel(torch.cat([a, b], 1)))
        place = torch.sigmoid(self.plane(F.relu(self.depth(x))))  # (n, 1, h, w)
        by_place = F.relu(self.spatial(x * place))
        return F.relu(self.fuse(by_channel + by_place))


class DSTFN(Network):
    """Sentinel-2 of another date, Landsat and pan of the date -> 10 m bands of the date, reflectance.

    Of `Config` it heeds pan, features, growth, layers, se_ratio (its channel attention), anchor, guide, context,
    uncertainty, centre, spread and patch; the published network has neither anchor nor guide nor context.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        width = config.features
        self.fine = nn.Conv2d(self.inputs, width, 3, padding=1)
        self.coarse = nn.Conv2d(config.bands, width, 3, padding=1)
        self.coarse_block = self._block()
        self.sharp = nn.Conv2d(1, width, 3, padding=1) if config.pan else None
        self.join = nn.Conv2d(width * (3 if config.pan else 2), width, 1)
        self.blocks = nn.ModuleList(self._block() for _ in range(TRUNK))
        self.merge = nn.Conv2d(TRUNK * width, width, 1)
        kaiming(self)
        start(self)

    def features(
        self, s2: Tensor, landsat: Tensor, pan: Tensor | None, context: Tensor | None, change: Tensor, detail: Tensor
    ) -> Tensor:
        size = s2.shape[-2:]
        centre, spread = self.config.centre, self.config.spread
        fine = F.relu(self.fine(self.seen(s2, context, change, detail)))
        coarse = enlarge(self.coarse_block(F.relu(self.coarse((landsat - centre) / spread))), size)
        branches = [fine, coarse]
        if self.sharp is not None and pan is not None:
            branches.append(enlarge(F.relu(self.sharp((pan - centre) / spread)), size))
        x = self.join(torch.cat(branches, 1))
        kept: list[Tensor] = []
        for block in self.blocks:
            x = block(x)
            kept.append(x)
        known: Tensor = self.merge(torch.cat(kept, 1)) + coarse
        return known

    def _block(self) -> nn.Sequential:
        config = self.config
        return nn.Sequential(
            CSA(config.features, config.se_ratio), RDB(config.features, config.growth, config.layers, bias=False)
        )


def _gate(channels: int, narrow: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, narrow, 1, bias=False),
        nn.ReLU(),
        nn.Conv2d(narrow, channels, 1, bias=False),
        nn.Sigmoid(),
    )
