"""`python -m benchmarks [PART ...] [--quick]`: print the tables of all parts, or of those named."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys

import benchmarks
from benchmarks.measure import machine, markdown

HELPERS = ("measure", "__main__")


def parts() -> list[str]:
    """Names of the parts: the modules of this folder that have `tables(quick)`."""
    names = [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name not in HELPERS]
    return [n for n in names if hasattr(importlib.import_module(f"benchmarks.{n}"), "tables")]


def main() -> None:
    """Run the parts one after another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("part", nargs="*", help=f"{', '.join(parts())}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer rounds on less data: does it run, not how fast")
    chosen = parser.parse_args()
    unknown = sorted(set(chosen.part) - set(parts()))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(parts())}")
    sys.stdout.write(f"{machine()}\n\n")
    for name in chosen.part or parts():
        for table in importlib.import_module(f"benchmarks.{name}").tables(quick=chosen.quick):
            sys.stdout.write(f"{markdown(table)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
