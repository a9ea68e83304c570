"""Assets to pixels on the cube's lattice: odc-stac with a reader that signs late, warps exactly and names errors."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any, Literal

import numpy as np
import odc.stac
import pystac
import rasterio
import rasterio.env
import rasterio.errors
from numpy.typing import NDArray
from odc.geo.converters import rio_geobox
from odc.geo.geobox import GeoBox
from odc.geo.overlap import compute_reproject_roi
from odc.geo.roi import roi_is_empty
from odc.loader import RioDriver
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

from pipeline.access import PLAIN, Access
from pipeline.cube import FILL, pack
from pipeline.errors import AssetError
from pipeline.hosts import Hosts, host_of, silent
from pipeline.plan import Radiometry
from pipeline.retries import Repeats
from pipeline.sensors import to_reflectance

TRIES = 6
"""Attempts at an asset whose server does not answer before the tile fails (the tile itself is tried again, too)."""
TRIES_READING = 5
"""Attempts at an asset that comes and cannot be read: what was cut on the way may be whole the next time."""
RENEWALS = 3
"""New tokens for one asset before a refusal counts like any other error: then it is not the token's age."""
PAUSE = 0.8
"""Seconds before the second attempt, doubled before each further one."""
TOLERANCE = 1e-6
"""Pixels by which GDAL may approximate a reprojection; its own 0.125 makes tiles differ from the whole."""
ROWS = 64
"""Rows whose numbers become reflectance at a time."""
PASTE = 1e-3
"""Pixels of shift below which a source lies on the lattice and is copied as it is."""

HOSTS = Hosts()
"""What the reading threads of this process know of the servers they read from."""

_REFUSED = re.compile(r"response code: 403")
_CERTAIN = re.compile(r"response code: \d|does not exist")
"""What a server says of the file itself."""
_QUERY = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]*|\?[^\s?'\",]*=[^\s'\",]*")
"""Of an address, or of a file's name alone: that is how GDAL names what it reads a band of."""

