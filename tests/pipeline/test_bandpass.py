"""Band-pass coefficients of a user's own: read as meant, refused by name, kept in the plan, applied once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flows.commands.jobs import described
from marstfn.bands import BANDS
from pipeline import bandpass, encoding, growth, harmonise, ingest, planner
from pipeline import request as requests
from pipeline.errors import PlanError
from pipeline.plan import Adjustment, Options, Plan, fingerprint
from pipeline.sensors import BANDPASS, Bandpass, to_msi
from pipeline.settings import Settings
from pipeline.store import Store
from tests.pipeline import small_store

MINE = """
[sentinel-2c.blue]
scale = 1.004
offset = -0.0007
[landsat-9]
nir08 = { scale = 1.0026, offset = 0 }
"""
HLS = BANDPASS["sentinel-2"]
OTHER = Adjustment(platform="landsat-8", scale=(1.1,) * 6, offset=(0.01,) * 6)
TWIN = Adjustment(platform="sentinel-2c", scale=(1.004, 1, 1, 1, 1, 1), offset=(-0.0007, 0, 0, 0, 0, 0))


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def asked(folder: Path, **given: Any) -> requests.Request:
    fixed = {"aoi": "hailar", "year": 2023, "catalog": "simulated@http://127.0.0.1:1", "method": "additive"}
    return requests.make(defaults=Settings(), **fixed | {"base": folder} | given)


def plan_with(*given: Adjustment, **options: Any) -> Plan:
    return small_store.plan(options=Options(time_shard=8, adjustments=given, **options))


# ---- the file


def test_a_file_says_what_it_changes_and_leaves_the_rest(tmp_path: Path) -> None:
    landsat, twin = bandpass.read(written(tmp_path, MINE))
    assert twin == TWIN
    assert landsat.platform == "landsat-9"
    nir = BANDS.index("nir08")
    assert (landsat.scale[nir], landsat.offset[nir]) == (1.0026, 0)
    for k in set(range(6)) - {nir}:
        assert (landsat.scale[k], landsat.offset[k]) == (HLS.slope[k], HLS.intercept[k])


def test_what_is_the_default_makes_no_other_plan(tmp_path: Path) -> None:
    assert bandpass.read(written(tmp_path, "[sentinel-2c]\nred = {scale = 1, offset = 0.0}")) == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["names no platform", "sentinel-2c", "landsat-9"]),
        ("[sentinel-2d]\nblue = {scale = 1, offset = 0}", ["sentinel-2d is no platform", "sentinel-2c, landsat-8"]),
        ("[landsat-8]", ["landsat-8 names no band", "swir22"]),
        ("sentinel-2c = 1", ["sentinel-2c names no band"]),
        ("[sentinel-2c]\nB02 = {scale = 1, offset = 0}", ["sentinel-2c has no band B02", "blue, green"]),
        ("[sentinel-2c]\nblue = 1.01", ["sentinel-2c.blue must be a scale and an offset"]),
        ("[sentinel-2c]\nblue = {scale = 1.01}", ["sentinel-2c.blue must be"]),
        ("[sentinel-2c]\nblue = {scale = 1, offset = 0, gain = 1}", ["sentinel-2c.blue must be"]),
        ("[sentinel-2c]\nblue = {scale = nan, offset = 0}", ["sentinel-2c.blue.scale = nan is no finite number"]),
        ("[sentinel-2c]\nred = {scale = 1, offset = -inf}", ["sentinel-2c.red.offset = -inf is no finite number"]),
        ("[sentinel-2c]\nred = {scale = true, offset = 0}", ["sentinel-2c.red.scale = True is no finite number"]),
        ("[sentinel-2c]\nred = {scale = '1', offset = 0}", ["sentinel-2c.red.scale = 1 is no finite number"]),
        ("[landsat-9]\nred = {scale = 0.49, offset = 0}", ["landsat-9.red.scale = 0.49 lies outside 0.5..2"]),
        ("[landsat-9]\nred = {scale = 2.01, offset = 0}", ["landsat-9.red.scale = 2.01 lies outside 0.5..2"]),
        ("[landsat-9]\nred = {scale = 1, offset = 0.11}", ["landsat-9.red.offset = 0.11 lies outside -0.1..0.1"]),
        ("[sentinel-2c", ["is not TOML", "Repair it"]),
    ],
)
def test_a_bad_table_is_refused_and_the_place_named(text: str, words: list[str], tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(PlanError) as caught:
        bandpass.read(path)
    for word in (str(path), *words, "nothing was planned"):
        assert word in str(caught.value)


def test_a_missing_file_and_a_contradiction_are_told_with_the_other_parameters(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"bandpass_file = 'none.toml': band-pass file .*none.toml cannot be read"):
        asked(tmp_path, bandpass_file="none.toml")
    written(tmp_path, MINE)
    with pytest.raises(PlanError, match=r"none are to be applied"):
        asked(tmp_path, bandpass_file="mine.toml", bandpass=False)


# ---- the plan


def test_the_plan_keeps_the_numbers_and_not_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, MINE)
    request = asked(tmp_path, bandpass_file="mine.toml")
    refitted = planner.refitted(small_store.plan(), request)
    path.unlink()
    assert [a.platform for a in refitted.options.adjustments] == ["landsat-9", "sentinel-2c"]
    again = Plan.model_validate_json(refitted.model_dump_json())
    assert again == refitted
    assert again.fingerprint == refitted.fingerprint


def test_a_plan_without_coefficients_keeps_the_fingerprints_it_had() -> None:
    plan = small_store.plan()
    content = plan.model_dump(mode="json")
    assert content["options"].pop("adjustments") == []
    assert plan.fingerprint == fingerprint(content)
    assert Plan.model_validate(content) == plan
    assert "bandpass" not in ingest.reading_rules(plan)
    assert "bandpass" not in encoding.fused_attrs(plan, {})


def test_coefficients_make_other_what_they_shape_and_nothing_else() -> None:
    plain, landsat, twin = plan_with(), plan_with(OTHER), plan_with(TWIN)
    assert len({p.fingerprint for p in (plain, landsat, twin)}) == 3
    tile = plain.tiles[0]
    read = [ingest.ingest_fingerprint(p, tile) for p in (plain, landsat, twin)]
    assert read[0] == read[1] != read[2]
    fits = [harmonise.harmonise_fingerprint(p, ["inputs"]) for p in (plain, landsat, twin)]
    assert fits[0] == fits[2] != fits[1]


def test_inputs_of_other_coefficients_are_neither_taken_over_nor_gone_on_with(tmp_path: Path) -> None:
    written(tmp_path, MINE)
    store, plan = small_store.write(tmp_path / "store")
    area: Any = SimpleNamespace(geojson=plan.aoi)
    told = planner.contradictory_inputs(plan, asked(tmp_path, bandpass_file="mine.toml"), area)
    assert any("adjustments of Sentinel-2: the plan has (), asked is (Adjustment" in line for line in told)
    assert not any("adjustments" in line for line in planner.contradictory_inputs(plan, asked(tmp_path), area))
    # of Landsat alone the inputs know nothing
    (tmp_path / "landsat.toml").write_text("[landsat-8]\nred = {scale = 1.02, offset = 0}")
    other = asked(tmp_path, bandpass_file="landsat.toml")
    assert not any("adjustments" in line for line in planner.contradictory_inputs(plan, other, area))
    assert any(line.startswith("adjustments: ") for line in planner.contradictions(plan, other, area))

    new = plan_with(TWIN)
    items = small_store.collection(new.scenes)
    growth.begin(store, new, items)
    assert growth.earlier(store, new, {i.id: i for i in items}, ingest.reading_rules) is None


def test_plan_and_cube_say_what_was_done() -> None:
    default = "band-pass: Landsat to the mean of Sentinel-2A and 2B (HLS v1.4), Sentinel-2 as it is"
    assert default in described(small_store.plan())
    plan = plan_with(OTHER, TWIN)
    line = next(line for line in described(plan) if line.startswith("band-pass:"))
    assert "landsat-8 (6 dates) blue x 1.1 +0.01, green x 1.1 +0.01" in line
    assert "sentinel-2c (0 dates) blue x 1.004 -0.0007; otherwise Landsat to the mean" in line
    assert f"band-pass: {encoding.fused_attrs(plan, {})['bandpass']}" == line
    assert "band-pass: left as they are" in described(plan_with(bandpass=False))


# ---- Landsat


def two_satellites(*given: Adjustment, second: str = "landsat-9") -> Plan:
    plan = plan_with(*given, scene_check=False)
    last = plan.of("landsat8")[-1]
    scenes = [s if s is not last else s.model_copy(update={"platform": second}) for s in plan.scenes]
    return plan.model_copy(update={"scenes": tuple(scenes)})


def test_what_is_given_stands_in_the_place_of_hls_for_that_satellite_alone(tmp_path: Path) -> None:
    found = harmonise.fit_scenes(two_satellites(OTHER), [], "id")
    oli = np.full((6, 2, 2), 0.2, np.float32)
    np.testing.assert_allclose(found.apply(oli, 0), 0.2 * 1.1 + 0.01, rtol=1e-6)
    assert np.array_equal(found.apply(oli, 5), to_msi(oli, HLS))
    store = Store(str(tmp_path))
    harmonise.write(store, found)
    assert harmonise.read(store) == found


def test_by_default_every_date_has_what_it_had(tmp_path: Path) -> None:
    found = harmonise.fit_scenes(two_satellites(TWIN), [], "id")
    assert found == harmonise.Harmonisation("id", True, ())
    oli = np.linspace(0, 1, 24, dtype=np.float32).reshape(6, 2, 2)
    assert np.array_equal(found.apply(oli, 3), to_msi(oli))
    store = Store(str(tmp_path))
    harmonise.write(store, found)
    text = (store.read(harmonise.NAME) or b"").replace(b'"bandpasses": [], ', b"")
    assert b"bandpasses" not in text
    store.write(harmonise.NAME, text)
    assert harmonise.read(store) == found, "fits that an earlier release kept"


def test_the_fit_sees_landsat_with_its_own_coefficients(tmp_path: Path) -> None:
    """Once, and before the fit: what is sampled of a date is to_msi of its own coefficients."""
    store, plan = small_store.write(tmp_path / "store")
    tile = plan.tiles[0]
    options = plan.options.model_copy(update={"adjustments": (OTHER,)})
    given = plan.model_copy(update={"options": options})
    bare = plan.model_copy(update={"options": plan.options.model_copy(update={"bandpass": False})})
    raw, own = (harmonise.sampling.sample_tile(p, store, tile, 50) for p in (bare, given))
    assert raw
    for index in raw:
        np.testing.assert_allclose(own[index][:, 0], raw[index][:, 0] * 1.1 + 0.01, rtol=2e-5)
        assert np.array_equal(own[index][:, 1:], raw[index][:, 1:], equal_nan=True)


def test_a_mosaic_of_two_satellites_must_have_one_band_pass() -> None:
    mixed = two_satellites(OTHER, second="landsat-8+landsat-9")
    with pytest.raises(PlanError, match=r"landsat-8\+landsat-9 2023-12-06 is mosaicked.*--landsat 8"):
        bandpass.of_landsat(mixed)
    both = two_satellites(OTHER, OTHER.model_copy(update={"platform": "landsat-9"}), second="landsat-8+landsat-9")
    assert bandpass.of_landsat(both)[-1] == Bandpass("landsat-8", OTHER.scale, OTHER.offset)
