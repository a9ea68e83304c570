"""Run a module as `python -m` would, and end with whoever started it: `python -m flows.tether MODULE ARGUMENTS`.

The starter holds the other end of standard input. Where it dies, however it dies, the pipe closes.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

GRACE = 10.0
"""Seconds between asking and ending."""


def main() -> None:
    """Run the module named first on the command line, with the rest as its arguments."""
    threading.Thread(target=_watch, daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _watch() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


if __name__ == "__main__":
    main()
