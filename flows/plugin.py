"""Prefect's own plug-in hook, so that `prefect deployment run fuse-year --param aoi=hailar.geojson` means what it says,
and `prefect deployment run train-year ...` and `evaluate-year ...` likewise.

Stock Prefect wants FLOW/DEPLOYMENT and hands a relative path to a worker that stands in another folder. At `import
prefect`, before its command line reads `sys.argv`, this hook completes the name, makes paths absolute against the
folder the caller stands in, tells the flow which folder that is (`base`), and passes on the caller's `MARSTFN_...`
defaults. `prefect server start` beyond loopback without an auth string it ends (flows.exposure). It touches no other
command, patches nothing, and never raises.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.plugins import register_hook

FLOWS = ("fuse-year", "train-year", "evaluate-year")
COMMANDS = ("run", "inspect")
FORWARDED = {
    "fuse-year": ("catalog", "year", "store", "weights", "method", "scheduler"),
    "train-year": ("catalog", "year", "store", "scheduler"),
    "evaluate-year": ("catalog", "year", "store", "scheduler"),
}
"""Parameters of each flow whose default the caller's environment may set, as MARSTFN_CATALOG and so on."""
PATHS = {"fuse-year": ("weights",), "train-year": ("weights",), "evaluate-year": ("methods",)}
"""Parameters that may name a file, and something else where no such file is; `store` and `out` always do."""
BUNDLED = Path(__file__).parent.parent / "pipeline" / "aois"

_FLAGS = {"--watch", "--no-watch", "--help", "-h"}


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The arguments after the program's name, and what to tell the caller about them."""

    arguments: list[str]
    notes: list[str]


@register_hook
def setup_environment(*, ctx: Any) -> None:
    """Rewrite the arguments of `prefect deployment run|inspect` for our flows in place; leave everything else alone."""
    try:
        if Path(sys.argv[0]).name not in ("prefect", "prefect.exe", "-m", "__main__.py"):
            return
        if sys.argv[1:2] == ["server"]:
            from flows import exposure  # few commands need it, and it takes a second to import

            refused = exposure.refusal(sys.argv[1:], os.environ)
            if refused is not None:
                raise SystemExit(f"marstfn: {refused}")
        done = rewrite(sys.argv[1:], Path.cwd(), os.environ)
        if done is not None:
            sys.argv[1:] = done.arguments
            for note in done.notes:
                sys.stderr.write(f"marstfn: {note}\n")
    except Exception:
        # a hook that fails must leave the user with stock Prefect, not with a broken command
        logging.getLogger(__name__).debug("arguments left as they were", exc_info=True)


def rewrite(arguments: Sequence[str], cwd: Path, environ: Mapping[str, str]) -> Rewritten | None:
    """The arguments Prefect should see for those typed in folder `cwd`, or None where the command is not ours."""
    start = _command(arguments)
    if start is None:
        return None
    out, notes = list(arguments), list[str]()
    name, params = _scan(out, start)
    flow = None if name is None else next((f for f in FLOWS if out[name] in (f, f"{f}/{f}")), None)
    if name is None or flow is None:
        return None
    out[name] = f"{flow}/{flow}"
    if out[start - 1] == "inspect":
        return Rewritten(out, notes)
    given, complete = _keys(out, start)
    for index, prefix, key, value in params:
        out[index] = f"{prefix}{key}={_absolute(flow, key, value, cwd, notes)}"
    if complete:  # `--params -` comes from stdin: what it sets cannot be known, so nothing is added
        extra = {} if "base" in given else {"base": _text(str(cwd))}
        for key in FORWARDED[flow]:
            value = environ.get(f"MARSTFN_{key.upper()}", "").strip()
            if value and key not in given:
                extra[key] = _absolute(flow, key, value, cwd, notes)
                notes.append(f"{key}={value} from MARSTFN_{key.upper()}")
        for key, value in extra.items():
            out += ["--param", f"{key}={value}"]
    return Rewritten(out, notes)


