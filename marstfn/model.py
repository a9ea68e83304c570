"""MARSTFN (Cheng et al. 2024, Remote Sensing 16:1033) in the paper's order, with its open points as options.

Shapes are written (n, c, h, w): n patches, c channels, on a 10 m patch of side p; Landsat has side p/3, pan 2p/3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marstfn.bands import BANDS, RATIO
from marstfn.reference import CHANNELS


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that fixes the network's form; stored with the weights.

    `multiscale`, `attention` and `residual` remove one part each, as the paper's Table 4 does; `danet` and `cbam`
    remove the attention inside the multiscale module and the CSARDB. `skip_merge`: how the four CSARDB outputs enter
    the 1x1x64 convolution. `anchor` "additive" makes the output a residual, zero at initialisation, on
    S2 + up(L - D(S2)); `guide` then shows the fine branch both parts of it beside S2, the change up(L - D(S2)) and the
    detail S2 - up(D(S2)), five times enlarged, which spares the network learning to subtract. Reflectance enters as
    (x - centre) / spread and leaves the other way round.
    `context`: the fine branch also sees what `marstfn.reference` tells of the reference: after minus before, and how
    far either lies. `uncertainty`: a seventh channel comes out, u, and |error| of band b is spread as u times a factor
    of its own; its layers learn from the others' features and never shape them. `network`: "dstfn" is the sibling
    (`marstfn.dstfn`), for which only the options named there hold.
    `patch`: side in 10 m pixels, a multiple of 6, for training and prediction alike, since SE, CBAM and DANet pool
    over the patch.
    """

    network: Literal["marstfn", "dstfn"] = "marstfn"
    pan: bool = True
    bands: int = len(BANDS)
    features: int = 64
    growth: int = 32
    layers: int = 6
    blocks: int = 4
    se_ratio: int = 16
    cbam_ratio: int = 16
    cbam_kernel: int = 7
    multiscale: bool = True
    attention: bool = True
    residual: bool = True
    danet: bool = True
    cbam: bool = True
    skip_merge: Literal["sum", "concat"] = "sum"
    anchor: Literal["none", "additive"] = "none"
    guide: bool = False
    context: bool = False
    uncertainty: bool = False
    centre: float = 0.0
    spread: float = 1.0
    patch: int = 60

    def __post_init__(self) -> None:
        if self.patch < 6 or self.patch % 6:
            raise ValueError(f"patch side {self.patch} px is not a multiple of 6 px; choose e.g. 60")
        if self.skip_merge not in ("sum", "concat"):
            raise ValueError(f"skip_merge {self.skip_merge!r} is unknown; use 'sum' or 'concat'")
        if self.anchor not in ("none", "additive"):
            raise ValueError(f"anchor {self.anchor!r} is unknown; use 'none' or 'additive'")
        if self.network not in ("marstfn", "dstfn"):
            raise ValueError(f"network {self.network!r} is unknown; use 'marstfn' or 'dstfn'")
        if self.guide and self.anchor == "none":
            raise ValueError("guide shows the parts of the additive baseline: it needs anchor 'additive'")
        if self.features % 8 or self.features < max(self.se_ratio, self.cbam_ratio):
            raise ValueError(f"{self.features} features do not serve DANet (a multiple of 8) and the attention ratios")
        if not self.spread > 0:
            raise ValueError(f"spread {self.spread} is not positive")

    @classmethod
    def arnet(cls, pan: bool = True) -> Config:
        """ARNet of Table 4: attention and residual, the multiscale modules replaced by a 3x3 convolution."""
        return cls(pan=pan, multiscale=False)

    @classmethod
    def mrnet(cls, pan: bool = True) -> Config:
        """MRNet of Table 4: multiscale and residual, no SE on the fine branch (section 2.1.3)."""
        return cls(pan=pan, attention=False)

    @classmethod
    def manet(cls, pan: bool = True) -> Config:
        """MANet of Table 4: multiscale and attention, no CSARDB between the fusing and the merging convolution."""
        return cls(pan=pan, residual=False)


