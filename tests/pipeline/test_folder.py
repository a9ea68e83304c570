"""A folder of GeoTIFFs, written here from the simulator, as cases by three protocols; and what is wrong with others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from marstfn.baselines import copy, degrade
from marstfn.scenes import landsat
from marstfn.situations import SITUATIONS, X0, Y0, clear
from pipeline.errors import AssetError
from pipeline.folder import Rules, cases, spans
from pipeline.layout import listed
from pipeline.sensors import to_msi

SIDE = 108
EPSG = "EPSG:32650"

Images = dict[tuple[str, str], np.ndarray]


def write(path: Path, image: np.ndarray, resolution: float, **options: object) -> None:
    """`options`: dtype, nodata, crs, corner, descriptions, tags, scale."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x0, y0 = options.get("corner", (X0, Y0))  # type: ignore[misc]
    crs = options.get("crs", EPSG)
    place = {"crs": crs, "transform": Affine(resolution, 0, x0, 0, -resolution, y0)} if crs else {}
    values = image.astype(str(options.get("dtype", "float32")))
    count, height, width = values.shape
    with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype,
                       nodata=options.get("nodata"), **place) as target:  # fmt: skip
        target.write(values)
        for k, text in enumerate(options.get("descriptions", ()), 1):  # type: ignore[arg-type]
            target.set_band_description(k, text)
        if "scale" in options:
            scale, offset = options["scale"]  # type: ignore[misc]
            target.scales, target.offsets = (scale,) * count, (offset,) * count
        if "tags" in options:
            target.update_tags(**options["tags"])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def images() -> Images:
    """Two Landsat dates and four of Sentinel-2, one of them Landsat's own day, of calm land."""
    simulation = SITUATIONS[0].simulation
    passes = [a for a in simulation.acquisitions() if a.landsat and a.time.month in (7, 8)]
    out: Images = {}
    for acq in passes[-2:]:
        bands, pan = landsat(simulation, clear(acq), X0, Y0, (SIDE, SIDE))
        out["landsat", str(acq.time.date())], out["pan", str(acq.time.date())] = bands, pan
    first, last = sorted({day for _, day in out})
    for day in (_shift(first, -4), last, _shift(last, -6), _shift(last, 5)):
        out["sentinel2", day] = simulation.sentinel2(date.fromisoformat(day), X0, Y0, (SIDE, SIDE))
    return out


def _shift(day: str, days: int) -> str:
    return str(date.fromordinal(date.fromisoformat(day).toordinal() + days))


RESOLUTION = {"landsat": 30, "pan": 15, "sentinel2": 10}


@pytest.fixture
def lay(images: Images, tmp_path: Path) -> Callable[..., Path]:
    """Write the images to a folder: `lay(flat=..., change={(kind, day): (image, options) or None})`."""

    def make(flat: bool = False, change: dict | None = None, **options: object) -> Path:
        root = tmp_path / "dezhou"
        shutil.rmtree(root, ignore_errors=True)
        for (kind, day), image in images.items():
            one = (change or {}).get((kind, day), (image, options))
            if one is not None:
                path = root / f"{kind}_{day}.tif" if flat else root / day / f"{kind}.tif"
                write(path, one[0], RESOLUTION[kind], **(options | one[1]))
        return root

    return make


def days(images: Images, kind: str) -> list[str]:
    return sorted(day for name, day in images if name == kind)


def test_the_papers_truth_is_the_input_and_whoever_copies_it_has_no_error(lay, images: Images) -> None:
    found = list(cases(lay()))
    first, last = days(images, "landsat")
    assert [c.name for c in found] == [f"{first} from {_shift(first, -4)}", f"{last} from {last}"]
    for case, day in zip(found, (first, last), strict=True):
        assert "the paper's protocol" in case.group
        assert "which is the input" in case.group
        assert case.data == "dezhou (own data)"
        assert not case.simulated
        assert np.array_equal(case.view.truth, case.view.s2)
        made = copy(case.view.s2, case.view.landsat, None)
        assert np.array_equal(made, case.view.truth)
        # Landsat goes in as it comes
        assert np.array_equal(case.view.landsat, images["landsat", day])
        assert np.array_equal(case.view.pan, images["pan", day])
        assert case.scored.all()


def test_other_day_hides_the_truth_from_the_methods(lay, images: Images) -> None:
    (case,) = cases(lay(), Rules("other-day"))
    _, last = days(images, "landsat")
    assert case.name == f"{last} from {_shift(last, 5)}"
    assert "no method sees it" in case.group
    assert np.array_equal(case.view.truth, images["sentinel2", last])
    reference = case.view.reference
    assert np.array_equal(reference.before, images["sentinel2", _shift(last, -6)])
    assert np.array_equal(reference.after, images["sentinel2", _shift(last, 5)])
    assert np.unique(reference.days_before) == 6
    assert np.unique(reference.days_after) == 5
    assert case.coarse_then is None
    # the fit to the reference brings Landsat nearer to a truth that it has not seen
    raw, target = to_msi(images["landsat", last]), degrade(case.view.truth)
    assert np.abs(case.view.landsat - target).mean() < np.abs(raw - target).mean()
    (plain,) = cases(lay(), Rules("other-day", frame="band-pass"))
    np.testing.assert_array_equal(plain.view.landsat, raw)


