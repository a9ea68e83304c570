"""Level-2 and Level-1 of one acquisition: matched by scene id, place or MTL, and pan read on the file's own grid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine

from pipeline import pan as panchromatic
from pipeline.access import PLAIN
from pipeline.facts import path_row, scene_id, tier
from pipeline.grid import Grid
from pipeline.plan import Dropped, Radiometry
from pipeline.reader import Asset, load

RECORDED_MTL = "usgs-landsatlook/mtl/LC08_L2SP_008059_20191201_20200825_02_T1_MTL.json"
LEVEL1 = "LC08_L1TP_008059_20191201_20200825_02_T1"


def item(name: str, **properties: Any) -> dict[str, Any]:
    level = "landsat-c2l1" if "_L1" in name else "landsat-c2l2-sr"
    told = {
        "datetime": "2019-12-01T15:13:36Z",
        "platform": "LANDSAT_8",
        "landsat:wrs_path": "008",
        "landsat:wrs_row": "059",
        "landsat:scene_id": "LC80080592019335LGN00",
        "landsat:collection_category": "T1",
    }
    kept = {k: v for k, v in (told | properties).items() if v is not None}
    return {"id": name, "collection": level, "properties": kept, "assets": {}, "geometry": None}


LEVEL2 = item("LC08_L2SP_008059_20191201_20200825_02_T1_SR")


def matched(pan: list[dict[str, Any]], level2: dict[str, Any] = LEVEL2, level1: Any = panchromatic.unknown) -> Any:
    dropped: list[Dropped] = []
    found = panchromatic.match([level2], pan, dropped, level1)
    name = found[level2["id"]]["id"] if level2["id"] in found else None
    return name, {d.item: d.why for d in dropped}


def never(level2: Any) -> str | None:
    raise AssertionError("the metadata file was asked for where one candidate is there")


# ---- the keys


def test_pan_by_scene_id_though_the_processing_dates_do_not_agree() -> None:
    own = item("LC08_L1TP_008059_20191201_20211016_02_T1")
    other = item("LC08_L1TP_008058_20191201_20200825_02_T1", **{
        "landsat:scene_id": "LC80080582019335LGN00", "landsat:wrs_row": "058",
    })  # fmt: skip
    name, dropped = matched([other, own], level1=never)
    assert name == own["id"]
    assert dropped == {other["id"]: "no Level-2 item of the same acquisition is used"}


def test_pan_by_the_scene_id_as_digital_earth_australia_spells_it() -> None:
    own = item(LEVEL1)
    level2 = item("ga_ls8c_ard_3-1-0_008059_2019-12-01_final", **{
        "landsat:scene_id": None, "landsat:landsat_scene_id": "LC80080592019335LGN00",
        "landsat:collection_category": None, "landsat:wrs_path": None, "landsat:wrs_row": None,
    })  # fmt: skip
    assert matched([own], level2)[0] == own["id"]


def test_pan_by_path_row_date_and_satellite_where_no_scene_id_is_told() -> None:
    own = item(LEVEL1, **{"landsat:scene_id": None})
    ninth = item("LC09_L1TP_008059_20191201_20200825_02_T1", **{"landsat:scene_id": None, "platform": "LANDSAT_9"})
    day = item("LC08_L1TP_008059_20191117_20200825_02_T1", **{
        "landsat:scene_id": None, "datetime": "2019-11-17T15:13:36Z",
    })  # fmt: skip
    name, dropped = matched([day, ninth, own])
    assert name == own["id"]
    assert set(dropped) == {day["id"], ninth["id"]}


def test_path_and_row_of_the_id_where_no_property_tells_them() -> None:
    bare = {"landsat:scene_id": None, "landsat:wrs_path": None, "landsat:wrs_row": None}
    level2 = item(LEVEL2["id"], **bare)
    assert path_row(level2) == (8, 59)
    assert matched([item(LEVEL1, **bare)], level2)[0] == LEVEL1


@pytest.mark.parametrize("wrong", ["T2", "RT"])
def test_pan_of_the_same_tier_and_never_of_real_time(wrong: str) -> None:
    own, other = item(LEVEL1), item(f"LC08_L1TP_008059_20191201_20211016_02_{wrong}", **{
        "landsat:collection_category": wrong,
    })  # fmt: skip
    name, dropped = matched([other, own], level1=never)
    assert name == own["id"]
    assert dropped[other["id"]].startswith(f"same acquisition as {own['id']}")
    assert matched([other])[0] is None


def test_an_item_that_holds_pan_itself_is_its_own_match() -> None:
    level2 = item("ga_ls8c_ard_3-1-0_088080_2020-05-25_final")
    assert matched([level2], level2, level1=never) == (level2["id"], {})


# ---- several processings of Level-1


def test_of_several_processings_the_mtl_names_the_one() -> None:
    old, new = item(LEVEL1), item("LC08_L1TP_008059_20191201_20211016_02_T1")
    name, dropped = matched([new, old], level1=lambda level2: LEVEL1)
    assert name == LEVEL1
    assert dropped[new["id"]] == f"same acquisition as {LEVEL1}, which is of the Level-2 item's processing"


@pytest.mark.parametrize("told", [None, "LC08_L1TP_008059_20191201_20230101_02_T1"])
def test_of_several_processings_the_newest_where_the_mtl_cannot_be_had(told: str | None) -> None:
    old, new = item(LEVEL1), item("LC08_L1TP_008059_20191201_20211016_02_T1")
    for pan in ([new, old], [old, new]):
        assert matched(pan, level1=lambda level2: told)[0] == new["id"]


@contextmanager
def served(body: bytes, status: int = 200) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.shared
@pytest.mark.parametrize("key", ["MTL.json", "mtl.json"])
def test_the_level1_product_is_read_from_a_recorded_mtl(shared: Path, key: str) -> None:
    with served((shared / "stac" / RECORDED_MTL).read_bytes()) as url:
        level2 = {**LEVEL2, "assets": {key: {"href": f"{url}/MTL.json"}}}
        assert panchromatic.level1_of(level2, PLAIN, key) == LEVEL1


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"<html>log in</html>", 200), (b"{}", 200), (b"", 403), (b'{"LANDSAT_METADATA_FILE": {}}', 200)],
)
def test_an_mtl_behind_a_login_is_none(body: bytes, status: int) -> None:
    with served(body, status) as url:
        level2 = {**LEVEL2, "assets": {"MTL.json": {"href": f"{url}/MTL.json"}}}
        assert panchromatic.level1_of(level2, PLAIN, "MTL.json") is None


class Signer:
    """Signs as it is told; remembers what was refused."""

    def __init__(self, *signed: str) -> None:
        self.signed, self.forgotten = signed, list[str]()

    def sign(self, href: str) -> str:
        return self.signed[len(self.forgotten)]

    def refused(self, signed: str) -> None:
        self.forgotten.append(signed)


def test_an_mtl_whose_reader_pays_is_not_asked_for() -> None:
    for assets in ({}, {"mtl.json": {"href": "s3://usgs-landsat/collection02/level-2/x_MTL.json"}}):
        # a signer without signatures fails where it is asked
        assert panchromatic.level1_of({**LEVEL2, "assets": assets}, Signer(), "mtl.json") is None


MTL = json.dumps({"LANDSAT_METADATA_FILE": {"LEVEL1_PROCESSING_RECORD": {"LANDSAT_PRODUCT_ID": LEVEL1}}}).encode()
ON_AZURE = {**LEVEL2, "assets": {"mtl.json": {"href": "https://account.blob.core.windows.net/c/MTL.json"}}}


def test_an_mtl_is_signed_before_it_is_read() -> None:
    with served(MTL) as url:
        signer = Signer(f"{url}/?sig=x")
        assert panchromatic.level1_of(ON_AZURE, signer, "mtl.json") == LEVEL1
        assert signer.forgotten == []


def test_an_mtl_refused_with_an_old_token_is_read_with_a_new_one() -> None:
    with served(MTL) as url, served(b"", 403) as closed:
        signer = Signer(f"{closed}/?sig=old", f"{url}/?sig=new")
        assert panchromatic.level1_of(ON_AZURE, signer, "mtl.json") == LEVEL1
        assert signer.forgotten == [f"{closed}/?sig=old"]
        signer = Signer(f"{closed}/?sig=old", f"{closed}/?sig=new")
        assert panchromatic.level1_of(ON_AZURE, signer, "mtl.json") is None
        assert len(signer.forgotten) == 1, "what a new token does not open is not asked for for ever"


# ---- what is said


@pytest.mark.parametrize(
    ("landsat", "matches", "offered", "text"),
    [
        (22, 22, 25, None),
        (22, 20, 25, "2 of 22 Landsat dates have no panchromatic band and are fused without it"),
        (22, 0, 25, "none of 25 panchromatic scenes is of a Landsat date in use: Landsat is fused without it"),
        (22, 0, 0, "no panchromatic scene of these days is in the catalogue: Landsat is fused without it"),
    ],
)
def test_no_pan_is_said_once_and_plainly(landsat: int, matches: int, offered: int, text: str | None) -> None:
    assert panchromatic.said(landsat, matches, offered) == text


# ---- recorded items


@pytest.mark.shared
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("dea/ga_ls8c_ard/ga_ls8c_ard_3-1-0_088080_2020-05-25_final.json", ("LC80880802020146LGN00", (88, 80), "T1")),
        (
            "usgs-landsatlook/landsat-c2l2-sr/LC08_L2SP_028030_20200114_20200824_02_T1_SR.json",
            ("LC80280302020014LGN00", (28, 30), "T1"),
        ),
        (
            "usgs-landsatlook/landsat-c2l1/LM02_L1GS_001004_19750411_20200908_02_T2.json",
            ("LM20010041975101AAA02", (1, 4), "T2"),
        ),
        ("planetary-computer/landsat-c2-l2/LC08_L2SP_033032_20241127_02_T1.json", (None, (33, 32), "T1")),
    ],
)
def test_scene_id_path_row_and_tier_of_recorded_items(path: str, expected: Any, shared: Path) -> None:
    recorded = json.loads((shared / "stac" / path).read_text())
    told = (scene_id(recorded), path_row(recorded), tier(recorded))
    assert told[1:] == expected[1:]
    assert expected[0] is None or told[0] == expected[0]


# ---- the grid


def test_pan_is_read_on_the_files_grid_though_the_item_claims_30_m(tmp_path: Path) -> None:
    """USGS gives shape and transform of the 30 m bands for pan, too; a run on them would halve its resolution."""
    grid = Grid(32650, 600_000, 5_400_000, 10, 10, 60)
    left, top, side = grid.left - 307.5, grid.top + 307.5, 101
    data = np.random.default_rng(3).integers(5000, 9000, (side, side)).astype(np.uint16)
    path = tmp_path / "B8.TIF"
    shape = {"height": side, "width": side, "count": 1, "dtype": "uint16", "driver": "GTiff"}
    with rasterio.open(path, "w", **shape, crs="EPSG:32650", transform=Affine(15, 0, left, 0, -15, top)) as file:
        file.write(data, 1)
    box = grid.geobox(10).geographic_extent
    bounds = list(box.boundingbox.bbox)
    claims = {
        "proj:epsg": 32650,
        "proj:shape": [51, 51],
        "proj:transform": [30, 0, left - 7.5, 0, -30, top + 7.5],
    }
    told = pystac.Item.from_dict(
        {
            "type": "Feature", "stac_version": "1.0.0", "id": LEVEL1, "collection": "landsat-c2l1", "links": [],
            "geometry": box.json, "bbox": bounds, "properties": {"datetime": "2019-12-01T15:13:36Z", **claims},
            "stac_extensions": ["https://stac-extensions.github.io/projection/v1.0.0/schema.json"],
            "assets": {"pan": {"href": str(path), "roles": ["data"]}},
        }
    )  # fmt: skip
    rule = Radiometry(scale=1e-4, offset=0.0, nodata=0, rule="test")
    # a lattice of 15 m on the file's own pixels, inside it: what is read is the file, pixel by pixel
    inner = Grid(32650, 600_000, 5_400_000, 10, 10, 60).geobox(15).translate_pix(0.5, -0.5)
    found = load(
        [[told]], {"pan": "cubic"}, inner, lambda i, key: Asset(i.id, key, str(path), 0, rule), masks=False,
        where="test", stac_cfg={"landsat-c2l1": {"assets": {"*": {"data_type": "uint16", "nodata": 0}}}},
        threads=1,
    )["pan"][0]  # fmt: skip
    rows = round((top - inner.affine.f) / 15)
    columns = round((inner.affine.c - left) / 15)
    assert found.shape == (40, 40)
    np.testing.assert_array_equal(found, data[rows : rows + 40, columns : columns + 40])
