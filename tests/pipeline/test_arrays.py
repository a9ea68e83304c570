"""Arrays on disk as a case, and everything that is wrong with one said at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marstfn import situations
from pipeline import cases
from pipeline.arrays import case
from pipeline.errors import AssetError


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    view = situations.cases(54)[0].view
    reference = view.reference
    return {
        "s2": reference.before,
        "after": reference.after,
        "landsat": view.landsat,
        "pan": view.pan,
        "truth": view.truth,
    }


@pytest.fixture
def saved(images: dict[str, np.ndarray], tmp_path: Path):
    """`saved(pan=None, landsat=...)` writes the images, changed, and gives the file's path."""

    def save(**changes: object) -> Path:
        path = tmp_path / "meadow.npz"
        np.savez(path, **{k: v for k, v in ({**images, **changes}).items() if v is not None})  # type: ignore[arg-type]
        return path

    return save


def test_all_that_a_file_may_hold_is_read(saved, images: dict[str, np.ndarray]) -> None:
    path = saved(days=[7, 9], name="meadow in May", date="2021-05-04", coarse_then=images["landsat"] * 0.9)
    found = case(path)
    assert (found.name, found.group, found.data) == ("meadow in May", "meadow.npz", "meadow.npz (own data)")
    assert not found.simulated
    assert f"{found.view.day:%Y-%m-%d}" == "2021-05-04"
    for name, image in (("landsat", found.view.landsat), ("pan", found.view.pan), ("truth", found.view.truth)):
        assert np.array_equal(image, images[name])
    reference = found.view.reference
    assert np.array_equal(reference.before, images["s2"])
    assert np.array_equal(reference.after, images["after"])
    assert np.unique(reference.days_before) == 7
    assert np.unique(reference.days_after) == 9
    assert found.coarse_then is not None
    np.testing.assert_allclose(found.coarse_then, images["landsat"] * np.float32(0.9))
    assert found.scored.all()


def test_three_arrays_suffice(saved, images: dict[str, np.ndarray]) -> None:
    (found,) = cases.cases(str(saved(pan=None, after=None)))
    assert found.name == "meadow"
    assert np.isnan(found.view.pan).all()
    assert found.view.pan.shape == (1, 36, 36)
    assert np.array_equal(found.view.s2, images["s2"])
    assert np.isinf(found.view.reference.days_after).all()
    assert found.coarse_then is None
    later = case(saved(pan=None, after=None, days=-3))
    assert np.unique(later.view.reference.days_after) == 3
    assert np.array_equal(later.view.s2, images["s2"])


def test_holes_stay_holes_in_all_bands(saved, images: dict[str, np.ndarray]) -> None:
    holed = images["landsat"].copy()
    holed[1, 2, 3] = np.nan
    found = case(saved(landsat=holed))
    assert np.isnan(found.view.landsat[:, 2, 3]).all()
    assert (~found.scored).sum() == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"landsat": None}, "it has no landsat"),
        ({"modis": np.ones(3)}, "nothing is known by the name modis"),
        ({"landsat": lambda a: a[:, :-1]}, "is not 3 times Landsat's 17 x 18 px"),
        ({"landsat": lambda a: a[:4]}, r"landsat has the shape \(4, 18, 18\), not \(6, rows, columns\)"),
        ({"truth": lambda a: a[:, :30]}, r"truth has the shape \(6, 30, 54\), s2 \(6, 54, 54\)"),
        ({"pan": lambda a: a[:, ::2, ::2]}, "twice Landsat's pixels"),
        ({"s2": lambda a: np.rint(a * 1e4)}, "s2 has a median of .*: digital numbers, not reflectance"),
        ({"s2": lambda a: a * 1e-4}, "s2 has a median of .*: no land is as dark"),
        ({"truth": lambda a: a * np.nan}, "truth is NaN throughout"),
        ({"s2": lambda a: a.astype(str)}, "s2 holds <U.*, not numbers"),
        ({"landsat": lambda a: a[[2, 1, 0, 3, 4, 5]]}, "not in one order .*give days: beyond 20 this is not asked"),
        ({"days": "soon"}, "days is soon, not one or two numbers"),
        ({"days": [-3, 4]}, "with after, s2 lies before the date"),
        ({"date": "May 4th"}, "date is May 4th, not YYYY-MM-DD"),
    ],
)
def test_what_is_wrong_is_named(saved, images: dict[str, np.ndarray], change: dict, message: str) -> None:
    made = {name: value(images[name]) if callable(value) else value for name, value in change.items()}
    with pytest.raises(AssetError, match=message):
        case(saved(**made))


def test_all_faults_come_at_once(saved, images: dict[str, np.ndarray]) -> None:
    with pytest.raises(AssetError) as caught:
        case(saved(truth=None, landsat=images["landsat"] * 1e4, pan=images["pan"][0], date="x"))
    text = str(caught.value)
    assert text.count(";") == 3
    for part in ("it has no truth", "landsat has a median", r"pan has the shape (36, 36)", "date is x"):
        assert part in text


def test_nothing_to_score_is_an_error(saved, images: dict[str, np.ndarray]) -> None:
    landsat, truth = images["landsat"].copy(), images["truth"].copy()
    landsat[:, :9] = np.nan
    truth[:, 27:] = np.nan
    with pytest.raises(AssetError, match="no pixel is known to Landsat and truth at once"):
        case(saved(landsat=landsat, truth=truth))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 cut short", b"text"])
def test_a_file_that_is_no_npz_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "broken.npz"
    path.write_bytes(data)
    with pytest.raises(AssetError, match=r"broken\.npz cannot be read as \.npz"):
        case(path)


def test_one_array_alone_is_no_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(AssetError, match=r"cannot be read as \.npz"):
        case(tmp_path / "one.npz")