def test_truth_some_days_off_is_no_reference(lay, images: Images) -> None:
    first, last = days(images, "landsat")
    found = list(cases(lay(), Rules("other-day", within=4)))
    assert [c.name for c in found] == [
        f"{first} from {_shift(last, -6)} as {_shift(first, -4)}",
        f"{last} from {_shift(last, 5)}",
    ]
    assert np.array_equal(found[0].view.truth, images["sentinel2", _shift(first, -4)])
    assert np.isinf(found[0].view.reference.days_before).all()


def test_landsat_of_the_references_day_comes_along(lay, images: Images, tmp_path: Path) -> None:
    first, last = days(images, "landsat")
    before = _shift(last, -6)
    root = lay(change={("sentinel2", _shift(last, 5)): None, ("sentinel2", _shift(first, -4)): None})
    image = images["sentinel2", before].copy()
    image[:, 30, 40] = np.nan
    write(root / before / "sentinel2.tif", image, 10)
    write(root / before / "landsat.tif", images["landsat", first], 30)
    write(root / before / "pan.tif", images["pan", first], 15)
    case = next(c for c in cases(root, Rules("other-day", frame="band-pass")) if c.name.startswith(last))
    assert case.name == f"{last} from {before}"
    assert case.coarse_then is not None
    expected = to_msi(images["landsat", first])
    expected[:, 10, 13] = np.nan
    np.testing.assert_array_equal(case.coarse_then, expected)


def test_a_truth_of_its_own_stands_before_sentinel_2(lay, images: Images) -> None:
    first, last = days(images, "landsat")
    root = lay()
    better = images["sentinel2", last] + np.float32(0.01)
    write(root / first / "truth.tif", better, 10)
    paper = next(iter(cases(root)))
    assert np.array_equal(paper.view.truth, better)
    assert "a truth of its own" in paper.group
    assert np.array_equal(paper.view.s2, images["sentinel2", _shift(first, -4)])
    other = next(iter(cases(root, Rules("other-day"))))
    assert other.name.startswith(first)
    assert np.array_equal(other.view.truth, better)


def test_reduced_has_landsat_as_its_truth(lay, images: Images) -> None:
    first, last = days(images, "landsat")
    found = list(cases(lay(), Rules("reduced", frame="band-pass")))
    assert [c.name for c in found] == [f"{first} from {_shift(first, -4)}", f"{last} from {last}"]
    case = found[1]
    assert "reduced resolution" in case.group
    assert np.array_equal(case.view.truth, to_msi(images["landsat", last]))
    assert case.view.landsat.shape == (6, 12, 12)
    assert case.view.pan.shape == (1, 24, 24)
    np.testing.assert_allclose(case.view.pan, degrade(images["pan", last]), atol=1e-7)
    np.testing.assert_allclose(case.view.s2, degrade(images["sentinel2", last]), atol=1e-7)


def test_flat_names_are_the_same_folder(lay) -> None:
    nested = list(cases(lay()))
    flat = list(cases(lay(flat=True)))
    assert [c.name for c in flat] == [c.name for c in nested]
    for a, b in zip(flat, nested, strict=True):
        for name in ("truth", "landsat", "pan", "s2"):
            assert np.array_equal(getattr(a.view, name), getattr(b.view, name)), name


def test_blocks_put_together_are_the_scene(lay) -> None:
    whole, _ = cases(lay(), Rules(side=990))
    blocks = list(cases(lay(), Rules(side=54)))
    assert len(blocks) == 8
    assert [c.name.rpartition(", ")[2] for c in blocks[:4]] == ["r0c0", "r0c1", "r1c0", "r1c1"]
    rows = [np.concatenate([c.view.truth for c in blocks[k : k + 2]], 2) for k in (0, 2)]
    assert np.array_equal(np.concatenate(rows, 1), whole.view.truth)
    rows = [np.concatenate([c.view.pan for c in blocks[k : k + 2]], 2) for k in (0, 2)]
    assert np.array_equal(np.concatenate(rows, 1), whole.view.pan)


@pytest.mark.parametrize(
    ("length", "side", "step", "expected"),
    [
        (3960, 990, 18, [990] * 4),
        (2970, 990, 18, [990] * 3),
        (108, 990, 18, [108]),
        (100, 60, 6, [48, 48]),
        (5, 60, 6, []),
    ],
)
def test_spans_are_nearly_equal_and_nest(length: int, side: int, step: int, expected: list[int]) -> None:
    found = spans(length, side, step)
    assert [s.stop - s.start for s in found] == expected
    assert all(s.start % step == 0 for s in found)


