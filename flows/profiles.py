"""Prefect's file of profiles: add one of our own and make it active, and take both back, touching nothing else."""

from __future__ import annotations

import contextlib
import os
import re
import tomllib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import MarstfnError

NAME = "marstfn"

_HEADER = re.compile(r"^\s*\[\s*profiles\s*\.\s*(?:\"marstfn\"|'marstfn'|marstfn)\s*\]\s*(?:#.*)?$")
_ACTIVE = re.compile(r"""^(\s*active\s*=\s*)(?:"[^"]*"|'[^']*')(.*)$""", re.DOTALL)


class ProfileError(MarstfnError):
    """Prefect's file of profiles cannot be read or edited."""


def path(environ: Mapping[str, str] = os.environ) -> Path:
    """The file Prefect reads profiles from, for a user with this environment."""
    if named := environ.get("PREFECT_PROFILES_PATH"):
        return Path(named).expanduser()
    return Path(environ.get("PREFECT_HOME") or "~/.prefect").expanduser() / "profiles.toml"


def active(text: str) -> str | None:
    """Name of the active profile in the file's `text`, None where it names none."""
    name = _parse(text).get("active")
    return name if isinstance(name, str) else None


def added(text: str, settings: Mapping[str, str]) -> str:
    """`text` with the profile `marstfn` holding `settings`, active; comments and other profiles stay as they are.

    Raises ProfileError where the file cannot be edited safely.
    """
    table = "".join([f"[profiles.{NAME}]\n", *(f'{key} = "{value}"\n' for key, value in settings.items())])
    lines = text.splitlines(keepends=True)
    span = _table(lines)
    if span is None:
        gap = "" if not text or text.endswith("\n\n") else "\n" if text.endswith("\n") else "\n\n"
        after = text + gap + table
    else:
        after = "".join([*lines[: span[0]], table, *lines[span[1] :]])
    return _checked(text, _with_active(after, NAME))


def removed(text: str, former: str | None) -> str:
    """`text` without the profile `marstfn`; `former` is active again unless the user has chosen another since."""
    lines = text.splitlines(keepends=True)
    span = _table(lines)
    if span is not None:
        start, end = span
        # the blank line that set our table off goes with it
        while start and not lines[start - 1].strip() and (end == len(lines) or not lines[end].strip()):
            start -= 1
        del lines[start:end]
    base = "".join(lines)
    return _checked(text, _with_active(base, former) if active(text) == NAME else base)


def without_ours(text: str | None, former: str | None) -> str | None:
    """`text` as it would be had we never been there, `former` active where ours is; None stays None."""
    return None if text is None else removed(text, former)


def restore(path: Path, before: str | None, after: str) -> None:
    """Bring back the file as it was `before`, to the letter where it still reads as we left it (`after`)."""
    now = text(path)
    if now is None:
        return
    if now != after:
        write(path, removed(now, active(before or "")))
    elif before is not None:
        write(path, before)
    else:
        path.unlink()
        with contextlib.suppress(OSError):  # the user has put something there since
            path.parent.rmdir()


def text(path: Path) -> str | None:
    """The file's text, None where there is no file."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(
            f"Prefect's file of profiles, {path}, cannot be read: {error}; nothing was changed"
        ) from error


def write(path: Path, text: str) -> None:
    """Write whole or not at all, readable by the owner only, as Prefect does (keys may stand in it)."""
    path = path.resolve()  # where the file is a link, what it points to is written
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch(mode=0o600)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise ProfileError(f"cannot write {path}: {error}; make it writable") from error


def _with_active(text: str, name: str | None) -> str:
    lines = text.splitlines(keepends=True)
    end = next((i for i, line in enumerate(lines) if line.lstrip().startswith("[")), len(lines))
    for i in range(end):
        if found := _ACTIVE.match(lines[i]):
            if name is not None:
                lines[i] = f'{found[1]}"{name}"{found[2]}'
            else:
                del lines[i : i + 2 if i == 0 and lines[1:2] == ["\n"] else i + 1]
            return "".join(lines)
    return "".join(lines) if name is None else "".join([f'active = "{name}"\n\n', *lines])


def _table(lines: list[str]) -> tuple[int, int] | None:
    """First and last+1 line of our table; None where there is none."""
    start = next((i for i, line in enumerate(lines) if _HEADER.match(line.rstrip("\r\n"))), None)
    if start is None:
        return None
    end = start + 1
    while end < len(lines) and lines[end].strip() and not lines[end].lstrip().startswith("["):
        end += 1
    return start, end


def _checked(before: str, after: str) -> str:
    """`after`, once it is sure that no other profile differs."""
    old, new = _others(before), _others(after)
    if old != new:
        raise ProfileError(
            "Prefect's file of profiles is written in a way that cannot be edited without changing your own profiles; "
            "nothing was changed. Rewrite it with `prefect config set`, or set PREFECT_PROFILES_PATH to another file"
        )
    return after


def _others(text: str) -> dict[str, Any]:
    parsed = _parse(text)
    profiles = {k: v for k, v in parsed.get("profiles", {}).items() if k != NAME}
    return {k: v for k, v in parsed.items() if k not in ("active", "profiles")} | {"profiles": profiles}


def _parse(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(
            f"Prefect's file of profiles is not TOML: {error}; nothing was changed. Repair it, or move it away"
        ) from error
