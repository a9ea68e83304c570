"""How far a fused value may be off: one layer for all bands, and a factor a band that makes it an interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from marstfn.bands import BANDS
from pipeline.encoding import FILL, SCALE
from pipeline.plan import Plan

FACTOR = "interval90_factor"
"""Attribute of a band: the half-width of its 90 % interval is this times `uncertainty`."""
ATTRS: dict[str, Any] = {
    "_FillValue": FILL,
    "scale_factor": SCALE,
    "units": "1",
    "long_name": "uncertainty of the pixels that the network fused, reflectance",
    "comment": f"a band's value holds within plus or minus its attribute {FACTOR} times this in about 90 % of the "
    "pixels on which the weights were calibrated; nothing where the method gives none",
}


def factors(plan: Plan) -> tuple[float, ...] | None:
    """By band, those of the first of the plan's weights that have any; None where none has."""
    return next((ref.interval for ref in plan.weights if ref.interval is not None), None)


def scale(plan: Plan, interval: Sequence[float]) -> float:
    """What brings the uncertainty of weights with these factors to the plan's: geometric mean of their ratios.

    Weights with and without pan share the cube's one factor a band; where their bands differ among themselves, the
    half-width is off by what a band's ratio stands off the mean one.
    """
    common = factors(plan)
    if common is None:
        return 1.0
    return float(np.exp(np.mean(np.log(np.asarray(interval) / np.asarray(common)))))


def of_band(plan: Plan, band: str) -> dict[str, Any]:
    """What a band of the fused cube says of its interval; nothing where there is no uncertainty."""
    common = factors(plan)
    return {} if common is None else {FACTOR: float(common[BANDS.index(band)])}