def _command(arguments: Sequence[str]) -> int | None:
    """Index just after `deployment run` (or inspect), global options allowed before it."""
    i = 0
    while i < len(arguments) and arguments[i].startswith("-"):
        i += 2 if arguments[i] in ("--profile", "-p") else 1
    if tuple(arguments[i : i + 1]) in (("deployment",), ("deployments",)) and i + 1 < len(arguments):
        return i + 2 if arguments[i + 1] in COMMANDS else None
    return None


def _scan(arguments: Sequence[str], start: int) -> tuple[int | None, list[tuple[int, str, str, str]]]:
    """Index of the deployment's name, and (index, prefix, key, value) of every `--param`."""
    name: int | None = None
    params = []
    i = start
    while i < len(arguments):
        token = arguments[i]
        prefix, at = _param(arguments, i)
        if prefix is not None:
            key, sep, value = arguments[at][len(prefix) :].partition("=")
            if sep:
                params.append((at, prefix, key, value))
            i = at + 1
        elif token.startswith("-"):
            i += 1 if "=" in token or token in _FLAGS else 2
        else:
            name = i if name is None else name
            i += 1
    return name, params


def _param(arguments: Sequence[str], i: int) -> tuple[str | None, int]:
    """(text before `key=value`, its index) where a `--param` starts at `i`, else (None, i)."""
    token = arguments[i]
    if token in ("--param", "-p"):
        return ("", i + 1) if i + 1 < len(arguments) else (None, i)
    for prefix in ("--param=", "-p="):
        if token.startswith(prefix):
            return prefix, i
    if token.startswith("-p") and not token.startswith("--") and "=" in token:
        return "-p", i
    return None, i


def _keys(arguments: Sequence[str], start: int) -> tuple[set[str], bool]:
    """Parameters the caller gave in any form, and whether all of them could be read."""
    given = {key for _, _, key, _ in _scan(arguments, start)[1]}
    for i in range(start, len(arguments)):
        token = arguments[i]
        text = arguments[i + 1] if token == "--params" and i + 1 < len(arguments) else None
        if token.startswith("--params="):
            text = token.removeprefix("--params=")
        if text is not None:
            try:
                given |= set(json.loads(text))
            except (ValueError, TypeError):
                return given, False
    return given, True


def _absolute(flow: str, key: str, value: str, cwd: Path, notes: list[str]) -> str:
    """`value` with a relative path made absolute; for the area, also a note on which one is used."""
    text = _plain(value)
    if text is None or "://" in text:
        return value
    path = cwd / Path(text).expanduser()
    if key == "aoi":
        if path.is_file():
            notes.append(f"area of interest: the file {path}")
            return _text(str(path))
        if flow == "evaluate-year" and path.exists():
            notes.append(f"cases: {path}")
            return _text(str(path))
        stem = text.removesuffix(".geojson")
        if (BUNDLED / f"{stem}.geojson").is_file():
            notes.append(f"area of interest: the bundled {stem} (no file {text} in {cwd})")
        elif flow != "evaluate-year":  # which takes the names of other sources, too
            notes.append(f"area of interest: {path} is no file and {text} is no bundled name; the run will say so")
        return value
    if key in ("store", "out") or (key in PATHS[flow] and path.is_file()):
        return _text(str(path))
    return value


def _plain(value: str) -> str | None:
    """The string in `value`, which Prefect reads as JSON first; None for an object, a number or nothing."""
    try:
        parsed = json.loads(value)
    except ValueError:
        return value if value and not value.lstrip().startswith(("{", "[")) else None
    return parsed if isinstance(parsed, str) and parsed else None


def _text(value: str) -> str:
    """`value` as Prefect's command line reads it back: quoted where it would be taken for JSON."""
    plain = '"' not in value and "\\" not in value and _plain(value) == value
    return value if plain else json.dumps(value)
