"""Band-pass coefficients of a user's own, by platform: a small TOML file, read once and kept in the plan.

# mine.toml: marstfn run field.geojson --bandpass-file mine.toml
[sentinel-2c.blue]                      # rho in the cube's frame = scale * rho + offset
scale = 1.004
offset = -0.0007

[landsat-9]                             # or several bands of a platform in one place
nir08 = { scale = 1.0026, offset = 0.0 }
swir22 = { scale = 1.006, offset = 0.0004 }

The cube's frame is the mean of Sentinel-2A and 2B. By default Landsat is brought there by the coefficients of HLS and
Sentinel-2 is left as it is, 2C as well, of which HLS has none (pipeline.sensors); a band that a file does not name
stays with that. It is a file of its own and no part of a catalogue's profile, for coefficients belong to a satellite,
whoever serves its scenes, and a known catalogue has no profile file to add to.

What is given for Landsat stands in the place of HLS's coefficients, when a scene is harmonised: the inputs hold
Landsat as it was delivered. What is given for Sentinel-2 goes into the scale and offset by which each item's numbers
become reflectance, after the factors of NBAR (the order of HLS): a day may be mosaicked from two satellites, and only
its items know which is which.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from marstfn.bands import BANDS
from pipeline.errors import PlanError
from pipeline.events import counted
from pipeline.plan import Adjustment, Options, Plan, Scene
from pipeline.sensors import BANDPASS, Bandpass

SENTINELS = ("sentinel-2a", "sentinel-2b", "sentinel-2c")
PLATFORMS = (*SENTINELS, "landsat-8", "landsat-9")
"""Whose coefficients may be given, in the spelling of `facts.platform`."""
LIMITS: Mapping[str, tuple[float, float]] = {"scale": (0.5, 2.0), "offset": (-0.1, 0.1)}
"""What a coefficient may be; offsets in reflectance."""

HLS = BANDPASS["sentinel-2"]
_AS_IT_IS = Bandpass("as it is", (1.0,) * len(BANDS), (0.0,) * len(BANDS))


def read(path: Path) -> tuple[Adjustment, ...]:
    """The coefficients in a TOML file, by platform in order, all bands; platforms that it leaves at the default are
    left out, so that they make no other plan.

    Raises PlanError, naming file, platform and band, where it cannot be read, is no TOML, names an unknown platform or
    band, lacks a number, or has one that is not finite or lies outside LIMITS.
    """
    try:
        given = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise PlanError(
            f"band-pass file {path} cannot be read ({error.strerror or error}); nothing was planned. Give its path, or "
            "leave it out"
        ) from error
    except ValueError as error:
        raise PlanError(f"band-pass file {path} is not TOML ({error}); nothing was planned. Repair it") from error
    try:
        if not given:
            raise ValueError(f"it names no platform; platforms are {', '.join(PLATFORMS)}")
        found = [_adjustment(platform, table) for platform, table in sorted(given.items())]
    except ValueError as error:
        raise PlanError(f"band-pass file {path} is not usable: {error}; nothing was planned. Correct it") from None
    return tuple(a for a in found if (a.scale, a.offset) != _numbers(_default(a.platform)))


def _adjustment(platform: str, table: Any) -> Adjustment:
    if platform not in PLATFORMS:
        raise ValueError(f"{platform} is no platform it may speak of; those are {', '.join(PLATFORMS)}")
    if not isinstance(table, dict) or not table:
        raise ValueError(f"{platform} names no band; bands are {', '.join(BANDS)}")
    unknown = [band for band in table if band not in BANDS]
    if unknown:
        raise ValueError(f"{platform} has no band {', '.join(unknown)}; bands are {', '.join(BANDS)}")
    scale, offset = (list(numbers) for numbers in _numbers(_default(platform)))
    for band, line in table.items():
        scale[BANDS.index(band)], offset[BANDS.index(band)] = _line(f"{platform}.{band}", line)
    return Adjustment(platform=platform, scale=tuple(scale), offset=tuple(offset))


def _line(where: str, line: Any) -> tuple[float, float]:
    """Scale and offset of one band."""
    if not isinstance(line, dict) or set(line) != set(LIMITS):
        raise ValueError(f"{where} must be a scale and an offset and nothing else")
    for name, (low, high) in LIMITS.items():
        value = line[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{where}.{name} = {value} is no finite number")
        if not low <= value <= high:
            raise ValueError(f"{where}.{name} = {value:g} lies outside {low:g}..{high:g}")
    return float(line["scale"]), float(line["offset"])


def _default(platform: str) -> Bandpass:
    return _AS_IT_IS if platform in SENTINELS else HLS


def _numbers(bandpass: Bandpass) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return bandpass.slope, bandpass.intercept


def of_sentinel2(given: Iterable[Adjustment]) -> tuple[Adjustment, ...]:
    """Those of `given` that go into the inputs."""
    return tuple(a for a in given if a.platform in SENTINELS)


def of_item(options: Options, platform: str) -> Adjustment | None:
    """What an item of Sentinel-2 is read with beside its radiometry; None: nothing, as for every item of Landsat."""
    return next((a for a in of_sentinel2(options.adjustments) if a.platform == platform), None)


def of_landsat(plan: Plan) -> tuple[Bandpass, ...]:
    """What is applied to each Landsat date instead of HLS's coefficients; empty where those serve all, as by default.

    Raises PlanError where a date is mosaicked from two satellites with different coefficients.
    """
    given = {a.platform: Bandpass(a.platform, a.scale, a.offset) for a in plan.options.adjustments}
    found = tuple(_of_scene(scene, given) for scene in plan.of("landsat8"))
    return found if any(one is not HLS for one in found) else ()


def _of_scene(scene: Scene, given: Mapping[str, Bandpass]) -> Bandpass:
    own = [given.get(platform, HLS) for platform in scene.platform.split("+")]
    if any(_numbers(one) != _numbers(own[0]) for one in own):
        raise PlanError(
            f"{scene.label} is mosaicked from two satellites whose band-pass coefficients differ; nothing was planned. "
            "Give both the same, or read one of them (--landsat 8)"
        )
    return own[0]


def told(plan: Plan) -> str:
    """What is done about band-passes, in one line."""
    if not plan.options.bandpass:
        return "left as they are"
    given = {a.platform: a for a in plan.options.adjustments}
    scenes = [platform for scene in plan.scenes for platform in scene.platform.split("+")]
    lines = [
        f"{platform} ({counted(scenes.count(platform), 'date')}) "
        + ", ".join(
            f"{band} x {own.scale[k]:g} {own.offset[k]:+g}"
            for k, band in enumerate(BANDS)
            if (own.scale[k], own.offset[k]) != (_default(platform).slope[k], _default(platform).intercept[k])
        )
        for platform, own in given.items()
    ]
    rest = "otherwise " if lines else ""
    return "; ".join([*lines, f"{rest}Landsat to the mean of Sentinel-2A and 2B (HLS v1.4), Sentinel-2 as it is"])
