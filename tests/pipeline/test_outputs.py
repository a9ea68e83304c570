"""Where results go: a new folder is made, a path mistyped further up is told before anything is read."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pipeline import export, indices, outputs
from pipeline.errors import PlanError

NOBODY = 65534


def test_one_level_may_be_new_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert outputs.target("new") == Path("new")
    assert outputs.target(tmp_path / "new") == tmp_path / "new"
    with pytest.raises(PlanError, match=r"--out a/b: .*/a does not exist; nothing was read or written"):
        outputs.target("a/b")
    (tmp_path / "file").touch()
    with pytest.raises(PlanError, match=r"file is no folder"):
        outputs.target("file/b")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("write", [indices.write_ndvi, export.export])
def test_it_is_told_before_the_cube_is_opened(write: object, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="does not exist"):
        write("no-such-cube", tmp_path / "a" / "b")  # type: ignore[operator]


def test_a_store_in_a_folder_that_may_not_be_read_is_told(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """As somebody who is not root: root may read everything."""
    closed = tmp_path / "closed"
    (closed / "store").mkdir(parents=True)
    script = f"""
        import os
        from pipeline.errors import StoreError
        from pipeline.store import Store
        if os.getuid() == 0:
            os.setgid({NOBODY})
            os.setuid({NOBODY})
        store = Store({str(closed / "store")!r})
        for what in (lambda: store.present, lambda: store.read("plan.json"), lambda: store.write("plan.json", b"x")):
            try:
                what()
                print("no error")
            except StoreError as error:
                print(error)
    """
    # down to the folder everybody may go
    root = tmp_path_factory.getbasetemp().parent
    for parent in (tmp_path, *tmp_path.parents):
        if parent.is_relative_to(root):
            parent.chmod(parent.stat().st_mode | 0o011)
    closed.chmod(0)
    try:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60
        )
    finally:
        closed.chmod(0o755)
    said = done.stdout.splitlines()
    assert len(said) == 3, done.stderr
    assert "cannot be looked at: Permission denied" in said[0]
    assert all(str(closed) in line and "ermission denied" in line and "--store" in line for line in said)
