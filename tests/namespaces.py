"""Machines that share nothing but a network: each a network namespace with an address of its own behind a bridge.

What runs in one sees neither the other's loopback nor a folder that is hidden from it. Needs root and iproute2.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.servers import ROOT, process

PRELOAD = '''
"""What a machine does before it joins, what it writes down of its tiles, and where it stops in the middle of one."""
import os, sys, time
from pathlib import Path

HERE = Path.cwd()  # Dask imports a copy of this file
STAGE, HOLD = os.environ["STAGE"], int(os.environ["HOLD"])

import pipeline.workers
if STAGE == "fuse":
    import pipeline.fuse
while (HERE / "wait").exists():
    time.sleep(0.05)

def note(*words):
    with (HERE / "journal").open("a") as file:
        file.write(" ".join(words) + "\\n")

def dask_setup(worker):
    from pipeline import ledger
    whole, done = ledger.write, [0]

    def write(store, record):
        # all shards of the tile are there, its record is not
        if done[0] == HOLD:
            note("held", record.stage, record.tile)
            while True:
                time.sleep(3600)
        done[0] += 1
        whole(store, record)
        note("done", record.stage, record.tile)

    ledger.write = write
'''


def able() -> None:
    """Skip the test where there can be no namespaces."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "openssl"))):
        pytest.skip("network namespaces need root, iproute2, util-linux and openssl")
    name = f"mfprobe{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no network namespaces here: {done.stderr.strip()}")
    ip("netns", "delete", name)


def ip(*arguments: str) -> None:
    """One order to iproute2."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


@dataclass
class Machine:
    """A namespace, its folder, and what runs there."""

    network: Network
    name: str
    address: str
    folder: Path
    link: str
    running: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: object) -> list[str]:
        """`arguments` as run here: in the machine's folder, with the client's folder hidden."""
        script = 'mount --make-rprivate / && mount -t tmpfs none "$0" && cd "$1" && shift && exec "$@"'
        enter = ["ip", "netns", "exec", self.name, "unshare", "--mount", "sh", "-c", script]
        return [*enter, str(self.network.hidden), str(self.folder), *map(str, arguments)]

    def cut(self) -> None:
        """Take the cable out."""
        ip("link", "set", self.link, "down")

    def kill(self) -> None:
        """The power goes off."""
        assert self.running is not None
        self.running.send_signal(signal.SIGKILL)

    def join(self) -> None:
        """Let a worker that waits go to the scheduler."""
        (self.folder / "wait").unlink()

    def journal(self, kind: str, stage: str) -> list[str]:
        """Tiles of a stage that it has done, or is held in."""
        file = self.folder / "journal"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [tile for k, s, tile in lines if (k, s) == (kind, stage)]


@dataclass
class Network:
    """A bridge with this machine at its first address."""

    prefix: str
    subnet: str
    hidden: Path
    """Folder of this machine that the others do not see."""
    stack: ExitStack
    certificates: Path
    machines: list[Machine] = field(default_factory=list)

    @property
    def here(self) -> str:
        """This machine's address on the bridge."""
        return f"{self.subnet}.1"

    def machine(self) -> Machine:
        """A new machine on the network, with the cluster's certificates in its folder."""
        number = len(self.machines) + 2
        name, link = f"{self.prefix}n{number}", f"{self.prefix}v{number}"
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="marstfn-machine-")))
        for file in ("ca.pem", "cert.pem", "key.pem"):
            shutil.copy(self.certificates / file, folder)
        ip("netns", "add", name)
        self.stack.callback(ip, "netns", "delete", name)
        ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", link, "master", f"{self.prefix}br", "up")
        address = f"{self.subnet}.{number}"
        for order in (f"addr add {address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            ip("-netns", name, *order.split())
        made = Machine(self, name, address, folder, link)
        self.machines.append(made)
        return made

    def start(self, made: Machine, arguments: Sequence[object], env: Mapping[str, str]) -> Machine:
        """Run a module of this interpreter on a machine, with TLS files of its own."""
        tls = ["--tls-ca-file", "ca.pem", "--tls-cert", "cert.pem", "--tls-key", "key.pem", "--host", made.address]
        own = {"TMPDIR": str(made.folder), "HOME": str(made.folder), "PYTHONPATH": str(ROOT)}
        own |= {"OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s"}
        command = made.command(sys.executable, "-m", *arguments, *tls, "--no-dashboard")
        made.running = self.stack.enter_context(process(command, {**own, **env}, made.folder / "log"))
        return made

    def scheduler(self) -> Machine:
        """A machine with a Dask scheduler that takes nobody without a certificate."""
        return self.start(self.machine(), ["distributed.cli.dask_scheduler", "--port", 8786, "--protocol", "tls"], {})

    def worker(
        self, scheduler: Machine, stage: str, env: Mapping[str, str], *, hold: int = -1, wait: bool = False
    ) -> Machine:
        """A machine with a Dask worker for a stage; it stops in the middle of the tile after `hold` tiles, and joins
        only when it is told to if it is to `wait`."""
        resource = {"ingest": "IO=1", "fuse": "GPU=1"}[stage]
        made = self.machine()
        (made.folder / "machine.py").write_text(PRELOAD)
        if wait:
            (made.folder / "wait").touch()
        arguments = ["distributed.cli.dask_worker", f"tls://{scheduler.address}:8786", "--nthreads", 1, "--no-nanny"]
        arguments += ["--resources", resource, "--preload", "machine.py", "--local-directory", made.folder]
        return self.start(made, arguments, {**env, "STAGE": stage, "HOLD": str(hold)})


@contextmanager
def network(hidden: Path, certificates: Path) -> Iterator[Network]:
    """A network of machines, all gone with the context."""
    prefix = f"mf{os.getpid() % 100_000}"
    with ExitStack() as stack:
        ip("link", "add", f"{prefix}br", "type", "bridge")
        stack.callback(ip, "link", "delete", f"{prefix}br")
        made = Network(prefix, f"198.18.{os.getpid() % 250}", hidden, stack, certificates)
        ip("addr", "add", f"{made.here}/24", "dev", f"{prefix}br")
        ip("link", "set", f"{prefix}br", "up")
        yield made


def authority(folder: Path) -> Path:
    """A certificate authority of its own in `folder`, with a certificate for all parts of a cluster."""
    folder.mkdir(parents=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for command in (
        ["req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", "-days", "2"],
        ["req", *key, "-keyout", "key.pem", "-out", "cert.csr", "-subj", "/CN=dask"],
        ["x509", "-req", "-in", "cert.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
         "-out", "cert.pem", "-days", "2"],
    ):  # fmt: skip
        done = subprocess.run(["openssl", *command], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return folder


def until(what: str, ready: Callable[[], object], seconds: float = 90.0) -> None:
    """Wait until `ready()`."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.05)