class PositionAttention(nn.Module):
    """DANet's position attention without its residual: (n, c, h, w) -> (n, c, h, w), softmax over all pixels.

    Scores are not divided by sqrt(d) (Fu et al. 2019). `naive` keeps the (h w) x (h w) map in memory, for comparison.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = (f(x).flatten(2).transpose(1, 2).unsqueeze(1) for f in (self.query, self.key, self.value))
        # the fast kernels need equal widths; zero columns add nothing to q.k
        q, k = (F.pad(t, (0, c - t.shape[-1])) for t in (q, k))  # (n, 1, h w, c)
        out = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return out.squeeze(1).transpose(1, 2).reshape(n, c, h, w)

    def naive(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = (f(x).flatten(2) for f in (self.query, self.key, self.value))
        weights = torch.softmax(q.transpose(1, 2) @ k, dim=-1)  # (n, h w, h w)
        out: Tensor = (v @ weights.transpose(1, 2)).reshape(n, c, h, w)
        return out


class ChannelAttention(nn.Module):
    """DANet's channel attention without its residual: (n, c, h, w) -> (n, c, h, w); no parameters."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)  # (n, c, h w)
        energy = flat @ flat.transpose(1, 2)  # (n, c, c)
        # softmax(max - E) and softmax(-E) are the same map; the latter keeps more digits
        return (torch.softmax(-energy, dim=-1) @ flat).reshape(x.shape)


