"""What a plan fuses with: trained networks, loaded once a process, or a baseline; all of one form."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marstfn import weights as weight_files
from marstfn.baselines import METHODS, REFERENCE, Kind
from marstfn.predict import Predict, Predictor
from marstfn.reference import Reference
from pipeline.errors import WeightsError
from pipeline.plan import Method as MethodName
from pipeline.plan import Plan, WeightsRef

Array = NDArray[np.float32]

BASELINE_PATCH = 60
"""Side of the window of methods without weights: they run patch by patch like the network, so that no tile shows."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method and what it asks of the reference: the nearest clear day or both sides interpolated to the date, and
    whether their difference and ages come along."""

    name: MethodName
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


def patch_side(plan: Plan) -> int:
    """Side of the model window in 10 m pixels."""
    return plan.weights[0].patch if plan.weights else BASELINE_PATCH


_loading = threading.Lock()
_loaded: dict[tuple[Any, ...], Predictor] = {}


def methods(plan: Plan, name: MethodName) -> Mapping[bool, Method]:
    """The method `name` by whether it takes pan; the network is that of the plan's weights, loaded once a process.

    Raises WeightsError where a weights file is gone or no longer the one of the plan.
    """
    if name != "network":
        return {False: Method(name, _patchwise(name), REFERENCE[name])}
    return {ref.pan: _network(_predictor(ref, plan)) for ref in plan.weights}


def _network(predictor: Predictor) -> Method:
    kind: Kind = "between" if predictor.context else "nearest"
    return Method("network", predictor, kind, predictor.context, predictor.interval)


def _predictor(ref: WeightsRef, plan: Plan) -> Predictor:
    options = plan.options
    key = (ref.sha256, options.device, options.batch, options.threads)
    with _loading:
        if key not in _loaded:
            try:
                weights = weight_files.load(ref.source)
            except (ValueError, OSError) as error:
                raise WeightsError(f"{error} (the plan was made with {ref.sha256[:12]}...)") from error
            if weights.sha256 != ref.sha256:
                raise WeightsError(
                    f"weights {ref.source} are no longer those of the plan (sha256 {weights.sha256[:12]}..., plan "
                    f"{ref.sha256[:12]}...); nothing was fused. Put them back, or run into another --store"
                )
            _loaded[key] = Predictor(weights, device=options.device, batch=options.batch, threads=options.threads)
        return _loaded[key]


def _patchwise(method: MethodName) -> Predict:
    function = METHODS[method]

    def predict(s2: Array, landsat: Array, pan: Array | None, context: Array | None = None) -> Array:
        return np.stack([function(a, b, None) for a, b in zip(s2, landsat, strict=True)]) if len(s2) else s2

    return predict
