"""What a user without a checkout installs: the wheel holds weights, areas and the deployment, and runs."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LOOK = """
import marstfn, pipeline, flows
from pathlib import Path
from marstfn.weights import load
from pipeline.aoi import read
here = Path.cwd() / "site"
assert all(Path(p.__file__).is_relative_to(here) for p in (marstfn, pipeline, flows)), marstfn.__file__
assert load("marstfn-pan").config.pan and not load("marstfn-nopan").config.pan
assert [read(name).name for name in ("hailar", "dezhou.geojson")] == ["hailar", "dezhou"]
from flows.cli import main
main()
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(pip, check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder


def test_an_installed_wheel_finds_its_weights_and_areas(site: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(site / "site")}
    done = subprocess.run(
        [sys.executable, "-c", LOOK, "--version"], cwd=site, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_a_wheel_holds_the_deployment_and_no_tests(site: Path) -> None:
    names = {p.relative_to(site / "site").as_posix() for p in (site / "site").rglob("*") if p.is_file()}
    assert "flows/prefect.yaml" in names
    assert "marstfn/shipped/MODEL_CARD.md" in names
    assert not [n for n in names if n.startswith("tests/")]
