"""One case out of a `.npz` file: arrays a user has at hand.

| array | shape | what |
| --- | --- | --- |
| `s2` | (6,H,W) | Sentinel-2 of the reference date, 10 m |
| `landsat` | (6,H/3,W/3) | Landsat of the date to be predicted, 30 m |
| `truth` | (6,H,W) | Sentinel-2 of that date, or whatever is known of it |
| `pan` | (1,2H/3,2W/3), optional | 15 m |
| `after` | (6,H,W), optional | Sentinel-2 of a later date, where `s2` is the earlier one |
| `days` | one or two numbers, optional | days from `s2` to the date (negative: `s2` is the later one), and to `after` |
| `coarse_then` | (6,H/3,W/3), optional | Landsat of the day of `s2` |
| `name`, `date` | text, optional | how the case is called; YYYY-MM-DD |

Reflectance of 0 to 1 in the order blue, green, red, nir08, swir16, swir22; NaN where nothing is known.
"""

from __future__ import annotations

import zipfile
import zlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from marstfn.bands import BANDS
from marstfn.baselines import Array
from marstfn.baselines.check import BRIGHTEST, checked
from marstfn.comparison import Case
from marstfn.reference import Reference
from marstfn.scenes import Scene
from pipeline.errors import AssetError
from pipeline.rasters import DARKEST, REACH, checked_order

NEEDED, OPTIONAL = ("s2", "landsat", "truth"), ("pan", "after", "days", "coarse_then", "name", "date")
APART = 5
"""Days between `s2` and the date where the file does not say."""


def case(path: str | Path) -> Case:
    """The case a file holds; raises AssetError with all that is wrong with it at once."""
    file = Path(path).expanduser()
    arrays = _loaded(file)
    faults = [f"it has no {name}" for name in NEEDED if name not in arrays]
    faults += [f"nothing is known by the name {n}" for n in arrays if n not in (*NEEDED, *OPTIONAL)]
    images: dict[str, Array] = {}
    for name in ("s2", "landsat", "truth", "pan", "after", "coarse_then"):
        if name in arrays:
            found = _image(name, arrays[name])
            if isinstance(found, str):
                faults.append(found)
            else:
                images[name] = found
    if not faults:
        faults += _unnested(images)
    text = {name: str(arrays[name]) for name in ("name", "date") if name in arrays}
    when = datetime(1970, 1, 1, tzinfo=UTC)
    try:
        when = datetime.fromisoformat(text.get("date", str(when.date()))).replace(tzinfo=UTC)
    except ValueError:
        faults.append(f"date is {text['date']}, not YYYY-MM-DD")
    gaps = _gaps(arrays, "after" in images)
    if isinstance(gaps, str):
        faults.append(gaps)
    if faults:
        raise AssetError(f"{file} is no case: {'; '.join(faults)}. It must hold {', '.join(NEEDED)} (pipeline.arrays)")
    assert not isinstance(gaps, str)
    if abs(gaps[0]) <= REACH:
        remedy = f"give days: beyond {REACH} this is not asked"
        checked_order([(images["s2"], images["landsat"])], str(file), remedy)
    return _made(images, gaps, when, text.get("name", file.stem), file)


def _made(images: dict[str, Array], gaps: tuple[int, int], when: datetime, name: str, file: Path) -> Case:
    reference = Reference.single(images["s2"], gaps[0])
    if "after" in images:
        later = Reference.single(images["after"], -gaps[1])
        reference = Reference(reference.before, later.after, reference.days_before, later.days_after)
    truth = images["truth"]
    pan = images.get("pan")
    if pan is None:
        pan = np.full((1, truth.shape[1] * 2 // 3, truth.shape[2] * 2 // 3), np.nan, np.float32)
    view = Scene(when, reference, images["landsat"], pan, truth)
    made = Case(name, file.name, view, f"{file.name} (own data)", False, images.get("coarse_then"))
    if not made.scored.any():
        raise AssetError(
            f"{file}: no pixel is known to Landsat and truth at once; nothing can be scored. Give arrays of one window"
        )
    return made


def _loaded(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except FileNotFoundError as error:
        raise AssetError(f"there is no file {file}") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError, TypeError) as error:
        raise AssetError(f"{file} cannot be read as .npz ({error}); write it with numpy.savez") from error


def _image(name: str, values: np.ndarray) -> Array | str:
    """The image as float32, NaN in all bands where one is missing; else what is wrong with it."""
    bands = 1 if name == "pan" else len(BANDS)
    if not np.issubdtype(values.dtype, np.number) or np.issubdtype(values.dtype, np.complexfloating):
        return f"{name} holds {values.dtype}, not numbers"
    if values.ndim != 3 or values.shape[0] != bands or not values.size:
        return f"{name} has the shape {values.shape}, not ({bands}, rows, columns)"
    image: Array = values.astype(np.float32)
    image[:, ~np.isfinite(image).all(0)] = np.nan
    known = image[np.isfinite(image)]
    if not known.size:
        return f"{name} is NaN throughout"
    middle = float(np.median(known))
    if abs(middle) > BRIGHTEST:
        return f"{name} has a median of {middle:.0f}: digital numbers, not reflectance of 0 to 1"
    if abs(middle) < DARKEST:
        return f"{name} has a median of {middle:.1e}: no land is as dark"
    return image


def _unnested(images: dict[str, Array]) -> list[str]:
    faults = []
    try:
        checked(images["s2"], images["landsat"], images.get("pan"))
    except ValueError as error:
        faults.append(str(error))
    for name, like in (("truth", "s2"), ("after", "s2"), ("coarse_then", "landsat")):
        if name in images and images[name].shape != images[like].shape:
            faults.append(f"{name} has the shape {images[name].shape}, {like} {images[like].shape}")
    return faults


def _gaps(arrays: dict[str, np.ndarray], both: bool) -> tuple[int, int] | str:
    """Days from `s2` to the date, and from the date to `after`."""
    if "days" not in arrays:
        return APART, APART
    values = np.atleast_1d(arrays["days"])
    if values.shape not in ((1,), (2,)) or not np.issubdtype(values.dtype, np.number) or not np.isfinite(values).all():
        return f"days is {arrays['days']}, not one or two numbers"
    first, last = int(values[0]), int(values[-1]) if len(values) == 2 else APART
    if both and (first < 0 or last < 0):
        return f"days is {first}, {last}: with after, s2 lies before the date and both are 0 or more"
    return first, last
