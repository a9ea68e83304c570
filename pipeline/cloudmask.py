"""Cloud and shadow as a network sees them in the bands, in place of a product's own mask; chosen by name.

Whether it earns its place is not settled here. OmniCloudMask is published as better than the masks of either product
over bright ground and thin cloud, is MIT-licensed and can be had beside any build of torch from 2.3 on; but it brings
a dozen packages, a torchvision that must match torch to the version, and weights that it fetches at first use on every
worker. So it is an extra and never the default, and no figure of this project was made with it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.choices import CloudMaskName
from pipeline.errors import PlanError

Floats = npt.NDArray[np.float32]

CloudMask = Callable[[Floats, float], npt.NDArray[np.bool_]]
"""(bands, h, w) reflectance, NaN where nothing is, and the size of its pixels in metres; True: cloud or its shadow."""

CONTEXT = 96
"""Pixels around a tile that are shown with it: a cloud is known by its surroundings."""

DATES = 8
"""Dates whose bands are held at once for a mask."""


@dataclass(frozen=True, slots=True)
class Learned:
    """A mask that looks at bands."""

    bands: tuple[str, ...]
    """What it is shown, in order."""
    mask: CloudMask


def omnicloudmask(values: Floats, resolution: float) -> npt.NDArray[np.bool_]:
    """OmniCloudMask (Wright et al. 2025, 10.1016/j.rse.2025.114694) on red, green and near infrared of 10..50 m pixels.

    Thick and thin cloud and shadow, classes 1 to 3, count. Needs the extra `clouds`; weights are fetched at first use.
    """
    if not 10 <= resolution <= 50:
        raise ValueError(f"pixels of {resolution:g} m: omnicloudmask was trained on 10 to 50 m")
    from omnicloudmask import predict_from_array

    nothing = np.isnan(values).any(axis=0)
    if nothing.all():
        return np.zeros(nothing.shape, np.bool_)
    # its mark of nothing is 0, which dark water may be
    shown = np.where(nothing, 0.0, np.maximum(values, 1e-4)).astype(np.float32)
    side = min(1000, *nothing.shape)
    classes: npt.NDArray[Any] = predict_from_array(shown, patch_size=side, patch_overlap=min(300, side // 2))
    return np.asarray(np.isin(classes[0], (1, 2, 3)) & ~nothing, np.bool_)


MASKS: Mapping[str, tuple[str, Learned]] = {
    "omnicloudmask": ("omnicloudmask", Learned(("red", "green", "nir08"), omnicloudmask)),
}
"""By name: the package it needs, and the mask."""


@cache
def find(name: CloudMaskName) -> Learned | None:
    """The mask of this name, None for the product's own. Raises PlanError where its package is not installed."""
    if name == "product":
        return None
    package, learned = MASKS[name]
    if importlib.util.find_spec(package) is None:
        raise PlanError(
            f"cloud mask {name} needs the package {package}, which is not installed here; nothing was read. "
            f"Install it on every worker, pip install 'marstfn[clouds]', or use --cloud-mask product"
        )
    return learned
