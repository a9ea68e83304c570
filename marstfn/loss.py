"""The paper's adaptive loss, equations 7-9."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from marstfn.bands import RATIO


def adaptive(
    prediction: Tensor, target: Tensor, *, normalised: bool = True, detached: bool = True, mask: Tensor | None = None
) -> Tensor:
    """L = a L1 + b Lf with a = L1 / (L1 + Lf), b = Lf / (L1 + Lf); any equal shapes -> scalar.

    L1 is the mean absolute error, Lf the Frobenius norm of the error. `normalised` divides Lf by the square root of
    the number of values: without it b is nearly 1 on any image and L1 counts for nothing. `detached` keeps gradients
    from flowing through a and b. `mask` (bool, broadcastable) chooses the values that count. Raises ValueError on
    unlike shapes or an empty mask. A perfect prediction gives 0 with gradient 0.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
    error = prediction - target
    if mask is not None:
        error = error[mask.expand_as(error)]
        if not error.numel():
            raise ValueError("the mask leaves no pixel to learn from")
    l1 = error.abs().mean()
    squares = error.square()
    # the smallest number keeps the gradient of the root finite where the error is 0
    lf = (squares.mean() if normalised else squares.sum()).clamp_min(torch.finfo(error.dtype).tiny).sqrt()
    total = l1 + lf
    a, b = l1 / total, lf / total
    if detached:
        a, b = a.detach(), b.detach()
    return a * l1 + b * lf


def degradation(prediction: Tensor, target: Tensor, landsat: Tensor, mask: Tensor, weight: float = 0.5) -> Tensor:
    """DSTFN's loss: mean |error| + weight * mean |D(prediction) - landsat|, D the 3x3 mean; (n, b, p, p) and
    (n, b, p/3, p/3). That it is of this form, and the weight, is inferred; only pixels of `mask` (n, 1, p, p) count,
    and of D those with nothing but such pixels beneath."""
    fine = (prediction - target).abs()[mask.expand_as(target)].mean()
    whole = F.avg_pool2d(mask.float(), RATIO) == 1
    if not whole.any():
        return fine
    coarse = (F.avg_pool2d(prediction, RATIO) - landsat).abs()[whole.expand_as(landsat)].mean()
    return fine + weight * coarse


def laplace(error: Tensor, spread: Tensor, mask: Tensor) -> Tensor:
    """Mean of log(spread) + |error| / spread over the pixels of `mask`; spread > 0, of the same shape or broadcastable.

    The negative log-likelihood of a Laplace distribution but for a constant: least where spread is the mean of |error|.
    """
    values = torch.log(spread) + error.abs() / spread
    return values[mask.expand_as(values)].mean()
