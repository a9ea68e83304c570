"""What turns a reference and Landsat into reflectance at 10 m, and what each way asks of the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from marstfn.baselines import METHODS, REFERENCE, Array, Kind
from marstfn.predict import Predict, Predictor
from marstfn.reference import Reference

NETWORK = "network"


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

    @property
    def both(self) -> bool:
        """Whether it looks at Sentinel-2 on both sides of the date."""
        return self.kind == "between" or self.context

    def reference(self, around: Reference) -> Array:
        """(6, H, W) in the form the method takes."""
        return around.between() if self.kind == "between" else around.nearest()


def network(predictor: Predictor) -> Method:
    """The network of a predictor."""
    kind: Kind = "between" if predictor.context else "nearest"
    return Method(NETWORK, predictor, kind, predictor.context, predictor.interval)


def free(name: str) -> Method:
    """The method `name` of those that need no training, patch by patch."""
    function = METHODS[name]

    def predict(s2: Array, landsat: Array, pan: Array | None, context: Array | None = None) -> Array:
        return np.stack([function(a, b, None) for a, b in zip(s2, landsat, strict=True)]) if len(s2) else s2

    return Method(name, predict, REFERENCE[name])
