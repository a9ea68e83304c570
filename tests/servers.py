"""Servers of others that tests talk to: stac-fastapi-pgstac on PostgreSQL with PostGIS, and moto for an object store.

Their packages live in an environment of their own (`make servers`), for they want other releases of what Prefect needs.
PostgreSQL comes from the system (Debian: postgresql-NN-postgis-3); it refuses to run as root and then runs as postgres.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-stac" / "bin" / "python"
"""Of the environment that `make servers` makes."""
STARTUP = 60.0
HOST = "127.0.0.1"

Json = dict[str, Any]


def python() -> Path:
    """The interpreter that has the servers' packages; without them the test is skipped."""
    if not PYTHON.exists():
        pytest.skip(f"no {PYTHON}: run `make servers`, which installs stac-fastapi-pgstac and moto there")
    return PYTHON


def binaries() -> Path:
    """Folder of PostgreSQL's programs, the newest that has PostGIS; without one the test is skipped."""
    found = []
    for folder in Path("/usr/lib/postgresql").glob("*/bin"):
        version = folder.parent.name
        extension = Path("/usr/share/postgresql") / version / "extension"
        if (folder / "initdb").exists() and (extension / "postgis.control").exists():
            found.append((float(version), folder))
    if not found:
        pytest.skip("no PostgreSQL with PostGIS: apt-get install postgresql-NN-postgis-3 (Debian, Ubuntu)")
    return max(found)[1]


@dataclass(frozen=True, slots=True)
class Postgres:
    """A server of this test session's own, on loopback, with its data in a folder that goes with it."""

    programs: Path
    port: int
    password: str

    @property
    def env(self) -> dict[str, str]:
        """How clients reach it."""
        return {"PGHOST": HOST, "PGPORT": str(self.port), "PGUSER": "postgres", "PGPASSWORD": self.password}

    def dsn(self, database: str) -> str:
        """Address of a database."""
        return f"postgresql://postgres:{self.password}@{HOST}:{self.port}/{database}"

    def create(self, database: str, template: str = "template0") -> None:
        """Make a database, a copy of another."""
        run([self.programs / "createdb", "--template", template, database], self.env)


