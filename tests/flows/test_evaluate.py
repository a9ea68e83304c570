"""`marstfn evaluate` as it is typed: simulated scenes, arrays, a folder, an area of the served season, bad input."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from flows import cli
from marstfn import situations
from marstfn.scenes import Scene
from marstfn.situations import X0, Y0

pytestmark = pytest.mark.server

MARSTFN = str(Path(sys.executable).with_name("marstfn"))
QUICK = ["--methods", "additive,bicubic", "--draws", "100", "--threads", "1"]
SIDE = 72


@pytest.fixture(scope="module")
def place(tmp_path_factory, season):
    """(folder, environment) in which a user stands, the season's catalogue being the default."""
    folder = tmp_path_factory.mktemp("evaluate")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MARSTFN_"))}
    env |= {"HOME": str(folder), "MARSTFN_CATALOG": season.catalog, "MARSTFN_YEAR": "2023", "OMP_NUM_THREADS": "1"}
    (folder / "field.geojson").write_bytes(season.aoi.read_bytes())
    return folder, env


def typed(place, *arguments):
    folder, env = place
    return subprocess.run([MARSTFN, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def view() -> Scene:
    return next(situations.each(SIDE)).view


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder in which this process stands."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def saved(here, view):
    """`saved(landsat=..., pan=None)` writes meadow.npz, changed, into the folder."""

    def save(**changes: object) -> str:
        images = {"s2": view.s2, "landsat": view.landsat, "truth": view.truth, "pan": view.pan} | changes
        np.savez(here / "meadow.npz", **{name: image for name, image in images.items() if image is not None})
        return "meadow.npz"

    return save


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def scores(folder: Path, case: str) -> dict[str, dict[str, str]]:
    """By method, over all pixels and bands."""
    found = [r for r in rows(folder) if (r["case"], r["part"], r["band"]) == (case, "all", "all bands")]
    return {r["method"]: r for r in found}


def refused(capsys, *arguments: str, code: int = 1) -> str:
    """The one line in which the command says what is wrong."""
    assert cli.run(["evaluate", *arguments]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    (line,) = [line for line in said.err.splitlines() if line.strip()]
    assert line.startswith("error: ")
    return line


def test_the_simulator_needs_nothing_but_its_name(place):
    folder, _ = place
    done = typed(place, "evaluate", "simulated", *QUICK, "--side", "36", "--log", "it.log")
    assert done.returncode == 0, done.stderr
    assert "compare: 4 of 4 cases" in done.stderr
    first, made, tables, report = done.stdout.splitlines()
    assert first.startswith("simulated: On 4 dates, ")
    assert made.startswith("2 methods on 4 cases, ")
    assert tables == f"tables: {folder}/evaluation"
    assert report == f"report: {folder}/evaluation/report.html"
    names = {p.name for p in (folder / "evaluation").iterdir()}
    assert names == {
        "report.html",
        "scores.md",
        "figures",
        *(f"{name}.{kind}" for name in ("scores", "differences") for kind in ("csv", "parquet")),
    }
    assert set(scores(folder / "evaluation", "average")) == {"additive", "bicubic"}
    text = (folder / "evaluation" / "report.html").read_text()
    assert "marstfn evaluate simulated --methods additive,bicubic --side 36 --draws 100" in text
    assert (folder / "it.log").is_file()
    quiet = typed(place, "evaluate", "simulated", *QUICK, "--side", "36", "--out", "again", "-q")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    # the second time is the first again, but for the time it took
    timed = [
        [{k: v for k, v in r.items() if k != "seconds"} for r in rows(folder / f)] for f in ("evaluation", "again")
    ]
    assert timed[0] == timed[1]


def test_arrays_are_a_source(here, saved, view, capsys):
    assert cli.run(["evaluate", saved(name="meadow in May", date="2021-05-04"), *QUICK, "--against", "bicubic"]) == 0
    assert capsys.readouterr().out.startswith("meadow.npz: On one date, additive")
    found = scores(here / "evaluation", "meadow in May")
    expected = math.sqrt(float(((np.repeat(np.repeat(view.landsat, 3, 1), 3, 2) - view.truth) ** 2).mean()))
    assert 0.3 * expected < float(found["bicubic"]["rmse_reflectance"]) < 1.2 * expected
    assert found["additive"]["coverage"] == "1"
    assert "minus bicubic" in (here / "evaluation" / "scores.md").read_text()


def geotiffs(root: Path, view: Scene) -> None:
    """Two dates of both sensors, laid out as the paper's data."""
    for k, day in enumerate(("2021-08-02", "2021-08-18")):
        (root / day).mkdir(parents=True)
        images = (("landsat", view.landsat, 30), ("pan", view.pan, 15), ("sentinel2", view.s2, 10))
        for kind, image, resolution in images:
            values = image + np.float32(0.01 * k)
            count, height, width = values.shape
            with rasterio.open(
                root / day / f"{kind}.tif", "w", driver="GTiff", count=count, height=height, width=width,
                dtype="float32", crs="EPSG:32650", transform=Affine(resolution, 0, X0, 0, -resolution, Y0),
            ) as target:  # fmt: skip
                target.write(values)


def test_a_folder_laid_out_like_the_papers_has_its_tables_beside(here, view, capsys):
    geotiffs(here / "dezhou-2021", view)
    command = ["evaluate", "dezhou-2021", "--methods", "additive,copy", "--draws", "100", "--side", "36"]
    assert cli.run(command) == 0
    out = capsys.readouterr().out
    assert "On 2 dates, copy comes nearest to the truth: RMSE 0.0000" in out
    assert "2 methods on 8 cases" in out
    found = here / "evaluation"
    assert {r["case"] for r in rows(found)} == {
        "2021-08-02 from 2021-08-02",
        "2021-08-18 from 2021-08-18",
        "average",
    }
    # truth is the input: whoever copies it is without error, and the table says so
    assert float(scores(found, "average")["copy"]["rmse_reflectance"]) == 0
    assert "which is the input" in out
    table = (found / "scores.md").read_text()
    assert "### Table 3 of Cheng et al. (2024), Dezhou" in table
    assert "equality is not to be expected" in table
    assert "| RMSE (reflectance) ↓ | 1 | 0.0252 | 0.0238 | 0.0265 | 0.0192 | **0.0182** |" in table
    assert "Table 2 of Cheng" not in table
    report = (found / "report.html").read_text()
    assert "one of the 4 parts of this date" in report
    assert cli.run([*command, "--printed", "hailar", "--out", "other"]) == 0
    assert "### Table 2 of Cheng et al. (2024), Hailar" in (here / "other" / "scores.md").read_text()
    assert "--printed hailar" in (here / "other" / "report.html").read_text()


def test_a_reference_wholly_cloudy_is_no_case_or_is_filled_with_landsat(here, view, capsys):
    """Of the paper's protocol the reference is the truth, and nothing is left; else methods have Landsat alone."""
    root = here / "scenes"
    geotiffs(root, view)
    for day, value in (("2021-08-02", 0), ("2021-08-18", 0)):
        with rasterio.open(root / day / "sentinel2.tif") as source:
            profile = source.profile | {"count": 1, "dtype": "uint8"}
        with rasterio.open(root / day / "sentinel2_clear.tif", "w", **profile) as target:
            target.write(np.full((1, SIDE, SIDE), value, np.uint8))
    said = refused(capsys, "scenes", *QUICK, "-q")
    assert "in no block is a pixel known to Landsat, reference and truth at once" in said
    (root / "2021-08-02" / "sentinel2_clear.tif").unlink()
    # the one clear day is the truth of its own Landsat date, whose reference is then the cloudy one
    methods = "additive,bicubic,copy,fsdaf,starfm-si,atprk,sen2like,linear,additive-linear"
    command = ["evaluate", "scenes", "--protocol", "other-day", "--methods", methods, "--draws", "100", "-q"]
    assert cli.run(command) == 0, capsys.readouterr().err
    found = scores(here / "evaluation", "average")
    assert set(found) == set(methods.split(","))
    bicubic = float(found["bicubic"]["rmse_reflectance"])
    assert float(found["bicubic"]["coverage"]) == 1
    for name, row in found.items():
        assert math.isfinite(float(row["rmse_reflectance"])), name
        if float(row["coverage"]) == 0:
            assert float(row["rmse_reflectance"]) == pytest.approx(bicubic, rel=1e-6), name
    assert {n for n, r in found.items() if float(r["coverage"]) == 0} >= {"copy", "linear"}


def test_constant_images_give_finite_scores_and_dashes(here, saved, view, capsys):
    same = {k: np.full_like(getattr(view, k), 0.2) for k in ("s2", "landsat", "truth", "pan")}
    methods = "additive,bicubic,copy,fsdaf,starfm-si,atprk,sen2like"
    assert cli.run(["evaluate", saved(**same), "--methods", methods, "--draws", "100", "-q"]) == 0
    found = scores(here / "evaluation", "meadow")
    for name, row in found.items():
        assert float(row["rmse_reflectance"]) < 1e-5, (name, row["reason"])
        assert row["r2"] == ""
        assert row["coverage"] == "1", name
    assert "| R² ↑ | meadow | — |" in (here / "evaluation" / "scores.md").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda v: {"landsat": v.landsat[:, :-1]},
            ["72 x 72 px is not 3 times Landsat's 23 x 24 px", "multiples of 30 m"],
        ),
        (lambda v: {"pan": v.pan[:, :-1]}, ["pan of shape (1, 47, 48) is not (1, 48, 48)"]),
        (lambda v: {"landsat": v.landsat[::-1], "days": 0}, ["not in one order", "blue looks like swir22"]),
        (lambda v: {"s2": v.s2[:, ::-1][[1, 0, 2, 3, 4]]}, ["s2 has the shape (5, 72, 72), not (6, rows, columns)"]),
        (lambda v: {"landsat": np.full_like(v.landsat, np.nan)}, ["landsat is NaN throughout"]),
        (lambda v: {"s2": np.full_like(v.s2, np.nan)}, ["s2 is NaN throughout"]),
        (lambda v: {"truth": v.truth * 1e4}, ["digital numbers, not reflectance"]),
        (lambda v: {"landsat": np.rint(v.landsat * 1e4).astype(np.uint16)}, ["digital numbers, not reflectance"]),
        (lambda v: {"s2": None, "truth": v.truth[:, :36]}, ["it has no s2"]),
    ],
)
def test_arrays_that_make_no_case_are_refused_in_one_line(saved, view, capsys, change, words):
    said = refused(capsys, saved(**change(view)), *QUICK)
    assert [w for w in words if w not in said] == []
    assert "meadow.npz" in said


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, ["nothing to evaluate was named", "simulated"]),
        (["nothing"], 2, ["nothing' names no cases; give simulated, "]),
        (["none.npz"], 1, ["there is no file"]),
        (["empty"], 1, ["empty holds no landsat"]),
        (["typo.geojson"], 2, ["typo.geojson"]),
        (["simulated", "hailar"], 2, ["hailar is an area of interest and is evaluated alone"]),
        (["simulated", "simulated"], 2, ["simulated is given twice"]),
        (["simulated", "--methods", "magic"], 2, ["'magic' is no method", "nothing was started"]),
        (
            ["simulated", "--methods", "copy,junk.safetensors"],
            2,
            ["no complete safetensors file", "nothing was started"],
        ),
        (["simulated", "--methods", "copy", "--against", "fsdaf"], 2, ["takes no part; methods: copy"]),
        (["simulated", "--side", "50"], 2, ["side = 50"]),
        (["simulated", "--draws", "5"], 2, ["draws = 5"]),
        (["flanders:empty", "--methods", "copy"], 1, ["does not hold the set flanders"]),
        (["hailar", "--year", "1900"], 2, ["year = 1900"]),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(here, capsys, arguments, code, words):
    (here / "empty").mkdir()
    (here / "junk.safetensors").write_bytes(b"junk")
    said = refused(capsys, *arguments, code=code)
    assert [w for w in words if w not in said] == []
    assert sorted(p.name for p in here.iterdir()) == ["empty", "junk.safetensors"]