Kind = Literal["nearest", "bilinear", "cubic"]


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of one item and what its numbers mean; `radiometry` None: a mask, kept as stored."""

    item: str
    key: str
    href: str
    nodata: int
    radiometry: Radiometry | None
    access: Access = PLAIN


class Driver(RioDriver):  # type: ignore[misc]
    """Reader driver for odc-stac over known assets; each brings the settings it is opened with."""

    def __init__(self, assets: Mapping[str, Asset], where: str, repeats: Repeats) -> None:
        super().__init__()
        self._assets, self._where, self._repeats = dict(assets), where, repeats

    def capture_env(self) -> dict[str, Any]:
        return {}  # nothing for the whole load: it may mix catalogues

    def open(self, src: Any, ctx: Any) -> _Reader:
        return _Reader(self._assets[src.uri], self._where, self._repeats)


class _Reader:
    def __init__(self, asset: Asset, where: str, repeats: Repeats) -> None:
        self._asset, self._where, self._repeats = asset, where, repeats

    def read(
        self, cfg: Any, dst_geobox: GeoBox, *, dst: Any = None, selection: Any = None
    ) -> tuple[tuple[slice, slice], NDArray[Any]]:
        """(roi, pixels): int16 reflectance for bands, the stored numbers for masks. Raises AssetError."""
        asset = self._asset
        pixels = self._pixels(dst_geobox, cfg.resampling)
        everything = (slice(0, dst_geobox.shape.y), slice(0, dst_geobox.shape.x))
        if asset.radiometry is None:
            fill = cfg.fill_value if cfg.fill_value is not None else asset.nodata
            return everything, np.where(np.isnan(pixels), fill, pixels).astype(cfg.dtype)
        out = np.empty(pixels.shape, np.int16)
        for begin in range(0, len(out), ROWS):  # in pieces that stay in the processor's cache, and small ones in memory
            rows = slice(begin, begin + ROWS)
            out[rows] = pack(to_reflectance(pixels[rows], asset.radiometry))
        return everything, out

    def _pixels(self, target: GeoBox, resampling: str) -> NDArray[np.float32]:
        """The asset on `target`, after as many attempts as its failures deserve."""
        href, access = self._asset.href, self._asset.access
        host = host_of(href)
        attempt = renewals = 0
        while True:
            why = HOSTS.given_up(host)
            if why is not None:
                raise self._failed(why)
            signed = href
            try:
                with self._repeats.reading(HOSTS.failed), access.opened(), _again(attempt + renewals, host):
                    signed = access.sign(href)
                    pixels = _warp(signed, self._asset, target, resampling)
            except (rasterio.errors.RasterioError, rasterio.errors.CRSError, OSError, ValueError) as error:
                reason = _reason(error)
                deserved = _tokens(reason) if signed != href else 0
                if deserved:
                    access.refused(signed)
                if renewals < deserved:
                    renewals += 1
                    self._repeats.add(href)
                    continue
                waiting = bool(host) and silent(reason)
                if waiting:
                    HOSTS.failed(host, reason)
                attempt += 1
                if attempt >= (TRIES if waiting else TRIES_READING):
                    # a traceback would tell the token
                    raise self._failed(reason) from (error if signed == href else None)
                self._repeats.add(href)
                time.sleep(PAUSE * 2 ** (attempt - 1))
            else:
                HOSTS.answered(host)
                return pixels

    def _failed(self, reason: str) -> AssetError:
        asset = self._asset
        return AssetError(
            f"asset {asset.key!r} of item {asset.item} cannot be read for {self._where} ({asset.href}): {reason}. "
            "The tile is not written; run the same command again to go on from here, or plan anew if the catalogue has "
            "withdrawn the item"
        )


def load(
    scenes: Sequence[Sequence[pystac.Item]],
    bands: Mapping[str, Kind],
    geobox: GeoBox,
    assets: Callable[[pystac.Item, str], Asset],
    *,
    masks: bool,
    where: str,
    stac_cfg: Mapping[str, Any],
    threads: int,
    repeats: Repeats | None = None,
) -> dict[str, NDArray[Any]]:
    """Arrays (scenes, ny, nx) by layer on `geobox`; items of a scene are mosaicked in order, first valid wins.

    Bands come as int16 in units of 1e-4 reflectance, -9999 where nothing is; masks as stored. The resampling is
    given by asset key; `repeats` counts what had to be asked for again. Raises AssetError naming item, asset and tile.
    """
    order = {item.id: index for index, scene in enumerate(scenes) for item in scene}
    items = [item for scene in scenes for item in scene]
    known = {}
    for item in items:
        for key in bands:
            asset = assets(item, key)
            known[asset.href] = asset
    out = odc.stac.load(
        items,
        bands=list(bands),
        geobox=geobox,
        groupby=lambda item, parsed, index: order[item.id],
        preserve_original_order=True,
        resampling=dict(bands),
        stac_cfg=dict(stac_cfg),
        pool=_pool(threads),
        driver=Driver(known, where, repeats or Repeats()),
        use_overviews=False,
        **({} if masks else {"dtype": "int16", "nodata": FILL}),
    )
    return {key: out[key].values for key in bands}


def _warp(href: str, asset: Asset, target: GeoBox, resampling: str) -> NDArray[np.float32]:
    """The first band of a file on `target` as float32, NaN where it has nothing."""
    with rasterio.open(href, sharing=False) as source:
        overlap = compute_reproject_roi(rio_geobox(source), target, ttol=PASTE)
        if roi_is_empty(overlap.roi_src) or roi_is_empty(overlap.roi_dst):
            return np.full(target.shape.yx, np.nan, np.float32)
        if overlap.paste_ok and overlap.read_shrink == 1:
            (y, x) = overlap.roi_src
            window = ((y.start, y.stop), (x.start, x.stop))
            pixels: NDArray[np.float32] = source.read(1, window=window).astype(np.float32)
            pixels[pixels == asset.nodata] = np.nan
            if pixels.shape == target.shape.yx:
                return pixels
            pasted = np.full(target.shape.yx, np.nan, np.float32)
            pasted[overlap.roi_dst] = pixels
            return pasted
        with WarpedVRT(
            source,
            crs=str(target.crs),
            transform=target.transform,
            width=target.shape.x,
            height=target.shape.y,
            resampling=Resampling[resampling],
            src_nodata=asset.nodata,
            nodata=math.nan,
            dtype="float32",
            tolerance=TOLERANCE,
            # the kernel must not depend on the shape of the window that happens to be asked for
            XSCALE=_scale(abs(source.transform.a), abs(target.transform.a)),
            YSCALE=_scale(abs(source.transform.e), abs(target.transform.e)),
        ) as view:
            out: NDArray[np.float32] = view.read(1)
            return out


def _scale(source: float, target: float) -> str:
    """Target pixels per source pixel as GDAL wants it: 1 unless the target is coarser."""
    return f"{min(1.0, source / target):.6f}"


@contextmanager
def _again(attempt: int, host: str) -> Iterator[None]:
    """From the second attempt on, GDAL must not answer from what it remembers: it keeps failures, even a 404, for the
    life of the process. What is so opened is forgotten when it is closed, so the third attempt asks anew for certain.

    A server that does not answer is not asked five times over in one attempt: each takes its ten seconds.
    """
    options = {"CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/"} if attempt else {}
    if HOSTS.unreachable(host):
        options["GDAL_HTTP_MAX_RETRY"] = "0"
    if not options:
        yield
        return
    with rasterio.env.Env(**options):
        yield


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error.__context__
    text = str(error)
    if cause is not None and str(cause) not in text:
        text = f"{text} ({cause})"
    # GDAL names the address it opened, and that one is signed
    return " ".join(_QUERY.sub(r"\1", text).split())


def _tokens(reason: str) -> int:
    """How many new tokens a signed file is tried with before its failure counts as one of the file.

    A token that runs out between two requests for a file shows in no error: what came is short, or no known format.
    """
    if _REFUSED.search(reason):
        return RENEWALS
    return 0 if silent(reason) or _CERTAIN.search(reason) else 1


class _Pool(ThreadPoolExecutor):
    """odc-stac closes the executor it is given after each load; threads that live on read twice as fast."""

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


@cache
def _pool(threads: int) -> _Pool:
    return _Pool(threads, thread_name_prefix="read")
