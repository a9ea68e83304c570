"""A STAC API with its files behind it, on the standard library alone: for the demo, tests, work without a network.

`python -m pipeline.demo.server FOLDER` serves a folder written by `pipeline.demo.products` and prints its address.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

from pipeline.demo.faults import Answered, Fault, Faults, Judge, Log, Request
from pipeline.demo.handler import Handler
from pipeline.demo.search import Catalogue, Json
from pipeline.errors import MarstfnError

log = logging.getLogger(__name__)

STARTUP = 60.0
"""Seconds a server process gets to print its address."""


class Server(ThreadingHTTPServer):
    """A server in threads of this process: `url`, `faults` (what goes wrong on demand), `log` (every request)."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path, *, port: int, faults: Judge | Sequence[Fault], next_on_last_page: bool) -> None:
        self.folder = folder.resolve()
        self.catalogue = Catalogue.read(self.folder)
        self.next_on_last_page = next_on_last_page
        self.faults = Faults(faults)
        self.log = Log()
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        """Address of the landing page, without a closing slash."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def reload(self) -> None:
        """Read the folder again, after items were added or taken away."""
        self.catalogue = Catalogue.read(self.folder)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._guard:
                self._open.discard(request)

    def server_close(self) -> None:
        """Close the listening socket and every connection a client still holds open."""
        super().server_close()
        with self._guard:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if not isinstance(error, ConnectionError):  # a client that has gone is no fault of ours
            log.exception("request from %s failed", client_address)


@contextlib.contextmanager
def serve_here(
    folder: str | Path, *, port: int = 0, faults: Judge | Sequence[Fault] = (), next_on_last_page: bool = False
) -> Iterator[Server]:
    """Serve `folder` on loopback from threads of this process while the block runs; port 0 takes a free one.

    Not for a process that reads the files through GDAL as well: GDAL asks for side-cars while it holds the
    interpreter's lock, which the answering thread waits for, and both stand still for ever. `serve` has no such fault.
    """
    server = Server(Path(folder), port=port, faults=faults, next_on_last_page=next_on_last_page)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="catalogue", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Pipe:
    """Orders to a server process and its answers, one line of JSON each."""

    def __init__(self, orders: IO[str], answers: IO[str]) -> None:
        self._orders, self._answers = orders, answers
        self._lock = threading.Lock()

    def ask(self, **order: Any) -> Any:
        """Send one order and give the answer; raises RuntimeError where the process has gone."""
        with self._lock:
            self._orders.write(json.dumps(order) + "\n")
            self._orders.flush()
            answer = self._answers.readline()
        if not answer:
            raise RuntimeError("the catalogue process has ended; start it again")
        return json.loads(answer)


class RemoteFaults:
    """`Faults` of a server process; rules only."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def set(self, rules: Sequence[Fault] = ()) -> None:
        """Put these rules in the place of the old ones, counters at zero; nothing ends all faults."""
        self._pipe.ask(do="faults", rules=[asdict(rule) for rule in rules])

    def add(self, fault: Fault) -> None:
        """Put one more rule behind the others."""
        self._pipe.ask(do="fault", rule=asdict(fault))


class RemoteLog(Log):
    """`Log` of a server process."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__()
        self._pipe = pipe

    def clear(self) -> None:
        """Forget all."""
        self._pipe.ask(do="clear")

    def all(self) -> tuple[Answered, ...]:
        """All answers so far."""
        return tuple(Answered(**{**a, "request": Request(**a["request"])}) for a in self._pipe.ask(do="log"))


class Remote:
    """A server in a process of its own: `url`, `faults`, `log` as those of `Server`, and its process id `pid`."""

    def __init__(self, url: str, pid: int, pipe: Pipe) -> None:
        self.url, self.pid, self._pipe = url, pid, pipe
        self.faults, self.log = RemoteFaults(pipe), RemoteLog(pipe)

    def reload(self) -> None:
        """Read the folder again, after items were added or taken away."""
        self._pipe.ask(do="reload")


@contextlib.contextmanager
def serve(
    folder: str | Path, *, port: int = 0, faults: Sequence[Fault] = (), next_on_last_page: bool = False
) -> Iterator[Remote]:
    """Serve `folder` on loopback from a process of its own while the block runs; port 0 takes a free one.

    The process ends by itself when this one dies. Raises StoreError where the folder holds no catalogue, MarstfnError
    where the process does not start.
    """
    Catalogue.read(Path(folder))
    command = [sys.executable, "-m", "pipeline.demo.server", str(folder), "--port", str(port), "--orders"]
    command += ["--next-on-last-page"] * next_on_last_page
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            ready, _, _ = select.select([process.stdout], [], [], STARTUP)
            url = process.stdout.readline().strip() if ready else ""
            if not url:
                raise MarstfnError(
                    f"the catalogue in {folder} did not start on port {port or 'any'}; nothing is served. Choose "
                    "another port, or 0 for a free one"
                )
            server = Remote(url, process.pid, Pipe(process.stdin, process.stdout))
            if faults:
                server.faults.set(faults)
            yield server
        finally:
            process.terminate()
            process.wait(10)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve a folder until SIGTERM or SIGINT, or with --orders until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.demo.server", description=main.__doc__)
    parser.add_argument("folder", type=Path, help="folder with catalog.json, collections/, items/ and data/")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--next-on-last-page", action="store_true", help="promise a page after the last, as some do")
    parser.add_argument("--orders", action="store_true", help="take orders from standard input, stop when it ends")
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        with serve_here(options.folder, port=options.port, next_on_last_page=options.next_on_last_page) as server:
            _say(server.url)
            if options.orders:
                threading.Thread(target=_obey, args=(server, stop), daemon=True).start()
            stop.wait()
    except (MarstfnError, OSError) as error:
        sys.exit(f"cannot serve {options.folder} on port {options.port}: {error}")


def _obey(server: Server, stop: threading.Event) -> None:
    for line in sys.stdin:
        _say(json.dumps(_order(server, json.loads(line))))
    stop.set()


def _order(server: Server, order: Json) -> Any:
    match order:
        case {"do": "faults", "rules": rules}:
            server.faults.set([Fault(**rule) for rule in rules])
        case {"do": "fault", "rule": rule}:
            server.faults.add(Fault(**rule))
        case {"do": "clear"}:
            server.log.clear()
        case {"do": "reload"}:
            server.reload()
        case {"do": "log"}:
            return [asdict(answer) for answer in server.log.all()]
    return None


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