def test_the_last_fifth_is_of_the_dates_or_of_the_area(lay, images: Images) -> None:
    _, last = days(images, "landsat")
    (case,) = cases(lay(), Rules(test_share=0.2))
    assert case.name.startswith(last)
    area = list(cases(lay(), Rules(test_share=0.5, test_of="area")))
    assert len(area) == 2
    assert np.array_equal(area[1].view.truth, images["sentinel2", last][:, 54:])
    assert np.array_equal(area[1].view.landsat, images["landsat", last][:, 18:])


def test_masks_and_nodata_hide_pixels(lay, images: Images) -> None:
    _, last = days(images, "landsat")
    holed = images["landsat", last].copy()
    holed[2, 3, 4] = -9999
    root = lay(change={("landsat", last): (holed, {"nodata": -9999})})
    mask = np.ones((1, SIDE, SIDE), np.uint8)
    mask[0, 60:70, 60:70] = 0
    write(root / last / "sentinel2_clear.tif", mask, 10, dtype="uint8")
    (case,) = (c for c in cases(root) if c.name.startswith(last))
    assert np.isnan(case.view.landsat[:, 3, 4]).all()
    assert np.isnan(case.view.landsat).sum() == 6
    assert np.isnan(case.view.pan[0, 6:8, 8:10]).all()
    assert np.isnan(case.view.truth[:, 60:70, 60:70]).all()
    assert np.isnan(case.view.truth).sum() == 600
    assert (~case.scored).sum() == 109


def test_numbers_are_scaled_by_tags_or_by_the_rules(lay, images: Images) -> None:
    first, last = days(images, "landsat")
    counts = np.rint((images["landsat", last] + 0.2) / 2.75e-5)
    s2 = np.rint((images["sentinel2", last] + 0.1) * 1e4)
    tagged = lay(change={
        ("landsat", last): (counts, {"dtype": "uint16", "scale": (2.75e-5, -0.2)}),
        ("sentinel2", last): (s2, {"dtype": "uint16", "tags": {"scale_factor": "1e-4", "add_offset": "-0.1"}}),
    })  # fmt: skip
    case = list(cases(tagged))[1]
    np.testing.assert_allclose(case.view.landsat, images["landsat", last], atol=2e-5)
    np.testing.assert_allclose(case.view.truth, images["sentinel2", last], atol=6e-5)
    given = lay(change={
        ("landsat", d): (np.rint((images["landsat", d] + 0.2) / 2.75e-5), {"dtype": "uint16"}) for d in (first, last)
    })  # fmt: skip
    case = list(cases(given, Rules(radiometry={"landsat": (2.75e-5, -0.2)})))[1]
    np.testing.assert_allclose(case.view.landsat, images["landsat", last], atol=2e-5)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_files_without_georeference_nest_by_their_shapes(lay) -> None:
    with_place, without = list(cases(lay())), list(cases(lay(crs=None)))
    assert np.array_equal(with_place[0].view.truth, without[0].view.truth)


def test_band_names_are_read(lay, images: Images) -> None:
    first, _ = days(images, "landsat")
    names = ("B02 (490 nm)", "B03", "B04", "B8A", "B11", "B12")
    day = _shift(first, -4)
    named = lay(change={("sentinel2", day): (images["sentinel2", day], {"descriptions": names})})
    assert len(list(cases(named))) == 2
    swapped = lay(change={("sentinel2", day): (images["sentinel2", day], {"descriptions": names[::-1]})})
    with pytest.raises(AssetError, match=r"sentinel2.tif holds swir22, swir16, nir08, red, green, blue by its band"):
        cases(swapped)
    oli = ("SR_B2", "SR_B3", "SR_B5", "SR_B4", "SR_B6", "SR_B7")
    with pytest.raises(AssetError, match="holds blue, green, nir08, red, swir16, swir22"):
        cases(lay(change={("landsat", first): (images["landsat", first], {"descriptions": oli})}))


@pytest.mark.parametrize("swap", [(0, 2), (2, 3), (1, 2), (4, 5), (3, 4)])
def test_swapped_bands_without_names_are_found_by_their_likeness(lay, images: Images, swap: tuple[int, int]) -> None:
    order = np.arange(6)
    order[list(swap)] = order[list(swap[::-1])]
    change = {("landsat", d): (images["landsat", d][order], {}) for d in days(images, "landsat")}
    with pytest.raises(AssetError, match=r"not in one order .* looks like "):
        cases(lay(change=change))


