"""What turns a reference and Landsat into reflectance at 10 m, and what each way asks of the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marstfn.baselines import LOCAL, METHODS, Array, Kind
from marstfn.patches import fill_holes, starts
from marstfn.predict import Predict, Predictor, window
from marstfn.reference import Reference

NETWORK = "network"

OVERLAP = 12
"""10 m pixels that a network's patches share over a whole image."""

ALONE = ("copy", "linear")
"""Methods that are Sentinel-2 and nothing else."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method on patches, and its form of the reference: the nearest clear day or both sides interpolated to the date,
    and whether their difference and ages come along."""

    name: str
    predict: Predict
    kind: Kind = "nearest"
    context: bool = False
    interval: tuple[float, ...] | None = None
    """Where there is a seventh channel: by band, what makes it the half-width of the 90 % interval."""
    side: int = LOCAL
    """Of its windows in 10 m pixels; a network takes no other."""
    pan: bool = False
    """Whether pan is of use to it."""
    holes: bool = False
    """Whether it is given NaN where a mask hides a pixel; else holes are filled beforehand."""

    @property
    def both(self) -> bool:
        """Whether it looks at Sentinel-2 on both sides of the date."""
        return self.kind == "between" or self.context

    def reference(self, around: Reference) -> Array:
        """(6, H, W) in the form the method takes."""
        return around.between() if self.kind == "between" else around.nearest()

    def whole(self, around: Reference, landsat: Array, pan: Array | None = None) -> Array:
        """(6,H,W) float32 of one image: a network in blended patches, any other method in one piece; (7,H,W) with
        uncertainty.

        `around` (6,H,W), `landsat` (6,H/3,W/3), `pan` (1,2H/3,2W/3) or None, NaN where masked. What is Sentinel-2 and
        nothing else, or takes holes as they are, stays NaN where it has nothing to say. ValueError where the image is
        smaller than the patch of a network.
        """
        s2, sharp = self.reference(around), pan if self.pan else None
        if self.name == NETWORK:
            context = around.context() if self.context else None
            rows, cols = (starts(n, self.side, self.side - OVERLAP) for n in s2.shape[1:])
            return window(self.predict, s2, landsat, sharp, rows, cols, self.side, OVERLAP, context)
        if not self.holes and self.name not in ALONE:
            s2, landsat, sharp = fill_holes(s2, landsat, sharp)
        made = self.predict(s2[None], landsat[None], None if sharp is None else sharp[None], None)
        return np.asarray(made[0], np.float32)


def network(predictor: Predictor) -> Method:
    """The network of a predictor."""
    kind: Kind = "between" if predictor.context else "nearest"
    return Method(
        NETWORK, predictor, kind, predictor.context, predictor.interval, side=predictor.patch, pan=predictor.pan
    )


def free(name: str) -> Method:
    """The method `name` of those that need no training, patch by patch."""
    chosen = METHODS[name]

    def predict(s2: Array, landsat: Array, pan: Array | None, context: Array | None = None) -> Array:
        sharp = [None] * len(s2) if pan is None or not chosen.pan else list(pan)
        made = [chosen.function(a, b, c) for a, b, c in zip(s2, landsat, sharp, strict=True)]
        return np.stack(made) if made else s2

    return Method(name, predict, chosen.kind, side=chosen.side, pan=chosen.pan, holes=chosen.holes)
