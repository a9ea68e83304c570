"""What a plan fuses with: trained networks, loaded once a process, or a baseline; all of one form."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from marstfn import weights as weight_files
from marstfn.baselines import LOCAL, METHODS
from marstfn.methods import NETWORK, Method, free, network
from marstfn.predict import Predictor
from pipeline.errors import WeightsError
from pipeline.plan import Plan, WeightsRef


def patch_side(plan: Plan) -> int:
    """Side of the model window in 10 m pixels: of the weights, else of the method, which runs patch by patch like the
    network, so that no tile shows."""
    return plan.weights[0].patch if plan.weights else window_side(plan.options.method)


def window_side(method: str) -> int:
    """Side of the windows of a method without weights."""
    return METHODS[method].side if method in METHODS else LOCAL


_loading = threading.Lock()
_loaded: dict[tuple[Any, ...], Predictor] = {}


def methods(plan: Plan, name: str) -> Mapping[bool, Method]:
    """The method `name` by whether it takes pan; the network is that of the plan's weights, loaded once a process.

    Raises WeightsError where a weights file is gone or no longer the one of the plan.
    """
    if name != NETWORK:
        chosen = free(name)
        return {False: chosen, True: chosen} if chosen.pan else {False: chosen}
    return {ref.pan: network(_predictor(ref, plan)) for ref in plan.weights}


def _predictor(ref: WeightsRef, plan: Plan) -> Predictor:
    options = plan.options
    key = (ref.sha256, options.device, options.precision, options.batch, options.threads)
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
            try:
                _loaded[key] = Predictor(
                    weights,
                    device=options.device,
                    batch=options.batch,
                    threads=options.threads,
                    precision=options.precision,
                )
            except ValueError as error:
                raise WeightsError(f"weights {ref.source}: {error}; use --precision float32") from error
        return _loaded[key]