def test_a_network_that_the_case_does_not_suit_says_why_and_the_others_go_on(here, saved, capsys):
    methods = ["--methods", "additive,marstfn-pan,starfm", "--draws", "100", "-q"]
    assert cli.run(["evaluate", saved(pan=None), *methods]) == 0
    found = scores(here / "evaluation", "meadow")
    assert "needs the panchromatic band" in found["marstfn-pan"]["reason"]
    assert "needs a coarse image" in found["starfm"]["reason"]
    assert (found["marstfn-pan"]["coverage"], found["additive"]["coverage"]) == ("0", "1")
    assert "Methods that failed" in (here / "evaluation" / "report.html").read_text()


def test_a_place_that_cannot_be_written_is_said(saved, capsys):
    said = refused(capsys, saved(), *QUICK, "--out", "meadow.npz", "-q")
    assert "cannot write the report" in said
    assert "choose another folder" in said


@pytest.fixture(scope="module")
def examined(place):
    """The area, under the protocol that is taken by itself."""
    return typed(place, "evaluate", "field.geojson", *QUICK, "--windows", "2", "--side", "36")


def test_an_area_is_read_and_falls_back_to_reduced_resolution(place, examined, season):
    """On no day of the season were both sensors there under a clear sky."""
    folder, _ = place
    assert examined.returncode == 0, examined.stderr
    assert "gives a case under the protocol cross-sensor" in examined.stderr
    assert "going on at reduced resolution, where Landsat at 30 m is the truth" in examined.stderr
    store = folder / "field-2023"
    assert examined.stdout.splitlines()[-1] == f"report: {store}/evaluation/report.html"
    assert examined.stdout.startswith("field 2023, reduced resolution (Landsat at 30 m is the truth): On ")
    cases = {r["case"] for r in rows(store / "evaluation")}
    assert cases > {"average"}
    assert all(len(c) == len("2023-05-11") for c in cases - {"average"})
    assert {r["simulated"] for r in rows(store / "evaluation")} == {"true"}
    text = (store / "evaluation" / "report.html").read_text()
    assert "Comparison of fusion methods: field 2023" in text
    assert "--year 2023 --catalog" in text