def test_digital_numbers_without_a_scale_are_refused(lay, images: Images) -> None:
    _, last = days(images, "landsat")
    counts = np.rint((images["landsat", last] + 0.2) / 2.75e-5)
    root = lay(change={("landsat", last): (counts, {"dtype": "uint16"})})
    with pytest.raises(AssetError, match=r"landsat.tif has a median of .*: digital numbers, not reflectance"):
        cases(root)
    with pytest.raises(AssetError, match=r"after its scale of 0.0001 .* no land is as dark"):
        cases(lay(), Rules(radiometry={"landsat": (1e-4, 0.0)}))


def test_an_image_of_nodata_is_refused(lay, images: Images) -> None:
    _, last = days(images, "landsat")
    nothing = np.full((6, SIDE, SIDE), np.nan)
    with pytest.raises(AssetError, match=r"sentinel2.tif holds nothing but nodata"):
        cases(lay(change={("sentinel2", last): (nothing, {})}))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("landsat", lambda a: (a[:, :-1], {}), "landsat.tif of 35 x 36 px does not nest .* so 105 x 108 px would"),
        ("pan", lambda a: (a[:, ::2, ::2], {}), "pan has pixels 1.5 times as large, so 54 x 54 px would"),
        ("landsat", lambda a: (a[:5], {}), "has 5 bands; landsat needs 6 bands"),
        ("landsat", lambda a: (a, {"corner": (X0 + 15, Y0)}), "lies 15, 0 beside that of"),
        ("landsat", lambda a: (a, {"crs": "EPSG:32651"}), "is in EPSG:32651, .* in EPSG:32650"),
        ("sentinel2", lambda a: (a, {"crs": None}), "in no projection"),
    ],
)
def test_what_does_not_nest_is_named(lay, images: Images, kind: str, change: Callable, message: str) -> None:
    _, last = days(images, "landsat")
    with pytest.raises(AssetError, match=message):
        cases(lay(change={(kind, last): change(images[kind, last])}))


def test_missing_files_are_named(lay, images: Images, tmp_path: Path) -> None:
    first, last = days(images, "landsat")
    with pytest.raises(AssetError, match=f"has no pan of {last} but of other days"):
        cases(lay(change={("pan", last): None}))
    with pytest.raises(AssetError, match=f"has pan of {first} but no landsat of that day"):
        cases(lay(change={("landsat", first): None}))
    with pytest.raises(AssetError, match="holds no sentinel2; wanted are"):
        cases(lay(change={("sentinel2", d): None for d in days(images, "sentinel2")}))
    with pytest.raises(AssetError, match="is no folder"):
        cases(tmp_path / "nowhere")
    root = lay()
    (root / "2021-01-01").mkdir()
    with pytest.raises(AssetError, match=r"2021-01-01 holds no image; wanted are sentinel2.tif"):
        cases(root)
    (root / "2021-01-01").rename(root / "2021-02-30")
    write(root / "2021-02-30" / "sentinel2.tif", images["sentinel2", last], 10)
    with pytest.raises(AssetError, match="2021-02-30 names a day that there is not"):
        cases(root)


def test_files_that_are_no_rasters_are_named(lay, images: Images) -> None:
    _, last = days(images, "landsat")
    root = lay()
    (root / last / "pan.tif").write_text("not a raster")
    with pytest.raises(AssetError, match=r"pan.tif cannot be read as a raster"):
        cases(root)
    root = lay()
    data = (root / last / "landsat.tif").read_bytes()
    (root / last / "landsat.tif").write_bytes(data[: len(data) // 2])
    with pytest.raises(AssetError, match=r"landsat.tif cannot be read to its end .* cut short"):
        cases(root)


def test_no_date_for_a_protocol_says_on_which_ground(lay, images: Images) -> None:
    _, last = days(images, "landsat")
    with pytest.raises(
        AssetError, match="none of 2 Landsat dates suits the protocol other-day: 2 without Sentinel-2 within 0"
    ):
        cases(lay(change={("sentinel2", last): None}), Rules("other-day"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "wald"}, "protocol wald is unknown; choose paper, other-day, reduced"),
        ({"side": 100}, "multiple of 18 px"),
        ({"test_share": 0.0}, "a share of 0.0 is none"),
        ({"frame": "histogram"}, "frame histogram is unknown"),
        ({"radiometry": {"modis": (1.0, 0.0)}}, "scales of modis are asked for"),
    ],
)
def test_rules_that_make_no_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(AssetError, match=message):
        Rules(**options)


def test_files_are_listed_in_order_of_time(lay, images: Images) -> None:
    found = listed(lay())
    assert list(found) == sorted(found)
    assert [set(kinds) for kinds in found.values()] == [
        {"sentinel2"}, {"landsat", "pan"}, {"sentinel2"}, {"landsat", "pan", "sentinel2"}, {"sentinel2"},
    ]  # fmt: skip
