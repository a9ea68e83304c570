"""The methods of a comparison by name: networks, and everything that needs no training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from marstfn import methods
from marstfn.baselines import METHODS, Array
from marstfn.comparison import Case, Whole
from marstfn.methods import NETWORK
from marstfn.predict import Predictor
from marstfn.weights import SHIPPED, SIBLINGS, load

STARFM = "starfm"
"""Asks for a real coarse image of the reference's own day, which no run has; cases of an evaluation may."""
PAN, NOPAN = "marstfn-pan", "marstfn-nopan"
"""The shipped sets that `network` stands for, by whether a case has the panchromatic band."""

SETS = (*SHIPPED, *SIBLINGS)

DEFAULT = (NETWORK, *SIBLINGS, *(name for name in METHODS), STARFM)
"""All there is, the network first."""


def contestants(names: Iterable[str] = DEFAULT, *, device: str = "cpu", threads: int = 0) -> dict[str, Whole]:
    """By name what makes (6,H,W) of a whole case. A name is a method, `network` (the shipped set that fits the case),
    a shipped set, or a weights file, which then goes by its stem.

    Raises ValueError for a name that is none of these, or a file that holds no weights.
    """
    out: dict[str, Whole] = {}
    for name in names:
        if name in METHODS:
            out[name] = _whole(methods.free(name))
        elif name == STARFM:
            out[name] = _starfm
        elif name == NETWORK:
            out[name] = _fitting(_network(PAN, device, threads), _network(NOPAN, device, threads))
        elif name in SETS or Path(name).is_file():
            label = name if name in SETS else Path(name).stem
            if label in out:
                raise ValueError(f"{name} would go by the name of another method, {label}; rename the file")
            out[label] = _whole(_network(name, device, threads))
        else:
            known = ", ".join(dict.fromkeys((*DEFAULT, *SETS)))
            raise ValueError(f"{name!r} is no method and no weights file; known methods: {known}")
    return out


def _network(name: str, device: str, threads: int) -> methods.Method:
    return methods.network(Predictor(load(name), device=device, threads=threads))


def _whole(method: methods.Method) -> Whole:
    def run(case: Case) -> Array:
        view = case.view
        if method.name == NETWORK and method.pan and not _has_pan(case):
            raise ValueError("needs the panchromatic band, which this case has not")
        return method.whole(view.reference, view.landsat, view.pan if _has_pan(case) else None)

    return run


def _fitting(pan: methods.Method, nopan: methods.Method) -> Whole:
    sharp, plain = _whole(pan), _whole(nopan)

    def run(case: Case) -> Array:
        return sharp(case) if _has_pan(case) else plain(case)

    return run


def _starfm(case: Case) -> Array:
    from marstfn.baselines.starfm import starfm

    if case.coarse_then is None:
        raise ValueError("needs a coarse image of the reference's own day, which this case has not")
    return starfm(case.view.s2, case.view.landsat, coarse_then=case.coarse_then)


def _has_pan(case: Case) -> bool:
    return bool(np.isfinite(case.view.pan).any())