def test_the_area_again_reads_nothing(place, examined, season, monkeypatch):
    assert examined.returncode == 0
    season.server.log.clear()
    command = ["evaluate", "field.geojson", *QUICK, "--protocol", "reduced", "--side", "36", "--out", "again"]
    done = typed(place, *command)
    assert done.returncode == 0, done.stderr
    assert season.server.log.count("*.tif") == 0
    assert "going on with the plan" in done.stderr
    assert "cross-sensor" not in done.stderr
    store = place[0] / "field-2023"
    first, again = (scores(f, "average")["additive"] for f in (store / "evaluation", place[0] / "again"))
    assert first["rmse_reflectance"] == again["rmse_reflectance"] or int(again["pixels"]) > int(first["pixels"])
    # the store is a source by itself, too
    monkeypatch.chdir(place[0])
    own = ["evaluate", "field-2023", *QUICK, "--protocol", "reduced", "--side", "36", "--out", "own", "-q"]
    assert cli.run(own) == 0
    assert scores(place[0] / "own", "average")["additive"]["rmse_reflectance"] == again["rmse_reflectance"]


def test_a_protocol_that_was_asked_for_is_not_exchanged(place, examined, capsys, monkeypatch):
    monkeypatch.chdir(place[0])
    said = refused(capsys, "field-2023", "--protocol", "cross-sensor", "--methods", "copy", "-q")
    assert "choose the protocol reduced" in said
