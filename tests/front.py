"""What stands before an object store and is away when a test wants it."""

from __future__ import annotations

import http.client
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Front:
    """What stands before an object store and answers 503 while it is `away`."""

    def __init__(self, behind: str):
        self.away, self.refused, self.answered, self.outages = threading.Event(), 0, 0, 0
        self.last_before, self.seconds = -1, 0.0
        self.at: dict[str, float] = {}
        front, host = self, urlsplit(behind).netloc

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                front.answered += 1
                if front.answered == front.last_before:
                    front.outage(front.seconds)
                front.come_to(self.command, self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if front.away.is_set():
                    front.refused += 1
                    self.send_response(503)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                link = http.client.HTTPConnection(host, timeout=30)
                link.request(self.command, self.path, body, dict(self.headers))
                found = link.getresponse()
                data = found.read()
                self.send_response(found.status)
                for name, value in found.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                        self.send_header(name, value)
                length = found.getheader("Content-Length") if self.command == "HEAD" else None
                self.send_header("Content-Length", length or str(len(data)))
                self.end_headers()
                self.wfile.write(data)
                link.close()

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def env(self) -> dict[str, str]:
        """How obstore finds it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }

    @contextmanager
    def running(self) -> Iterator[Front]:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        yield self
        self.server.shutdown()
        self.server.server_close()

    def outage_after(self, requests: int, seconds: float) -> None:
        """An outage that begins with so many requests from now: in the midst of the work."""
        self.last_before, self.seconds = self.answered + requests, seconds

    def come_to(self, command: str, path: str) -> None:
        """The outages in `at`, seconds by pattern: each once, with the first object put whose path has the pattern."""
        due = [pattern for pattern in self.at if command == "PUT" and re.search(pattern, path)]
        for pattern in due:
            seconds = self.at.pop(pattern, None)
            if seconds is not None:
                self.outage(seconds)

    def outage(self, seconds: float) -> None:
        """Answer 503 to everything for so long, from now; for ever if it is infinite."""
        self.away.set()
        self.outages += 1
        if math.isinf(seconds):
            return
        timer = threading.Timer(seconds, self.away.clear)
        timer.daemon = True
        timer.start()
