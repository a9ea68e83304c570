"""The known catalogues. What each serves was read in its own recorded items; where a line says "not recorded", it is
general knowledge that no record confirms, and a profile file can put it right without a release.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from marstfn.bands import BANDS, PAN
from pipeline.access import PLAIN, Access
from pipeline.products import Product, Profile


def _keys(*keys: str) -> Mapping[str, str]:
    """Asset keys in the order of BANDS: blue, green, red, narrow near infrared, 1.6 and 2.2 micrometres."""
    return MappingProxyType(dict(zip(BANDS, keys, strict=True)))


def _aws(region: str, **options: str) -> Access:
    # the endpoint is said although it is GDAL's own: another one in the environment is meant for another catalogue
    return Access(MappingProxyType({"AWS_REGION": region, "AWS_S3_ENDPOINT": "s3.amazonaws.com", **options}))


_PUBLIC_WEST, _PUBLIC_SYDNEY, _PUBLIC_CAPE_TOWN = (
    _aws(region, AWS_NO_SIGN_REQUEST="YES") for region in ("us-west-2", "ap-southeast-2", "af-south-1")
)
_USGS_BUCKET = _aws("us-west-2", AWS_REQUEST_PAYER="requester", AWS_NO_SIGN_REQUEST="NO")
"""s3://usgs-landsat: the reader pays, so that AWS credentials are needed."""

_NAMED = _keys(*BANDS)
_SENTINEL_NAMES = ("B02", "B03", "B04", "B8A", "B11", "B12")

_PAYS = "Landsat is read from s3://usgs-landsat, whose reader pays: AWS credentials are needed (us-west-2)"


def _landsat_l2(collection: str, metadata: str, access: Access) -> Product:
    """Landsat Collection 2 Level-2; alike at Earth Search, Planetary Computer and USGS but for the MTL's key."""
    return Product(
        role="landsat8",
        collection=collection,
        assets=_NAMED,
        mask="qa_pixel",
        saturation="qa_radsat",
        metadata=metadata,
        family="landsat-c2-l2",
        access=access,
    )


def _landsat_pan(access: Access) -> Product:
    """Band 8 of Landsat Collection 2 Level-1. Keys as listed by a third party in April 2026; no whole item recorded."""
    return Product(
        role="landsat8_pan",
        collection="landsat-c2l1",
        assets=MappingProxyType({PAN: "pan"}),
        metadata="MTL.json",
        family="landsat-c2-l1",
        access=access,
    )


def _sentinel2(collection: str, assets: Mapping[str, str], mask: str, access: Access) -> Product:
    return Product(
        role="sentinel2", collection=collection, assets=assets, mask=mask, family="sentinel-2-l2a", access=access
    )


def _dea_sentinel2(satellite: str) -> Product:
    """DEA numbers Sentinel-2's bands its own way: nir_2 is B8A (nir_1 is B08), swir_2 and swir_3 are B11 and B12."""
    return Product(
        role="sentinel2",
        collection=f"ga_s2{satellite}m_ard_3",
        assets=_keys("nbart_blue", "nbart_green", "nbart_red", "nbart_nir_2", "nbart_swir_2", "nbart_swir_3"),
        mask="oa_fmask",
        family="dea-ard",
        access=_PUBLIC_SYDNEY,
    )


PLANETARY_COMPUTER = Profile(
    name="planetary-computer",
    url="https://planetarycomputer.microsoft.com/api/stac/v1",
    products=(
        _landsat_l2("landsat-c2-l2", "mtl.json", Access(signing="planetary-computer")),
        # no raster:bands and no nodata in its items; the offset goes by processing baseline
        _sentinel2("sentinel-2-l2a", _keys(*_SENTINEL_NAMES), "SCL", Access(signing="planetary-computer")),
        # no pan: its landsat-c2-l1 holds MSS only
    ),
)

