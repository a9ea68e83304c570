"""A test that needs the real data, or PostgreSQL, is skipped without them, and fails where they must be there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = """
import pytest

@pytest.mark.shared
def test_fixture(shared): ...

@pytest.mark.shared
@pytest.mark.skip(reason="for some other reason")
def test_marked(): ...

@pytest.mark.skip(reason="has nothing to do with it")
def test_other(): ...
"""


POSTGRES = """
import pytest

@pytest.mark.postgres
def test_skipped():
    pytest.skip("no PostgreSQL")
"""


@pytest.mark.parametrize(("required", "code", "says"), [("0", 0, "3 skipped"), ("1", 1, "1 skipped")])
def test_absence(tmp_path: Path, required: str, code: int, says: str) -> None:
    (tmp_path / "test_cases.py").write_text(CASES)
    # the suite's own hooks and fixtures, over cases of another folder
    (tmp_path / "conftest.py").write_text("from tests.conftest import *  # noqa: F403\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = shared: needs the real data\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "MARSTFN_SHARED": str(tmp_path / "none"),
            "MARSTFN_REQUIRE_SHARED": required,
        },
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stdout
    assert says in done.stdout
    if required == "1":
        assert "2 errors" in done.stdout  # both fail while they are set up
        assert "MARSTFN_REQUIRE_SHARED=1" in done.stdout
        assert "set MARSTFN_SHARED" in done.stdout


@pytest.mark.parametrize(("required", "code", "says"), [("0", 0, "1 skipped"), ("1", 1, "1 failed")])
def test_absence_of_postgres(tmp_path: Path, required: str, code: int, says: str) -> None:
    (tmp_path / "test_cases.py").write_text(POSTGRES)
    (tmp_path / "conftest.py").write_text("from tests.conftest import *  # noqa: F403\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = postgres: needs PostgreSQL\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "MARSTFN_REQUIRE_POSTGRES": required},
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stdout
    assert says in done.stdout
    assert ("MARSTFN_REQUIRE_POSTGRES=1" in done.stdout) == (required == "1")
