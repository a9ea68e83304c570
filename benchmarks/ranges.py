"""Files of a folder over HTTP on loopback, in a process of its own: ranges, a latency on demand, every request counted.

`python -m benchmarks.ranges FOLDER` prints its port. `/ANYTHING/NAME` is the file NAME, so that no round of a benchmark
meets what GDAL remembers of an address from the one before.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen


@dataclass(frozen=True, slots=True)
class Count:
    """What a server was asked for."""

    requests: int
    heads: int
    """Of them those that asked for no content."""
    bytes: int
    """Of content sent."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server."""

    port: int

    def url(self, name: str, turn: str) -> str:
        """The address of a file in one round."""
        return f"http://127.0.0.1:{self.port}/{turn}/{name}"

    def latency(self, seconds: float) -> None:
        """Let every answer to a request for a file come so much later."""
        self._ask(f"latency?{seconds}")

    def counted(self) -> Count:
        """What was asked for since the last time this was asked."""
        return Count(**json.loads(self._ask("counted")))

    def _ask(self, what: str) -> bytes:
        with urlopen(f"http://127.0.0.1:{self.port}/~{what}", timeout=30) as answer:
            content: bytes = answer.read()
            return content


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """A server of `folder` in a process of its own; it ends with the context."""
    command = [sys.executable, "-m", "benchmarks.ranges", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Server(int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait(10)


class _Files:
    def __init__(self, folder: Path) -> None:
        self.content = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        self.pause = 0.0
        self.reset()

    def reset(self) -> None:
        self.requests = self.heads = self.sent = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer what comes over one connection."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ")
                wanted = next((line[13:].strip() for line in head if line.lower().startswith("range: bytes=")), "")
                if path.startswith("/~"):
                    answer = self.told(path[2:])
                else:
                    self.requests += 1
                    self.heads += method == "HEAD"
                    if self.pause:
                        await asyncio.sleep(self.pause)
                    answer = self.file(method, path.rpartition("/")[2], wanted)
                for part in answer:
                    writer.write(part)
                await writer.drain()
        writer.close()

    def told(self, what: str) -> list[bytes]:
        text = b""
        if what.startswith("latency?"):
            self.pause = float(what.partition("?")[2])
        else:
            text = json.dumps({"requests": self.requests, "heads": self.heads, "bytes": self.sent}).encode()
            self.reset()
        return [b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(text), text]

    def file(self, method: str, name: str, wanted: str) -> list[bytes]:
        content = self.content.get(name)
        if content is None:
            return [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]
        size, first, last = len(content), 0, len(content) - 1
        if wanted:
            begin, _, end = wanted.partition("-")
            first, last = int(begin), min(int(end) if end else last, last)
            status = b"206 Partial Content\r\nContent-Range: bytes %d-%d/%d" % (first, last, size)
        else:
            status = b"200 OK"
        length = last - first + 1
        line = b"HTTP/1.1 %s\r\nContent-Length: %d\r\nAccept-Ranges: bytes\r\n\r\n" % (status, length)
        if method == "HEAD":
            return [line]
        self.sent += length
        return [line, memoryview(content)[first : last + 1].tobytes()]


async def _main(folder: Path) -> None:
    files = _Files(folder)
    server = await asyncio.start_server(files.talk, "127.0.0.1", 0, backlog=256)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    # whoever started this and died takes it along
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1])))