EARTH_SEARCH = Profile(
    name="earth-search",
    url="https://earth-search.aws.element84.com/v1",
    products=(
        _landsat_l2("landsat-c2-l2", "mtl.json", _USGS_BUCKET),
        # Collection 1: sentinel-2-l2a misses thousands of scenes a month, and its offset flag is wrong at times
        _sentinel2("sentinel-2-c1-l2a", _NAMED, "scl", _PUBLIC_WEST),
    ),
    notice=_PAYS,
)

USGS = Profile(
    name="usgs",
    url="https://landsatlook.usgs.gov/stac-server",
    products=tuple(
        # the https addresses need a login; each asset names its twin in the bucket as alternate.s3
        make(Access(_USGS_BUCKET.gdal, alternate="s3"))
        for make in (lambda access: _landsat_l2("landsat-c2l2-sr", "MTL.json", access), _landsat_pan)
    ),
    notice=_PAYS,
)

CDSE = Profile(
    name="cdse",
    url="https://stac.dataspace.copernicus.eu/v1",
    products=(
        _sentinel2(
            "sentinel-2-l2a",
            _keys("B02_10m", "B03_10m", "B04_10m", "B8A_20m", "B11_20m", "B12_20m"),
            "SCL_20m",
            Access(
                gdal=MappingProxyType(
                    {
                        "AWS_S3_ENDPOINT": "eodata.dataspace.copernicus.eu",
                        "AWS_VIRTUAL_HOSTING": "FALSE",
                        "AWS_HTTPS": "YES",
                        "AWS_REGION": "default",  # not recorded: requests are signed for a region, and this is its name
                        "AWS_NO_SIGN_REQUEST": "NO",
                    }
                ),
                # keys of its own: those of AWS may be needed in the same run
                keys=MappingProxyType(
                    {"AWS_ACCESS_KEY_ID": "CDSE_S3_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY": "CDSE_S3_SECRET_KEY"}
                ),
            ),
        ),
    ),
    notice="files are JPEG 2000 behind personal S3 keys (CDSE_S3_ACCESS_KEY, CDSE_S3_SECRET_KEY), at most 4 readers",
)

DEA = Profile(
    name="dea",
    url="https://explorer.dea.ga.gov.au/stac",  # not recorded
    products=(
        Product(
            role="landsat8",
            collection="ga_ls8c_ard_3",
            assets=_keys("nbart_blue", "nbart_green", "nbart_red", "nbart_nir", "nbart_swir_1", "nbart_swir_2"),
            mask="oa_fmask",
            family="dea-ard",
            access=_PUBLIC_SYDNEY,
        ),
        Product(
            role="landsat8_pan",
            collection="ga_ls8c_ard_3",
            # surface reflectance, in the very item of the other bands, with a 15 m grid of its own
            assets=MappingProxyType({PAN: "nbart_panchromatic"}),
            family="dea-ard",
            access=_PUBLIC_SYDNEY,
        ),
        *(_dea_sentinel2(satellite) for satellite in "abc"),  # no item of these recorded
    ),
)

DEAFRICA = Profile(
    name="deafrica",
    url="https://explorer.digitalearth.africa/stac",
    products=(
        # a copy of USGS Collection 2 Level-2 under keys of its own; no item recorded
        Product(
            role="landsat8",
            collection="ls8_sr",
            assets=_keys("SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7"),
            mask="QA_PIXEL",
            saturation="QA_RADSAT",
            family="landsat-c2-l2",
            access=_PUBLIC_CAPE_TOWN,
        ),
        # Earth Search's Collection 1 files, in its bucket
        _sentinel2("s2_l2a_c1", _NAMED, "scl", _PUBLIC_WEST),
    ),
)

SIMULATED = Profile(
    name="simulated",
    url=None,
    products=(
        _landsat_l2("landsat-c2-l2", "mtl.json", PLAIN),
        _sentinel2("sentinel-2-c1-l2a", _NAMED, "scl", PLAIN),
        _landsat_pan(PLAIN),
    ),
)

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {p.name: p for p in (PLANETARY_COMPUTER, EARTH_SEARCH, USGS, CDSE, DEA, DEAFRICA, SIMULATED)}
)
