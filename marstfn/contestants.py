"""The methods of a comparison by name: networks, and everything that needs no training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from marstfn import methods
from marstfn.baselines import METHODS, Array
from marstfn.comparison import Case, Whole
from marstfn.methods import NETWORK
from marstfn.predict import Predictor
from marstfn.weights import SHIPPED, SIBLINGS, load

STARFM = "starfm"
"""Asks for a real coarse image of the reference's own day, which no run has; cases of an evaluation may."""
NETWORKS = SHIPPED
"""What `network` stands for: the first where a case has the panchromatic band, else the second."""
SETS = (*SHIPPED, *SIBLINGS)
"""Weights that come with the package."""

DEFAULT = (NETWORK, *SIBLINGS, *(name for name in METHODS), STARFM)
"""All there is, the network first."""

SENTENCES: Mapping[str, str] = MappingProxyType(
    {
        NETWORK: "MARSTFN with the weights of the package, with pan where the case has it",
        "marstfn-pan": "MARSTFN with the weights of the package that take pan",
        "marstfn-nopan": "MARSTFN with the weights of the package that take no pan",
        "dstfn-nopan": "DSTFN (Wu et al. 2022) without pan, trained on the same samples",
        "additive": "Sentinel-2 of the nearest day plus the change Landsat saw, enlarged",
        "additive-linear": "the same on Sentinel-2 interpolated to the date",
        "linear": "Sentinel-2 interpolated to the date, without Landsat",
        "sen2like": "detail of Sentinel-2 injected into Landsat, as ESA's Sen2Like does",
        "fsdaf": "FSDAF (Zhu et al. 2016) with the coarse image of the reference's day simulated",
        "starfm-si": "STARFM-SI (Wu et al. 2020): STARFM with that image simulated",
        "atprk": "ATPRK (Wang et al. 2015): regression on Sentinel-2 and kriging of what it leaves",
        "bicubic": "Landsat alone, enlarged",
        "copy": "Sentinel-2 of the nearest day as it is",
        STARFM: "STARFM (Gao et al. 2006) with a real coarse image of the reference's day",
    }
)
"""What each method is, in a sentence."""


def contestants(names: Iterable[str] = DEFAULT, *, device: str = "cpu", threads: int = 0) -> dict[str, Whole]:
    """By label what makes (6,H,W) of a whole case. A name is a method, `network` (the shipped set that fits the case),
    a shipped set, or a weights file, which goes by its stem.

    Raises ValueError for a name that is none of these or comes twice, or a file that holds no weights.
    """
    chosen = tuple(names)
    check(chosen)
    out: dict[str, Whole] = {}
    for name in chosen:
        if name in METHODS:
            out[name] = _whole(methods.free(name))
        elif name == STARFM:
            out[name] = _starfm
        elif name == NETWORK:
            out[name] = _fitting(*(_network(weights, device, threads) for weights in NETWORKS))
        else:
            out[label(name)] = _whole(_network(name, device, threads))
    return out


def check(names: Iterable[str]) -> None:
    """Raise ValueError for a name that is no method and no weights file, and for two that go by one label."""
    seen: set[str] = set()
    for name in names:
        if not (named(name) or Path(name).is_file()):
            known = ", ".join(dict.fromkeys((*DEFAULT, *SETS)))
            raise ValueError(f"{name!r} is no method and no weights file; known methods: {known}")
        if label(name) in seen:
            raise ValueError(
                f"{name} would go by the name of another method, {label(name)}; leave one out or rename it"
            )
        seen.add(label(name))


def label(name: str) -> str:
    """What a method goes by in tables."""
    return name if named(name) else Path(name).stem


def named(name: str) -> bool:
    """Whether it is the name of a method or of weights in the package; else it is a file's."""
    return name in METHODS or name in (STARFM, NETWORK) or name in SETS


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