@contextmanager
def postgres(log: Path) -> Iterator[Postgres]:
    """PostgreSQL, while the context lasts, with a database `empty` that pgstac has been put into."""
    programs, interpreter = binaries(), python()
    root = os.geteuid() == 0
    # not among pytest's folders, which only their owner may enter
    with tempfile.TemporaryDirectory(prefix="marstfn-postgres-") as name:
        folder = Path(name)
        secret = folder / "password"
        server = Postgres(programs, free_port(), secrets.token_urlsafe(16))
        secret.write_text(server.password)
        if root:
            for path in (folder, secret):
                shutil.chown(path, "postgres", "postgres")
        other: Mapping[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if root else {}
        arguments = ["--auth", "scram-sha-256", "--username", "postgres", "--pwfile", secret, "--no-sync"]
        run([programs / "initdb", "--pgdata", folder / "data", *arguments], {}, cwd=folder, **other)
        settings = {"listen_addresses": HOST, "port": server.port, "unix_socket_directories": "", "fsync": "off"}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        command = [programs / "postgres", "-D", folder / "data", *options]
        # SIGINT: a stop that does not wait for clients
        with process(command, {}, log, end=signal.SIGINT, user="postgres" if root else None, cwd=folder) as running:
            answering(running, HOST, server.port, log)
            ready(server)
            server.create("empty")
            run([interpreter, "-m", "pypgstac.pypgstac", "migrate", "--dsn", server.dsn("empty")], server.env)
            yield server


def ready(server: Postgres) -> None:
    """Wait until PostgreSQL takes clients: its port opens a moment before."""
    until = time.monotonic() + STARTUP
    while subprocess.run([server.programs / "pg_isready", "-q"], env=os.environ | server.env, check=False).returncode:
        assert time.monotonic() < until, "PostgreSQL takes no clients"
        time.sleep(0.05)


@contextmanager
def api(
    server: Postgres, database: str, collections: Iterable[Json], items: Iterable[Json], folder: Path
) -> Iterator[str]:
    """The address of a STAC API over a new database that holds these collections and items."""
    server.create(database, "empty")
    for kind, documents in (("collections", collections), ("items", items)):
        file = folder / f"{database}-{kind}.ndjson"
        file.write_text("".join(json.dumps(document) + "\n" for document in documents))
        load = ["-m", "pypgstac.pypgstac", "load", kind, file, "--method", "insert", "--dsn", server.dsn(database)]
        run([python(), *load], server.env)
    port, log = free_port(), folder / f"{database}.log"
    app = ["-m", "uvicorn", "--factory", "stac_fastapi.pgstac.app:create_app"]
    command = [python(), *app, "--host", HOST, "--port", port]
    env = server.env | {"PGDATABASE": database, "DB_MIN_CONN_SIZE": "1", "DB_MAX_CONN_SIZE": "4"}
    with process(command, env, log) as running:
        answering(running, HOST, port, log)
        yield f"http://{HOST}:{port}"


@contextmanager
def moto(log: Path) -> Iterator[str]:
    """The address of an S3 endpoint: moto's server, which keeps objects in memory and checks no signatures."""
    port = free_port()
    command = [python(), "-c", "from moto.server import main; main()", "-H", HOST, "-p", port]
    with process(command, {}, log) as running:
        answering(running, HOST, port, log)
        yield f"http://{HOST}:{port}"


def bucket(endpoint: str, name: str, files: Mapping[str, Path]) -> None:
    """Make a bucket and put files into it by key."""
    for path, data in {"": b"", **{f"/{key}": file.read_bytes() for key, file in files.items()}}.items():
        # urllib would call it a form, and moto wait for one
        kind = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{endpoint}/{name}{path}", data, kind, method="PUT")
        with urllib.request.urlopen(request, timeout=STARTUP) as answer:
            assert answer.status == 200


def gdal_s3(endpoint: str, key: str, secret: str) -> dict[str, str]:
    """The environment in which GDAL finds an endpoint that is not Amazon's."""
    return {
        "AWS_S3_ENDPOINT": endpoint.removeprefix("http://"),
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
    }


# --- processes --------------------------------------------------------------------------------------------------------


@contextmanager
def process(
    command: Sequence[object],
    env: Mapping[str, str],
    log: Path,
    *,
    end: signal.Signals = signal.SIGTERM,
    user: str | None = None,
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the context, by its id, and where this one is killed with it (Linux)."""
    leash = []
    if shutil.which("setpriv"):
        leash = ["setpriv", "--pdeathsig", end.name.removeprefix("SIG")]
        leash += ["--reuid", user, "--regid", user, "--init-groups"] if user else []
        user = None
    other: Mapping[str, Any] = {"user": user, "group": user, "extra_groups": []} if user else {}
    with log.open("wb") as out:
        running = subprocess.Popen(
            [*leash, *map(str, command)], env=clean() | env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            cwd=cwd, **other,
        )  # fmt: skip
    try:
        yield running
    finally:
        running.send_signal(end)
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait(20)


def run(command: Sequence[object], env: Mapping[str, str], **other: Any) -> None:
    """Run a program to its end; what it says is told where it fails."""
    done = subprocess.run(
        [*map(str, command)], env=clean() | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=120, check=False, **other,
    )  # fmt: skip
    assert done.returncode == 0, f"{Path(str(command[0])).name}: {done.stdout}"


def clean() -> dict[str, str]:
    """This process's environment without what would make another interpreter find the project's modules, or another
    database."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not re.match("PG[A-Z]|COV_|COVERAGE", k)}


def answering(running: subprocess.Popen[bytes], host: str, port: int, log: Path) -> None:
    """Wait until something listens."""
    until = time.monotonic() + STARTUP
    while running.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection((host, port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"{running.args} did not start:\n{log.read_text(errors='replace')[-4000:]}")


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
