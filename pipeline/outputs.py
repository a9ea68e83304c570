"""Folders that results are written to: one level may be new, a path mistyped further up is not made."""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.errors import PlanError


def target(path: str | Path, option: str = "--out") -> Path:
    """`path` as where something may be made. Raises PlanError where the folder it is to lie in is not there, or where
    it is an address."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):  # a Path has made one slash of two
        raise PlanError(f"{option} {path} is an address; nothing was read or written. Name a folder on a disk")
    found = Path(path).expanduser()
    parent = found.absolute().parent
    if not parent.is_dir():
        what = "is no folder" if parent.exists() else "does not exist"
        raise PlanError(f"{option} {path}: {parent} {what}; nothing was read or written. Make it first, or correct it")
    return found
