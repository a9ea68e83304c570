"""GeoTIFFs in a folder, by date and kind.

    FOLDER/2019-10-19/sentinel2.tif            or  FOLDER/sentinel2_2019-10-19.tif
    FOLDER/2019-10-22/landsat.tif, pan.tif     or  FOLDER/landsat_2019-10-22.tif, FOLDER/pan_2019-10-22.tif

| file | pixels | bands |
| --- | --- | --- |
| `landsat` | 30 m | blue, green, red, nir08, swir16, swir22 |
| `pan` | 15 m | one; of every Landsat date or of none |
| `sentinel2` | 10 m | as Landsat |
| `truth` | 10 m | as Landsat; of a Landsat date, where something better than a Sentinel-2 image is known |
| `landsat_clear`, `sentinel2_clear` | as their image | one; 0 hides the pixel |

A date need not have both sensors. All files share one corner and one projection, or have none at all. Numbers are
reflectance, or are scaled by the file's own tags or by the options.
"""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

from pipeline.errors import AssetError
from pipeline.rasters import RESOLUTION

NAME = re.compile(rf"(?:({'|'.join(sorted(RESOLUTION, key=len, reverse=True))})_)?(\d{{4}}-\d{{2}}-\d{{2}})")
SUFFIXES = (".tif", ".tiff")
SENSORS = ("landsat", "sentinel2")


def listed(root: Path) -> dict[date, dict[str, Path]]:
    """Files by day and kind, in order of time. Raises AssetError where the layout is another or files are missing."""
    if not root.is_dir():
        raise AssetError(f"{root} is no folder; give one that holds images by date")
    found: dict[date, dict[str, Path]] = {}
    for path in sorted(root.iterdir()):
        match = NAME.fullmatch(path.stem if path.suffix.lower() in SUFFIXES else path.name)
        if match is None:
            continue
        inside = [p for p in path.iterdir() if p.suffix.lower() in SUFFIXES] if path.is_dir() else [path]
        kind = match[1]
        for one in inside:
            name = kind or one.stem
            if name in RESOLUTION and path.is_dir() == (kind is None):
                kinds = found.setdefault(_day(match[2], path), {})
                if name in kinds:
                    raise AssetError(f"{one} and {kinds[name]} are both {name} of one date; remove one")
                kinds[name] = one
        if path.is_dir() and not any(p.stem in RESOLUTION for p in inside):
            raise AssetError(f"{path} holds no image; wanted are {', '.join(f'{k}.tif' for k in RESOLUTION)}")
    found = dict(sorted(found.items()))
    for sensor in ("landsat", "sentinel2"):
        if not any(sensor in kinds for kinds in found.values()):
            raise AssetError(f"{root} holds no {sensor}; wanted are YYYY-MM-DD/{sensor}.tif or {sensor}_YYYY-MM-DD.tif")
    panned = any("pan" in kinds for kinds in found.values())
    for day, kinds in found.items():
        for kind, base in (("pan", "landsat"), ("truth", "landsat"), *((f"{s}_clear", s) for s in SENSORS)):
            if kind in kinds and base not in kinds:
                raise AssetError(f"{root} has {kind} of {day} but no {base} of that day; add it, or remove {kind}")
        if panned and "landsat" in kinds and "pan" not in kinds:
            raise AssetError(f"{root} has no pan of {day} but of other days; add it, or leave pan out of all of them")
    return found


def _day(text: str, path: Path) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise AssetError(f"{path} names a day that there is not ({error}); rename it") from error
