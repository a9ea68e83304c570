"""Real scenes laid out as a catalogue would serve them: cloud-optimised GeoTIFFs and STAC items in a folder.

The pixels are real; what the sources lost is put back and said here. Ids, processing dates and (for Flanders) tile,
path, row and orbit are rebuilt from the time of the overpass, for the sources do not carry them.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import netCDF4
import numpy as np
import rasterio
from numpy.typing import NDArray
from odc.geo.geom import box
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject, transform_bounds

from marstfn.bands import BANDS
from marstfn.simulate.year import sun
from pipeline.demo import collections, landsat, sentinel
from pipeline.demo.landsat import LandsatPass
from pipeline.demo.raster import File, Raster, write, write_json
from pipeline.demo.sentinel import SentinelPass
from pipeline.sensors import to_msi

U16 = NDArray[np.uint16]

FLANDERS = "data/flanders-l8-s2-series"
INDIA = "data/india-l8-pan"
L8_FILL = 64537
"""-999 written as an unsigned number."""
WRAPPED = 60_000
"""Values above are negative reflectances wrapped round."""
TWENTY_METRE_FAULT = 10
"""Metres by which the 20 m bands of the Flanders series stand too far south."""
REVISIT = timedelta(days=16)


@dataclass(frozen=True)
class Real:
    """A folder to serve, and what to ask of it."""

    folder: Path
    aoi: Path
    """GeoJSON file, inside all scenes."""
    profile: str
    """Catalogue profile; `PROFILE@URL` is the parameter."""
    year: int


def write_flanders(shared: Path, folder: Path) -> Real:
    """Landsat 8 and Sentinel-2 over 640 m near Wervik, August 2017 to November 2018, as Planetary Computer has them.

    Landsat: the 3 x 3 repetition on 10 m is undone onto the true pixels (edges 501375 + 30 k, 5629665 - 30 k; the
    repeated blocks stand 5 m too far west and south), fill and wrapped negatives are restored, Collection 1 reflectance
    x 1e-4 becomes Collection 2 numbers (2.75e-5, -0.2) and pixel_qa becomes QA_PIXEL. Passes in two overlapping frames
    (2018-06-06, 2018-07-24) stay two items. Sentinel-2: reflectance x 1e4 of a baseline before 04.00, so offset 0; the
    20 m bands and SCL are moved 10 m north by their georeference, since the source has them too far south.
    """
    _flanders_landsat(shared / FLANDERS, folder)
    _flanders_sentinel(shared / FLANDERS, folder)
    note = "Real scenes of a public training set near Wervik, Belgium; ids are rebuilt from times of overpass."
    _finish(folder, "flanders", note)
    aoi = _area(folder, 32631, (501_390, 5_629_090, 501_990, 5_629_660))
    return Real(folder, aoi, "planetary-computer", 2018)


def write_india(shared: Path, folder: Path) -> Real:
    """Landsat 8 Level-2 and Level-1 pan of two days near Thoothukudi, and stand-ins for Sentinel-2.

    The source took pixel centres for corners: pixels are put back by half a pixel, 15 m for the bands and 7.5 m for pan
    (a test measures that pan then lies where the bands are). Sentinel-2 never comes with this set: for each Landsat day
    an item in UTM zone 44 is made from that day's own bands and pan, marked `simulated`; a run that keeps references
    at least a day away fuses each Landsat day with the stand-in of the other, and its own serves as comparison.
    """
    for path in sorted((shared / INDIA).glob("*_SR.tif")):
        level2 = path.stem.removesuffix("_SR")
        level1 = level2.replace("L2SP", "L1TP")
        mtl = shared / INDIA / "mtl" / f"{level1}.json"
        scene = _described(level2, level1, json.loads(mtl.read_text())["LANDSAT_METADATA_FILE"]["IMAGE_ATTRIBUTES"])
        with rasterio.open(path) as source:
            numbers, transform = source.read().astype(np.uint16), source.transform
        with rasterio.open(shared / INDIA / f"{level1}_pan.tif") as source:
            pan, pan_transform = source.read(1).astype(np.uint16), source.transform
        raster = Raster(32643, transform.c - 15, transform.f + 15, 30, numbers.shape[1:])
        pan_raster = Raster(32643, pan_transform.c - 7.5, pan_transform.f + 7.5, 15, pan.shape)
        for band, values in zip((*BANDS, "qa_pixel"), numbers, strict=True):
            nodata = 1 if band == "qa_pixel" else 0
            write(File(folder / scene.href(band), raster, "uint16", nodata, nodata == 0), values)
        write(File(folder / scene.href("qa_radsat"), raster, "uint16", None, False), np.zeros(raster.shape, np.uint16))
        write(File(folder / scene.href("pan"), pan_raster, "uint16", 0), pan)
        write_json(folder / scene.href("mtl.json"), landsat.level2_mtl(scene, raster))
        target = folder / scene.href("MTL.json")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(mtl, target)
        collections.write_item(folder, landsat.level2_item(scene, raster))
        collections.write_item(folder, landsat.level1_item(scene, raster))
        _stand_in(folder, scene, raster, numbers[:6], pan_raster, pan)
    note = "Real Landsat 8 scenes near Thoothukudi, India; the Sentinel-2 items are SIMULATED from them."
    _finish(folder, "india", note)
    middle = _inner(raster)
    x, y = round((middle[0] + middle[2]) / 120) * 60, round((middle[1] + middle[3]) / 120) * 60
    aoi = _area(folder, 32644, (x - 595, y - 595, x + 595, y + 595))
    return Real(folder, aoi, "simulated", 2023)


def collection2(values: U16) -> U16:
    """Collection 1 reflectance x 1e-4 (fill 0 or 64537, negatives wrapped) as Collection 2 numbers, fill 0."""
    signed = np.where(values > WRAPPED, values.astype(np.int32) - 65536, values.astype(np.int32))
    numbers = np.clip(np.rint((signed * 1e-4 + 0.2) / 2.75e-5), 1, 65535)
    return np.where((values == 0) | (values == L8_FILL), 0, numbers).astype(np.uint16)


def qa_pixel(words: U16) -> U16:
    """Collection 1 pixel_qa as Collection 2 QA_PIXEL.

    Collection 1: bits 0 fill, 1 clear, 2 water, 3 shadow, 4 snow, 5 cloud, 6-7 cloud and 8-9 cirrus confidence; a cloud
    whose confidence is not high is the rim that was added to it. Collection 2 has the rim as bit 1, cirrus as bit 2.
    """
    word = words.astype(np.uint32)
    water, shadow, snow, cloudy = ((word >> bit & 1).astype(bool) for bit in (2, 3, 4, 5))
    confidence, cirrus = word >> 6 & 3, word >> 8 & 3
    cloud, rim = cloudy & (confidence == 3), cloudy & (confidence != 3)
    out = rim * 2 + (cirrus == 3) * 4 + cloud * 8 + shadow * 16 + snow * 32 + ~cloudy * 64 + water * 128
    out = out + (confidence << 8) + np.where(shadow, 3, 1) * 1024 + np.where(snow, 3, 1) * 4096
    out = out + np.where(cirrus == 3, 3, 1) * 16384
    return np.where((word == 0) | (word & 1 == 1), 1, out).astype(np.uint16)


def unrepeated(plane: U16) -> U16:
    """The 30 m pixels (..., 20, 21) behind 64 x 64 px of 10 m; raises ValueError where a block is not constant."""
    blocks = plane[..., 2:62, 1:64].reshape(*plane.shape[:-2], 20, 3, 21, 3)
    middle = blocks[..., :, 1, :, 1]
    if not (blocks == middle[..., :, None, :, None]).all():
        raise ValueError("3 x 3 blocks are not constant: not the series this was written for")
    return np.ascontiguousarray(middle)


def wrs_path(time: datetime) -> int:
    """WRS-2 path of a Landsat 8 pass by day: successive orbits lie 16 paths apart and 233 of them fill 16 days; counted
    from path 33, row 32 on 2024-11-27."""
    start, orbit = datetime(2024, 11, 27, 17, 37, 30, tzinfo=UTC), REVISIT / 233
    number = round((time - start + timedelta(seconds=200)) / orbit)
    return (33 + 16 * number - 1) % 233 + 1


def sentinel_orbit(time: datetime) -> tuple[str, int]:
    """Platform and relative orbit of a Sentinel-2 pass: 143 orbits fill 10 days and the twins are half a cycle apart,
    so only one of them counts to a whole number; counted from recorded passes on orbit 98."""
    epochs = {
        "sentinel-2a": datetime(2024, 4, 2, 17, 52, 57, tzinfo=UTC),
        "sentinel-2b": datetime(2024, 12, 3, 17, 57, 30, tzinfo=UTC),
    }
    counts = {name: (time - epoch) / timedelta(days=10) * 143 for name, epoch in epochs.items()}
    name = min(counts, key=lambda n: abs(counts[n] - round(counts[n])))
    return name, (98 + round(counts[name]) - 1) % 143 + 1


def _flanders_landsat(source: Path, folder: Path) -> None:
    data, times = _opened(source, "L8_SR_10m")
    raster = Raster(32631, 501_375, 5_629_665, 30, (20, 21))
    names = dict(zip(BANDS, ("B02", "B03", "B04", "B05", "B06", "B07"), strict=True))
    planes = {band: unrepeated(data[name][:]) for band, name in names.items()}
    quality = unrepeated(data["pixel_qa"][:])
    for k, time in enumerate(times):
        path = wrs_path(time)
        # of two frames of one pass the earlier is the row farther north
        row = 24 if any(timedelta(0) < other - time < timedelta(minutes=1) for other in times) else 25
        words = qa_pixel(quality[k])
        level2 = f"LC08_L2SP_{path:03d}{row:03d}_{time:%Y%m%d}_20200831_02_T1"
        elevation, azimuth = sun(50.8, time.date(), time.hour + time.minute / 60 + 3.0 / 15)
        cloud = 100 * float(np.isin(words >> 1 & 7, (1, 2, 3, 4, 5, 6, 7)).mean())
        scene = LandsatPass(level2, level2.replace("L2SP", "L1TP"), time, elevation, azimuth, round(cloud, 2))
        for band in BANDS:
            write(File(folder / scene.href(band), raster, "uint16", 0), collection2(planes[band][k]))
        write(File(folder / scene.href("qa_pixel"), raster, "uint16", 1, False), words)
        write(File(folder / scene.href("qa_radsat"), raster, "uint16", None, False), np.zeros(raster.shape, np.uint16))
        write_json(folder / scene.href("mtl.json"), landsat.level2_mtl(scene, raster))
        collections.write_item(folder, landsat.level2_item(scene, raster))


def _flanders_sentinel(source: Path, folder: Path) -> None:
    fine, times = _opened(source, "S2_L2A_10m")
    coarse, same = _opened(source, "S2_L2A_20m")
    if same != times:
        raise ValueError("the 10 m and 20 m files do not hold the same dates")
    rasters = {
        10: Raster(32631, 501_360, 5_629_680, 10, (64, 64)),
        20: Raster(32631, 501_360, 5_629_680 + TWENTY_METRE_FAULT, 20, (32, 32)),
    }
    planes = {
        b: (fine if r == 10 else coarse)[sentinel.BAND_NAME[b]][:] for b, r in sentinel.RESOLUTION.items() if b != "scl"
    }
    scl, zenith, azimuth = (coarse[name][:] for name in ("SCL", "sunZenithAngles", "sunAzimuthAngles"))
    for k, time in enumerate(times):
        platform, orbit = sentinel_orbit(time)
        unit, stamp = f"S2{platform[-1].upper()}", f"{time:%Y%m%dT%H%M%S}"
        product = f"{unit}_MSIL2A_{stamp}_N0208_R{orbit:03d}_T31UDS_{stamp}"
        cloud = 100 * float(np.isin(scl[k], (8, 9, 10)).mean())
        scene = SentinelPass(
            f"{unit}_T31UDS_{stamp}_L2A", product, platform, time, "02.08",
            round(90 - float(zenith[k]), 4), round(float(azimuth[k]), 4), round(cloud, 2),
        )  # fmt: skip
        for band in BANDS:
            write(File(folder / scene.href(band), rasters[sentinel.RESOLUTION[band]], "uint16", 0), planes[band][k])
        write(File(folder / scene.href("scl"), rasters[20], "uint8", 0, False), scl[k])
        collections.write_item(folder, sentinel.planetary_item(scene, rasters))


def _described(level2: str, level1: str, attributes: dict[str, str]) -> LandsatPass:
    text = f"{attributes['DATE_ACQUIRED']}T{attributes['SCENE_CENTER_TIME'][:15]}+00:00"
    return LandsatPass(
        level2, level1, datetime.fromisoformat(text), float(attributes["SUN_ELEVATION"]),
        float(attributes["SUN_AZIMUTH"]), float(attributes["CLOUD_COVER"]),
    )  # fmt: skip


def _stand_in(folder: Path, like: LandsatPass, raster: Raster, numbers: U16, pan_raster: Raster, pan: U16) -> None:
    """A Sentinel-2 item of the same morning: Landsat's bands enlarged and sharpened by its own pan, at the Sentinel-2
    band-pass, in the neighbouring zone as the real tiles are."""
    fine = Raster.covering(32644, _inner(raster), 10, 0, 60)
    sharp = warped(pan.astype(np.float32), pan_raster, fine)
    blurred = warped(warped(pan.astype(np.float32), pan_raster, raster, Resampling.average), raster, fine)
    detail = np.clip(sharp / blurred, 0.7, 1.4)
    bands = to_msi(
        np.stack([warped(n * np.float32(2.75e-5) - np.float32(0.2), raster, fine) for n in numbers]) * detail
    )
    rows, columns = fine.shape
    halved = bands.reshape(6, rows // 2, 2, columns // 2, 2).mean((2, 4))
    rasters = {10: fine, 20: Raster(32644, fine.left, fine.top, 20, (rows // 2, columns // 2))}
    time = like.time + timedelta(minutes=10)
    stamp = f"{time:%Y%m%dT%H%M%S}"
    scene = SentinelPass(
        f"S2A_T44PKQ_{stamp}_L2A", f"S2A_MSIL2A_{stamp}_N0510_R019_T44PKQ_{stamp}", "sentinel-2a", time, "05.10",
        like.sun_elevation, like.sun_azimuth, 0.0, {"simulated": True},
    )  # fmt: skip
    for k, band in enumerate(BANDS):
        values = bands[k] if k < 3 else halved[k]
        stored = np.clip(np.rint(values * 1e4 + 1000), 1, 65535).astype(np.uint16)
        write(File(folder / scene.href(band), rasters[sentinel.RESOLUTION[band]], "uint16", 0), stored)
    green, red, nir = halved[1], halved[2], halved[3]
    classes = np.where(green > nir, 6, np.where(nir - red > 0.4 * (nir + red), 4, 5)).astype(np.uint8)
    write(File(folder / scene.href("scl"), rasters[20], "uint8", 0, False), classes)
    collections.write_item(folder, sentinel.earth_search_item(scene, rasters))


def warped(
    values: NDArray[np.float32], source: Raster, target: Raster, resampling: Resampling = Resampling.cubic
) -> NDArray[np.float32]:
    """`values` on another raster."""
    out = np.full(target.shape, np.nan, np.float32)
    reproject(
        values, out, src_transform=Affine(*source.transform), src_crs=f"EPSG:{source.epsg}",
        dst_transform=Affine(*target.transform), dst_crs=f"EPSG:{target.epsg}", resampling=resampling,
        dst_nodata=np.nan,
    )  # fmt: skip
    return out


def _inner(raster: Raster) -> tuple[float, float, float, float]:
    """Bounds in the neighbouring zone that hold nothing but the raster's pixels (it is turned by one degree there)."""
    left, bottom, right, top = transform_bounds(f"EPSG:{raster.epsg}", "EPSG:32644", *raster.bounds)
    return left + 300, bottom + 300, right - 300, top - 300


def _opened(source: Path, name: str) -> tuple[netCDF4.Dataset, list[datetime]]:
    (path,) = source.glob(f"{name}_*.nc")
    data = netCDF4.Dataset(path)
    data.set_auto_maskandscale(False)
    stamps = data["timestamp"]
    start = datetime.fromisoformat(stamps.units.removeprefix("seconds since ")).replace(tzinfo=UTC)
    return data, [start + timedelta(seconds=int(s)) for s in stamps[:]]


def _finish(folder: Path, ident: str, note: str) -> None:
    items = [json.loads(path.read_text()) for path in sorted(folder.glob("items/*/*.json"))]
    collections.finish(folder, items, ident=ident, title=ident.capitalize(), note=note, simulated=False)


def _area(folder: Path, epsg: int, bounds: tuple[float, float, float, float]) -> Path:
    path = folder / "aoi.geojson"
    geometry = box(*bounds, f"EPSG:{epsg}").to_crs("EPSG:4326").json
    write_json(path, {"type": "Feature", "properties": {}, "geometry": geometry})
    return path