class DANet(nn.Module):
    """Position and channel attention in parallel, x + g1 P(x) + g2 C(x); g1 = g2 = 0 at first: the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.position = PositionAttention(channels)
        self.channel = ChannelAttention()
        self.gamma_position = nn.Parameter(torch.zeros(1))
        self.gamma_channel = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.gamma_position * self.position(x) + self.gamma_channel * self.channel(x)
        return out


class Multiscale(nn.Module):
    """Section 2.1.2: (n, inputs, h, w) -> (n, features, h, w).

    Five branches side by side: 1x1; 3x3 dilated by 2, 4 and 6, each followed by DANet; 3x3 average pooling (stride 1)
    and 1x1. Concatenated, fused by 1x1.
    """

    def __init__(self, inputs: int, features: int, danet: bool) -> None:
        super().__init__()
        self.point = nn.Conv2d(inputs, features, 1)
        self.dilated = nn.ModuleList(nn.Conv2d(inputs, features, 3, padding=d, dilation=d) for d in (2, 4, 6))
        self.attention = nn.ModuleList(DANet(features) if danet else nn.Identity() for _ in self.dilated)
        self.pooled = nn.Conv2d(inputs, features, 1)
        self.fuse = nn.Conv2d(5 * features, features, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        branches = [F.relu(self.point(x))]
        for conv, attend in zip(self.dilated, self.attention, strict=True):
            branches.append(attend(F.relu(conv(x))))
        branches.append(F.relu(self.pooled(pooled)))
        return F.relu(self.fuse(torch.cat(branches, 1)))  # (n, 5 features, h, w) -> (n, features, h, w)


class Conv(nn.Module):
    """3x3 convolution and ReLU, (n, inputs, h, w) -> (n, features, h, w): the branch of ARNet."""

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class SE(nn.Module):
    """Squeeze-and-excitation, equations 2-4: x * sigmoid(W2 relu(W1 mean(x))), (n, c, h, w) -> same."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // ratio, 1)
        self.up = nn.Conv2d(channels // ratio, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = x.mean((2, 3), keepdim=True)  # (n, c, 1, 1)
        return x * torch.sigmoid(self.up(F.relu(self.down(squeezed))))


class CBAM(nn.Module):
    """Channel, then spatial attention (Woo et al. 2018), one shared MLP, no normalisation; (n, c, h, w) -> same."""

    def __init__(self, channels: int, ratio: int, kernel: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // ratio, 1)
        self.up = nn.Conv2d(channels // ratio, channels, 1)
        self.spatial = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        mean, peak = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)  # (n, c, 1, 1)
        x = x * torch.sigmoid(self._mlp(mean) + self._mlp(peak))
        plane = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)  # (n, 2, h, w)
        return x * torch.sigmoid(self.spatial(plane))

    def _mlp(self, pooled: Tensor) -> Tensor:
        out: Tensor = self.up(F.relu(self.down(pooled)))
        return out


class RDB(nn.Module):
    """Residual dense block (Zhang et al. 2018): `layers` 3x3 convolutions with ReLU, each seeing all before it."""

    def __init__(self, channels: int, growth: int, layers: int, bias: bool = True) -> None:
        super().__init__()
        self.dense = nn.ModuleList(
            nn.Conv2d(channels + k * growth, growth, 3, padding=1, bias=bias) for k in range(layers)
        )
        self.fuse = nn.Conv2d(channels + layers * growth, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        stack = x
        for conv in self.dense:
            stack = torch.cat([stack, F.relu(conv(stack))], 1)  # (n, channels + k growth, h, w)
        out: Tensor = x + self.fuse(stack)
        return out


class CSARDB(nn.Module):
    """Section 2.1.4: CBAM, then RDB, equation 6; (n, c, h, w) -> same."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.attention: nn.Module = nn.Identity()
        if config.cbam:
            self.attention = CBAM(config.features, config.cbam_ratio, config.cbam_kernel)
        self.dense = RDB(config.features, config.growth, config.layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dense(self.attention(x))
        return out


class Doubt(nn.Module):
    """What is known of a pixel -> how far its bands may be off, (n, inputs, h, w) -> (n, 1, h, w) reflectance, > 0."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(inputs, 16, 3, padding=1)
        self.out = nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        # 0.01 at first; bounded, so that no pixel can claim to be certain or to know nothing
        return 0.01 * torch.exp(self.out(F.relu(self.near(x))).clamp(-3, 3))


class Network(nn.Module):
    """What every network shares: the order of its inputs, the additive anchor, the uncertainty beside the bands.

    A kind of network gives `features`: inputs in its own scale -> what it knows of every pixel, and `merged` channels
    of it, from which the last convolution makes the bands.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.out = nn.Conv2d(config.features, config.bands, 3, padding=1)
        seen = config.features + 2 * config.bands + (CHANNELS if config.context else 0)
        self.doubt = Doubt(seen) if config.uncertainty else None
        # logarithms, by band, of the mean error in units of u; only training uses them
        self.factors = nn.Parameter(torch.zeros(config.bands)) if config.uncertainty else None

    def forward(self, s2: Tensor, landsat: Tensor, pan: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """Reflectance (n, 6, p, p), (n, 6, p/3, p/3), (n, 1, 2p/3, 2p/3) or None, and (n, 8, p, p) where the network
        takes context -> (n, 6, p, p), float32, no NaN; (n, 7, p, p) with uncertainty.

        Raises ValueError where the shapes do not fit one another or pan is given to, or kept from, a network
        of the other kind.
        """
        self._check(s2, landsat, pan, context)
        config = self.config
        change, detail = parts(s2, landsat)
        known = self.features(s2, landsat, pan, context, change, detail)  # (n, 64, p, p)
        bands: Tensor = self.out(known) * config.spread  # (n, 6, p, p)
        if self.doubt is not None:
            scaled = [change.detach().abs() * (5 / config.spread), (s2 - config.centre) / config.spread]
            seen = torch.cat([known.detach(), *scaled, *([] if context is None else [context])], 1)
            u = self.doubt(seen)
        bands = bands + (s2 + change if config.anchor == "additive" else config.centre)
        return bands if self.doubt is None else torch.cat([bands, u], 1)

    def features(
        self, s2: Tensor, landsat: Tensor, pan: Tensor | None, context: Tensor | None, change: Tensor, detail: Tensor
    ) -> Tensor:
        raise NotImplementedError

    @property
    def inputs(self) -> int:
        """Channels that the fine branch sees."""
        return self.config.bands * (3 if self.config.guide else 1) + (CHANNELS if self.config.context else 0)

    def seen(self, s2: Tensor, context: Tensor | None, change: Tensor, detail: Tensor) -> Tensor:
        """What the fine branch sees, (n, inputs, p, p): Sentinel-2, with both parts of the anchor where it is guided,
        and the context of the reference where it takes it."""
        bands, spread = self.config.bands, self.config.spread
        seen = [(s2 - self.config.centre) / spread]
        if self.config.guide:
            seen += [change * (5 / spread), detail * (5 / spread)]
        if context is not None:
            seen += [context[:, :bands] * (5 / spread), context[:, bands:]]
        return torch.cat(seen, 1)

    def _check(self, s2: Tensor, landsat: Tensor, pan: Tensor | None, context: Tensor | None) -> None:
        n, bands, h, w = s2.shape
        if bands != self.config.bands or h % 6 or w % 6:
            raise ValueError(f"Sentinel-2 patch {tuple(s2.shape)} is not (n, {self.config.bands}, 6k, 6k)")
        if landsat.shape != (n, bands, h // RATIO, w // RATIO):
            raise ValueError(f"Landsat patch {tuple(landsat.shape)} does not match Sentinel-2 {tuple(s2.shape)}")
        if self.config.pan != (pan is not None):
            kind = "with" if self.config.pan else "without"
            raise ValueError(f"these weights work {kind} pan; give them the pan band or choose the other set")
        if pan is not None and pan.shape != (n, 1, h * 2 // RATIO, w * 2 // RATIO):
            raise ValueError(f"pan patch {tuple(pan.shape)} does not match Sentinel-2 {tuple(s2.shape)}")
        if self.config.context != (context is not None):
            kind = "with" if self.config.context else "without"
            raise ValueError(f"these weights work {kind} the context of the reference (marstfn.reference)")
        if context is not None and context.shape != (n, CHANNELS, h, w):
            raise ValueError(f"context {tuple(context.shape)} is not (n, {CHANNELS}, {h}, {w})")


class MARSTFN(Network):
    """The network of Figure 1: Sentinel-2 of another date, Landsat and pan of the date -> 10 m bands of the date."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        width = config.features

        def branch(inputs: int) -> nn.Module:
            return Multiscale(inputs, width, config.danet) if config.multiscale else Conv(inputs, width)

        self.coarse = branch(config.bands)
        self.sharp = branch(1) if config.pan else None
        self.fine = nn.Conv2d(self.inputs, width, 3, padding=1)
        self.excite: nn.Module = SE(width, config.se_ratio) if config.attention else nn.Identity()
        self.join = nn.Conv2d(width * (3 if config.pan else 2), width, 1)
        self.blocks = nn.ModuleList(CSARDB(config) for _ in range(config.blocks if config.residual else 0))
        merged = width * (config.blocks if config.skip_merge == "concat" and config.residual else 1)
        self.merge = nn.Conv2d(merged, width, 1)
        self._initialise()

    def features(
        self, s2: Tensor, landsat: Tensor, pan: Tensor | None, context: Tensor | None, change: Tensor, detail: Tensor
    ) -> Tensor:
        size = s2.shape[-2:]
        centre, spread = self.config.centre, self.config.spread
        coarse = enlarge(self.coarse((landsat - centre) / spread), size)  # (n, 64, p, p)
        fine = self.excite(F.relu(self.fine(self.seen(s2, context, change, detail))))  # (n, 64, p, p)
        branches = [fine, coarse]
        if self.sharp is not None and pan is not None:
            branches.append(enlarge(self.sharp((pan - centre) / spread), size))  # (n, 64, p, p)
        x = self.join(torch.cat(branches, 1))  # (n, 192, p, p) -> (n, 64, p, p)
        skips: list[Tensor] = []
        for block in self.blocks:
            x = block(x)
            skips.append(x)
        if not skips:
            merged = x
        elif self.config.skip_merge == "sum":
            merged = torch.stack(skips).sum(0)
        else:
            merged = torch.cat(skips, 1)  # (n, 256, p, p)
        known: Tensor = self.merge(merged) + coarse  # (n, 64, p, p)
        return known

    def _initialise(self) -> None:
        kaiming(self)
        # the variance would double in every block and in the sum of the skips
        for module in self.modules():
            if isinstance(module, RDB):
                module.fuse.weight.data.mul_(0.1)
            # gates half shut would let a 4 ** -blocks part of the fine branch through: they begin open
            if isinstance(module, CBAM):
                _open(module.up, 1.5)
                _open(module.spatial, 3.0)
            if isinstance(module, SE):
                _open(module.up, 3.0)
        if self.config.blocks and self.config.skip_merge == "sum":
            self.merge.weight.data.mul_(1 / self.config.blocks)
        start(self)


def build(config: Config) -> Network:
    """The network that `config` describes, with fresh parameters."""
    if config.network == "dstfn":
        from marstfn.dstfn import DSTFN

        return DSTFN(config)
    return MARSTFN(config)


def kaiming(network: nn.Module) -> None:
    """He et al. 2015 for every convolution, biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def start(network: Network) -> None:
    """The last layers of a network whose others are initialised: an anchored one begins as its anchor."""
    if network.config.anchor == "additive":
        nn.init.zeros_(network.out.weight)
    if network.doubt is not None:
        nn.init.zeros_(network.doubt.out.weight)


def anchor(s2: Tensor, landsat: Tensor) -> Tensor:
    """The additive baseline S2 + up(L - D(S2)), D the 3x3 mean, up bicubic; (n, b, p, p), (n, b, p/3, p/3)."""
    return s2 + parts(s2, landsat)[0]


def parts(s2: Tensor, landsat: Tensor) -> tuple[Tensor, Tensor]:
    """up(L - D(S2)), the change that Landsat saw, and S2 - up(D(S2)), the detail it cannot see; (n, b, p, p) each."""
    coarse = F.avg_pool2d(s2, RATIO)
    size = s2.shape[-2:]
    return enlarge(landsat - coarse, size), s2 - enlarge(coarse, size)


def parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(math.prod(p.shape) for p in model.parameters() if p.requires_grad)


def _open(gate: nn.Conv2d, bias: float) -> None:
    assert gate.bias is not None
    nn.init.constant_(gate.bias, bias)


def enlarge(x: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bicubic", align_corners=False)
