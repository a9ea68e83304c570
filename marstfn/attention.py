"""Exact position attention without the (h w) x (h w) map in memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 64
"""Pixels that ask at once on a CPU: their scores against all others stay in its cache."""


def position(query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> None:
    """Add softmax(q k') v to `out`: (n, N, d), (n, N, d), (n, N, c) -> (n, N, c); scores are not divided by sqrt(d).

    Of no more than rounding apart from DANet's definition (Fu et al. 2019).
    """
    if query.device.type == "cpu" and query.dtype == torch.float32:
        _blocks(query, key, value, out)
    else:
        out += padded(query, key, value)


def padded(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """By torch's fused attention, whose fast kernels want q and k as wide as v: zeros add nothing to q k'."""
    wide = value.shape[-1]
    q, k = (F.pad(t, (0, wide - t.shape[-1])).unsqueeze(1) for t in (query, key))
    return F.scaled_dot_product_attention(q, k, value.contiguous().unsqueeze(1), scale=1.0).squeeze(1)


def _blocks(query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> None:
    """Some pixels after others, at their own width: torch's fused kernel for CPUs would multiply the zeros."""
    pixels = query.shape[1]
    room = torch.empty((min(BLOCK, pixels), pixels))
    for q, k, v, o in zip(query, key.transpose(1, 2), value, out, strict=True):
        for first in range(0, pixels, BLOCK):
            asking = q[first : first + BLOCK]
            # one piece of memory for all blocks: fresh pages cost more than the softmax
            scores = torch.mm(asking, k, out=room[: len(asking)])
            o[first : first + BLOCK].addmm_(torch.softmax(scores, dim=-1, out=scores), v)
