"""Where the cases of an evaluation come from: one name for each source.

| source | what it is |
| --- | --- |
| `simulated` | four simulated situations with exact truth |
| `flanders:DATA` | real Landsat 8 and Sentinel-2 of the same or a neighbouring day, by days shut out |
| `india:DATA` | real Landsat 8 with pan, at reduced resolution |
| `kranj:DATA` | real Landsat and MODIS, with MODIS of the reference's day |

DATA is the folder that holds these sets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from marstfn import flanders, situations
from marstfn.comparison import Case
from pipeline import india, kranj
from pipeline.errors import AssetError

SIMULATED = "simulated"
WINDOWS = (1, 10, 30)
"""Flanders: days around the date in which no reference may lie (1: only the day itself)."""


def cases(source: str) -> list[Case]:
    """The cases of a source. Raises AssetError where it cannot be read or is none, saying what can be given."""
    if source == SIMULATED:
        return situations.cases()
    name, colon, data = source.partition(":")
    if colon and name in SETS:
        return _of_set(name, Path(data).expanduser())
    raise AssetError(f"{source} names no cases; give {SIMULATED} or one of {', '.join(f'{n}:DATA' for n in SETS)}")


def _of_set(name: str, root: Path) -> list[Case]:
    try:
        return SETS[name](root)
    except (FileNotFoundError, StopIteration) as error:
        raise AssetError(
            f"{root} does not hold the set {name} ({error or 'files are missing'}); give the folder in which its own "
            f"folder lies, {name}:DATA"
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
