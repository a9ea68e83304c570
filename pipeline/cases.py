"""Where the cases of an evaluation come from: one name for each source.

| source | what it is |
| --- | --- |
| `simulated` | four simulated situations with exact truth |
| `flanders:DATA` | real Landsat 8 and Sentinel-2 of the same or a neighbouring day, by days shut out |
| `india:DATA` | real Landsat 8 with pan, at reduced resolution |
| `kranj:DATA` | real Landsat and MODIS, with MODIS of the reference's day |
| `FOLDER` | GeoTIFFs by date (`pipeline.layout`), by the protocol of `rules` |
| `FILE.npz` | one case out of arrays (`pipeline.arrays`) |
| `STORE` | windows of a year whose inputs are read and harmonised, by `draw` |

DATA is the folder that holds these sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from marstfn import flanders, situations
from marstfn.comparison import Case
from pipeline import arrays, folder, india, kranj, yearly
from pipeline.errors import AssetError, NoCasesError
from pipeline.folder import Rules
from pipeline.store import PLAN, Store
from pipeline.yearly import Draw

Kind = Literal["simulated", "set", "store", "folder", "arrays"]
SIMULATED = "simulated"
WINDOWS = (1, 10, 30)
"""Flanders: days around the date in which no reference may lie (1: only the day itself)."""


def cases(
    source: str, *, side: int = situations.SIDE, rules: Rules | None = None, draw: Draw | None = None
) -> list[Case]:
    """The cases of a source, all in memory; `each` has them one by one."""
    return list(each(source, side=side, rules=rules, draw=draw))


def each(
    source: str, *, side: int = situations.SIDE, rules: Rules | None = None, draw: Draw | None = None
) -> Iterator[Case]:
    """The cases of a source, read as they are asked for; `operator.length_hint` says how many there are at most. `side`
    is that of simulated scenes in 10 m pixels, `rules` are for a folder, `draw` is for a store.

    Raises AssetError where the source cannot be read or is none, saying what can be given; StoreError, CubeError and
    PlanError where it is a store that gives no case; ValueError for a `side` that does not nest.
    """
    kind, path = kind_of(source), Path(source).expanduser()
    if kind == "simulated":
        return situations.each(side)
    if kind == "set":
        name, _, data = source.partition(":")
        return iter(_of_set(name, Path(data).expanduser()))
    if kind == "store":
        return yearly.cases(Store(source if "://" in source else str(path)), draw)
    if kind == "folder":
        return folder.cases(path, rules)
    if kind == "arrays":
        return iter([arrays.case(path)])
    sets = ", ".join(f"{name}:DATA" for name in SETS)
    raise NoCasesError(
        f"{source!r} names no cases; give {SIMULATED}, {sets}, a folder of GeoTIFFs by date, a store whose inputs are "
        "read, or a file .npz"
    )


def kind_of(source: str) -> Kind | None:
    """What a source is, by its name and by what lies there; None where it is none."""
    if source == SIMULATED:
        return "simulated"
    name, colon, _ = source.partition(":")
    if colon and name in SETS:
        return "set"
    if "://" in source:
        return "store"
    path = Path(source).expanduser()
    if source and path.is_dir():
        return "store" if (path / PLAN).exists() else "folder"
    return "arrays" if path.suffix == ".npz" else None


def _of_set(name: str, root: Path) -> list[Case]:
    try:
        return SETS[name](root)
    except (FileNotFoundError, StopIteration) as error:
        raise AssetError(
            f"{root} does not hold the set {name} ({str(error) or 'files are missing'}); give the folder in which the "
            f"set's own folder lies, {name}:DATA"
        ) from error
    except ImportError as error:
        raise AssetError(f"the set {name} cannot be read: {error}; install the package that is missing") from error


def _flanders(root: Path) -> list[Case]:
    place = flanders.read(root)
    return [
        Case(name, f"Flanders, references at least {_days(least)} away", view, "real: WorldCereal, Wervik", False)
        for least in WINDOWS
        for name, view in flanders.scenes(place, least).items()
    ]


def _india(root: Path) -> list[Case]:
    group = "India, reduced resolution (Landsat at 30 m is the truth)"
    return [
        Case(name, group, view, "real: Deep-Harmonization, Thoothukudi", False)
        for name, view in india.scenes(root).items()
    ]


def _days(least: int) -> str:
    return f"{least} day" if least == 1 else f"{least} days"


SETS: Mapping[str, Callable[[Path], list[Case]]] = MappingProxyType(
    {"flanders": _flanders, "india": _india, "kranj": kranj.cases}
)
