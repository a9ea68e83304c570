"""What every command shares: how much it says, where its log goes, and the name of its run."""

from __future__ import annotations

import logging
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter
from rich.console import Console

if TYPE_CHECKING:
    from flows.console import Display

TALK = Group("Output", sort_key=99)

verbosity = 0
"""Of the command at work, for the place where errors are shown."""


@Parameter(name="*", group=TALK)
@dataclass(frozen=True, kw_only=True)
class Talk:
    """How much a command says."""

    verbose: Annotated[
        tuple[bool, ...],
        Parameter(
            name=["--verbose", "-v"], negative=(), show_default=False, help="Say more; twice for the libraries' logs."
        ),
    ] = ()
    quiet: Annotated[
        bool, Parameter(name=["--quiet", "-q"], negative=(), show_default=False, help="Say results and errors only.")
    ] = False

    @property
    def level(self) -> int:
        return -1 if self.quiet else sum(self.verbose)


@contextmanager
def talking(talk: Talk | None) -> Iterator[Display]:
    """A display on standard error for one command; results go to standard output."""
    from flows.console import Display, quieten

    global verbosity
    verbosity = 0 if talk is None else talk.level
    quieten(verbosity)
    if verbosity > 0:
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
        logging.getLogger("pipeline").setLevel(logging.DEBUG if verbosity > 1 else logging.INFO)
    with Display(Console(stderr=True), verbosity) as display:
        yield display


def new_run() -> str:
    """A name for a run that sorts by time and cannot collide: 20261122T091500Z-1a2b3c."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"


class Unheard(Exception):
    """Standard output is closed or full: nobody takes the result."""


def out(text: str = "") -> None:
    """One line of result on standard output. Raises Unheard where that takes nothing more."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError) as error:  # AttributeError: it was closed before we began, and is None
        raise Unheard(str(error)) from error


def activation() -> list[str]:
    """What to type first where `marstfn` and `prefect` are not to be found by name: one line or none."""
    here = Path(sys.executable).parent
    if all(Path(shutil.which(name) or "").parent == here for name in ("marstfn", "prefect")):
        return []
    script = here / "activate"
    return [f"source {script}" if script.is_file() else f'export PATH="{here}:$PATH"']
