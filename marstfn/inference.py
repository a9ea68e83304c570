"""MARSTFN as it predicts: the same function as `marstfn.model`, with what is linear folded together beforehand.

`marstfn.model` is the form that learns; here nothing is differentiated. Arrays are channels last throughout, so that a
1x1 convolution is one matrix product over (n h w, c). Folded, exactly but for rounding: the fusing convolution of a
multiscale module into the values of its position attention and into the map of its channel attention; SE's gate and the
joining convolution; the residual of a dense block into its 1x1 convolution; the convolutions of the uncertainty into
those that see the same arrays. Bicubic enlarging is linear in rows and in columns: two matrix products.

In half precision the anchor, the last convolution and its sum, and the energy of channel attention stay float32.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from marstfn.attention import position
from marstfn.convolution import SUMMED, Convolution, Place, bias, dense, matrix, rows
from marstfn.model import CBAM, CSARDB, MARSTFN, RDB, SE, Config, DANet, Multiscale, parts

Kind = TypeVar("Kind", bound=nn.Module)


VARIANT = "folded 1, summed"
"""Of the arithmetic here: a new number whenever it changes, since pixels may then differ by rounding. It belongs
to what identifies a fused tile."""
TRAINED = "as trained"


def supports(config: Config) -> bool:
    """Whether `Inference` knows this network; the ablations and the sibling predict in the form that learns."""
    c = config
    whole = c.multiscale and c.attention and c.residual and c.danet and c.cbam and c.blocks > 0 and c.layers > 0
    return c.network == "marstfn" and whole and c.skip_merge == "sum"


def variant(config: Config) -> str:
    """Which arithmetic a network is predicted with; it belongs to what identifies its pixels."""
    return VARIANT if supports(config) else TRAINED


class Inference:
    """A trained MARSTFN on `device` in `dtype`; called as the network is, with float32 reflectance in and out.

    `form`: of its dense blocks. Raises ValueError for a network that `supports` refuses.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        form: str = SUMMED,
    ) -> None:
        if not (isinstance(network, MARSTFN) and supports(network.config)):
            raise ValueError("this form of network has no inference form of its own; call the network itself")
        self.config = config = network.config
        self.dtype = dtype
        own, full = Place(torch.device(device), dtype), Place(torch.device(device), torch.float32)
        self._coarse = _Multiscale(_is(network.coarse, Multiscale), own)
        self._sharp = None if network.sharp is None else _Multiscale(_is(network.sharp, Multiscale), own)
        self._join = [own.put(part) for part in torch.split(matrix(network.join), config.features, 1)]
        self._join_bias = own.put(bias(network.join))
        excite = _is(network.excite, SE)
        self._excite = _Gate(excite.down, excite.up, own)
        self._blocks = [_Block(_is(b, CSARDB), own, form) for b in network.blocks]
        self._merge, self._merge_bias = own.put(matrix(network.merge)), own.put(bias(network.merge))
        head = network.out
        self._head = Convolution(head.weight * config.spread, bias(head) * config.spread, full, relu=False)
        fine = network.fine.weight.detach()
        if network.doubt is not None:
            near, last = network.doubt.near, network.doubt.out
            fine, seen = self._aligned(fine, near.weight.detach()[:, config.features :])
            # the uncertainty's first layer is linear in what it sees of the features and of the inputs: two parts
            self._seen_too = Convolution(seen, bias(near), own, relu=False)
            self._known_too = Convolution(near.weight[:, : config.features], None, own, relu=False)
            self._doubt, self._doubt_bias = full.put(matrix(last)), full.put(bias(last))
        self._fine = Convolution(fine, bias(network.fine), own)

    def __call__(self, s2: Tensor, landsat: Tensor, pan: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """(n,6,p,p), (n,6,p/3,p/3), (n,1,2p/3,2p/3) or None, (n,8,p,p) or None -> (n,6,p,p), or (n,7,p,p) with
        uncertainty; float32 reflectance, no NaN in."""
        config, dtype = self.config, self.dtype
        n, _, h, w = s2.shape
        centre, spread = config.centre, config.spread
        change, detail = parts(s2, landsat)
        coarse = enlarged(self._coarse(_last((landsat - centre) / spread, dtype)), h, w)  # (n, h, w, c)
        seen = self._seen(s2, context, change, detail)
        fine = self._fine(seen)
        gate = self._excite(fine.mean((2, 3)))  # (n, c)
        gated = self._join[0] * gate[:, None, :]  # (n, c, c): the gate in the matrix spares a pass over the pixels
        x = torch.baddbmm(self._join_bias, rows(fine), gated.transpose(1, 2))  # (n, h w, c)
        x.view(n * h * w, -1).addmm_(coarse.view(n * h * w, -1), self._join[1].t())
        if self._sharp is not None and pan is not None:
            low = F.linear(self._sharp(_last((pan - centre) / spread, dtype)), self._join[2])
            x += enlarged(low, h, w).view(n, h * w, -1)
        total: Tensor | None = None
        for block in self._blocks:
            x = block(x, h, w)
            # the first block's result is read again by the second, so the sum is an array of its own
            total = x.clone() if total is None and len(self._blocks) > 1 else x if total is None else total.add_(x)
        assert total is not None
        known = coarse.view(n * h * w, -1).add_(self._merge_bias).addmm_(total.view(n * h * w, -1), self._merge.t())
        known = known.view(n, h, w, -1).permute(0, 3, 1, 2)  # (n, c, h, w), channels last
        bands: Tensor = self._head(known.float())
        bands += (s2 + change) if config.anchor == "additive" else centre
        if not config.uncertainty:
            return bands
        near = F.relu_(self._known_too(known) + self._seen_too(seen)).float()
        u = F.linear(near.permute(0, 2, 3, 1), self._doubt, self._doubt_bias).permute(0, 3, 1, 2)
        return torch.cat([bands, 0.01 * torch.exp(u.clamp_(-3, 3))], 1)

    def _seen(self, s2: Tensor, context: Tensor | None, change: Tensor, detail: Tensor) -> Tensor:
        """What the fine branch and the doubt see together, (n, c, p, p)."""
        config, b = self.config, self.config.bands
        seen = [(s2 - config.centre) / config.spread]
        if config.guide:
            seen += [change * (5 / config.spread), detail * (5 / config.spread)]
        if config.uncertainty:
            seen.append(change.abs() * (5 / config.spread))
        if context is not None:
            seen += [context[:, :b] * (5 / config.spread), context[:, b:]]
        n, _, h, w = s2.shape
        channels = sum(t.shape[1] for t in seen)
        out = torch.empty((n, h, w, channels), device=s2.device, dtype=self.dtype).permute(0, 3, 1, 2)
        at = 0
        for t in seen:
            out[:, at : at + t.shape[1]] = t
            at += t.shape[1]
        return out

    def _aligned(self, fine: Tensor, doubt: Tensor) -> tuple[Tensor, Tensor]:
        """Kernels of the fine branch and of the doubt on the channels of `_seen`: zeros where one does not look.

        The doubt was taught on |change|, Sentinel-2 and context as it stands, in this order.
        """
        config, b = self.config, self.config.bands
        own = b * (3 if config.guide else 1)
        fine = torch.cat([fine[:, :own], fine.new_zeros(len(fine), b, *fine.shape[2:]), fine[:, own:]], 1)
        change, s2, context = doubt[:, :b], doubt[:, b : 2 * b], doubt[:, 2 * b :]
        seen = [s2, doubt.new_zeros(len(doubt), own - b, *doubt.shape[2:]), change]
        if config.context:
            seen += [context[:, :b] * (config.spread / 5), context[:, b:]]
        return fine, torch.cat(seen, 1)


class _Multiscale:
    """(n, inputs, h, w) -> (n, h, w, features)."""

    def __init__(self, module: Multiscale, place: Place) -> None:
        fuse = matrix(module.fuse).double()  # (f, 5 f)
        self._width = len(fuse)
        kernels = torch.split(fuse, self._width, 1)
        self._bias = place.put(bias(module.fuse))
        pointwise = (module.point, module.pooled)
        self._point, self._pooled = ((place.put(matrix(c)), place.put(bias(c))) for c in pointwise)
        self._fuse = [place.put(kernels[0]), place.put(kernels[4])]
        convs = [_is(c, nn.Conv2d) for c in module.dilated]
        self._dilated = [Convolution(c.weight, bias(c), place, dilation=int(c.dilation[0])) for c in convs]
        self._attend = [_DANet(_is(a, DANet), k, place) for a, k in zip(module.attention, kernels[1:4], strict=True)]

    def __call__(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        pooled = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        out = F.linear(F.linear(rows(x), *self._point).relu_(), self._fuse[0], self._bias)
        out.view(n * h * w, -1).addmm_(F.linear(rows(pooled), *self._pooled).relu_().flatten(0, 1), self._fuse[1].t())
        for conv, attend in zip(self._dilated, self._attend, strict=True):
            attend(rows(conv(x)), out)
        return out.relu_().view(n, h, w, self._width)


class _DANet:
    """Adds K (x + g1 P(x) + g2 C(x)) to `out`, K the part of the fusing convolution that sees this branch.

    Weights of a softmax sum to 1, so that K g1 and the value's bias go into its convolution; channel attention is one
    (c, c) map a patch, so that K (1 + g2 map) is one too.
    """

    def __init__(self, module: DANet, kernel: Tensor, place: Place) -> None:
        at = module.position
        folded = kernel * module.gamma_position.detach().double()
        weights = [matrix(at.query).double(), matrix(at.key).double(), folded @ matrix(at.value).double()]
        offsets = [bias(at.query).double(), bias(at.key).double(), folded @ bias(at.value).double()]
        self._split = [len(w) for w in weights]
        self._weight, self._bias = place.put(torch.cat(weights)), place.put(torch.cat(offsets))
        full = Place(place.device, torch.float32)
        self._kernel = full.put(kernel)  # (f, c)
        self._gamma_kernel = full.put(kernel * module.gamma_channel.detach().double())

    def __call__(self, x: Tensor, out: Tensor) -> None:
        """x (n, h w, c), out (n, h w, f)."""
        query, key, value = torch.split(F.linear(x, self._weight, self._bias), self._split, 2)
        position(query, key, value, out)
        # energies grow with the number of pixels: float16 would overflow
        wide = x.float()
        energy = wide.transpose(1, 2) @ wide  # (n, c, c)
        channel = self._kernel + self._gamma_kernel @ torch.softmax(-energy, dim=-1)  # (n, f, c)
        out.baddbmm_(x, channel.transpose(1, 2).to(x.dtype))


class _Gate:
    """Two small matrices, ReLU between and a sigmoid after: what was pooled, (n, c) each -> (n, c) in 0..1."""

    def __init__(self, down: nn.Conv2d, up: nn.Conv2d, place: Place) -> None:
        self._down, self._up = ((place.put(matrix(c)), place.put(bias(c))) for c in (down, up))

    def __call__(self, *pooled: Tensor) -> Tensor:
        out = F.linear(F.linear(pooled[0], *self._down).relu_(), *self._up)
        for more in pooled[1:]:
            out += F.linear(F.linear(more, *self._down).relu_(), *self._up)
        return out.sigmoid_()


class _Block:
    """CBAM and dense block, (n, h w, c) -> same."""

    def __init__(self, module: CSARDB, place: Place, form: str) -> None:
        attention = _is(module.attention, CBAM)
        self._gate = _Gate(attention.down, attention.up, place)
        self._spatial = Convolution(attention.spatial.weight, bias(attention.spatial), place, relu=False)
        self._dense = dense(_is(module.dense, RDB), place, form)

    def __call__(self, x: Tensor, h: int, w: int) -> Tensor:
        n, _, width = x.shape
        room = self._dense.room(n, h, w)
        gated = room[..., :width]
        torch.mul(x.view(n, h, w, width), self._gate(x.mean(1), x.amax(1))[:, None, None, :], out=gated)
        plane = torch.stack([gated.mean(3), gated.amax(3)], 1)  # (n, 2, h, w)
        gated *= self._spatial(plane).sigmoid_().view(n, h, w, 1)
        return self._dense(room).view(n, h * w, width)


def enlarged(x: Tensor, height: int, width: int) -> Tensor:
    """(n, h, w, c) -> (n, height, width, c), bicubic, as `marstfn.model.enlarge`."""
    n, h, w, c = x.shape
    down, across = (_bicubic(a, b, x.device, x.dtype) for a, b in ((h, height), (w, width)))
    tall = torch.matmul(down, x.reshape(n, h, w * c)).view(n * height, w, c)
    return torch.matmul(across, tall).view(n, height, width, c)


@lru_cache(maxsize=32)
def _bicubic(few: int, many: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(many, few): what each new pixel takes of the old ones along an axis."""
    with torch.inference_mode(False):
        eye = torch.eye(few)[None, None]
        taken = F.interpolate(eye, size=(many, few), mode="bicubic", align_corners=False)[0, 0]
        return taken.to(device, dtype)


def _last(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype, memory_format=torch.channels_last)


def _is(module: nn.Module, kind: type[Kind]) -> Kind:
    assert isinstance(module, kind)
    return module
