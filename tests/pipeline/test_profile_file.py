"""A catalogue described by its user: read as meant, and every slip told by name."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest

from marstfn.bands import BANDS
from pipeline import profile_file, profiles
from pipeline.errors import CatalogError

MINE = """
name = "mine"
url = "https://stac.example.org/v1"

[gdal]
AWS_REGION = "eu-central-1"

[keys]
AWS_ACCESS_KEY_ID = "MINE_KEY"

[[collections]]
role = "sentinel2"
collection = "s2"
family = "sentinel-2-l2a"
mask = "SCL"
[collections.assets]
blue = "B02"
green = "B03"
red = "B04"
nir08 = "B8A"
swir16 = "B11"
swir22 = "B12"

[[collections]]
role = "landsat8"
collection = "l8"
family = "landsat-c2-l2"
mask = "qa"
alternate = "s3"
gdal = { AWS_REQUEST_PAYER = "requester" }
types = { qa = { dtype = "uint16", nodata = 0 } }
assets = { blue = "b2", green = "b3", red = "b4", nir08 = "b5", swir16 = "b6", swir22 = "b7" }
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(MINE)
    return path


def test_a_file_of_ones_own_is_a_catalogue(mine: Path) -> None:
    source = profiles.resolve(str(mine))
    assert (source.profile.name, source.endpoints[0].url, source.roles) == (
        "mine", "https://stac.example.org/v1", ("sentinel2", "landsat8"),
    )  # fmt: skip
    sentinel, landsat = source.product("sentinel2"), source.product("landsat8")
    assert sentinel is not None
    assert landsat is not None
    assert [sentinel.assets[band] for band in BANDS] == ["B02", "B03", "B04", "B8A", "B11", "B12"]
    assert (sentinel.numbers("SCL"), sentinel.numbers("B02")) == (("uint8", 0), ("uint16", 0))
    assert landsat.numbers("qa") == ("uint16", 0)
    assert sentinel.access.gdal == {"AWS_REGION": "eu-central-1"}
    assert landsat.access.gdal == {"AWS_REGION": "eu-central-1", "AWS_REQUEST_PAYER": "requester"}
    assert (landsat.access.alternate, landsat.access.keys) == ("s3", {"AWS_ACCESS_KEY_ID": "MINE_KEY"})


def test_the_example_of_the_manual_is_one(tmp_path: Path) -> None:
    assert profile_file.__doc__ is not None
    path = tmp_path / "example.toml"
    path.write_text(textwrap.dedent(profile_file.__doc__.split("\n", 2)[2]))
    profile, _ = profile_file.read(path)
    assert profile.roles == ("sentinel2", "landsat8")


def test_a_plan_reads_its_file_back_and_notices_when_it_has_changed(mine: Path, tmp_path: Path) -> None:
    source = profiles.resolve("mine.toml", tmp_path)
    assert source.label.startswith(f"{mine}#")
    assert profiles.resolve(source.label) == source
    assert profiles.resolve(f"{source.label}@http://127.0.0.1:1+usgs").label.endswith("@http://127.0.0.1:1+usgs")
    mine.write_text(MINE.replace('"B8A"', '"B08"'))
    profiles._kept.cache_clear()
    with pytest.raises(CatalogError, match=r"mine.toml has changed since the plan was made .* plan anew"):
        profiles.resolve(source.label)
    assert profiles.resolve("mine.toml", tmp_path).label != source.label


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "a+b@c#d%2B"
    folder.mkdir()
    (folder / "mine.toml").write_text(MINE)
    source = profiles.resolve("mine.toml@items.json+usgs", folder)
    assert profiles.resolve(source.label) == source
    assert source.endpoints[0].url == os.fspath(folder / "items.json")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('nir08 = "B8A"\n', "", "serve sentinel2, has no asset for band nir08"),
        ('mask = "SCL"\n', "", "collection s2, which is to serve sentinel2, has no mask"),
        ('mask = "SCL"', 'msak = "SCL"', "collections.0.msak: Extra inputs are not permitted"),
        ('nir08 = "B8A"', 'nir = "B8A"', "collections.0.assets: nir is no band; bands are blue, green"),
        ('role = "landsat8"', 'role = "landsat"', "collections.1.role: Input should be 'sentinel2', 'landsat8'"),
        ('family = "sentinel-2-l2a"', 'family = "s2"', "collections.0.family: Input should be 'sentinel-2-l2a'"),
        ('dtype = "uint16"', 'dtype = "complex"', "collections.1.types.qa.dtype"),
        ('name = "mine"', "", "name: Field required"),
        ('name = "mine"', 'name = "my own"', "name: String should match pattern"),
        ('name = "mine"', 'name = "usgs"', "has the name 'usgs' of a known catalogue"),
        ('name = "mine"', "name = ", "is not TOML"),
        ("[keys]\n", "[keys]\nAWS_REGION = 'X'\n", "keys: AWS_REGION is none of AWS_ACCESS_KEY_ID"),
        ("https://stac", "ftp://stac", "not an http"),
    ],
)  # fmt: skip
def test_every_slip_is_told_by_name(old: str, new: str, words: str, mine: Path) -> None:
    assert old in MINE
    mine.write_text(MINE.replace(old, new, 1))
    with pytest.raises(CatalogError) as caught:
        profiles.resolve(str(mine))
    assert words in str(caught.value)
    assert "nothing was searched" in str(caught.value)


@pytest.mark.parametrize("line", ['AWS_SECRET_ACCESS_KEY = "hush"', 'aws_session_token = "hush"'])
def test_a_secret_in_a_profile_is_refused_without_repeating_it(line: str, mine: Path) -> None:
    mine.write_text(MINE.replace("[gdal]\n", f"[gdal]\n{line}\n"))
    with pytest.raises(CatalogError, match="would put a secret into a file; name its environment variable") as caught:
        profiles.resolve(str(mine))
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_file_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"none\.toml cannot be read \(No such file"):
        profiles.resolve("none.toml", tmp_path)
