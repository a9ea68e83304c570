"""Many machines: a scheduler and workers that share no folder and no loopback, TLS between them, one S3 for all.

The machines are network namespaces, the object store is moto, not Amazon. In each stage one more worker joins in the
middle of the run, and the one that had begun is lost in the middle of a tile.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster

from flows import work
from pipeline import cluster, job, request, settings, status, verify
from pipeline.errors import ClusterError
from pipeline.events import TileDone
from pipeline.store import FUSED, INPUTS, Store
from tests import namespaces, servers
from tests.conftest import Served, arrays
from tests.namespaces import Machine, Network, until

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

SECRET = "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY"
BUCKET, END = "cubes", "2023-06-08"
TILES = {f"r{r:03d}c{c:03d}" for r in range(2) for c in range(2)}


@dataclass
class Cluster:
    """A scheduler behind TLS, and what all machines are told of the object store."""

    network: Network
    scheduler: Machine
    env: dict[str, str]
    authority: Path
    stranger: Path
    """Certificates of another authority."""

    @property
    def address(self) -> str:
        return f"tls://{self.scheduler.address}:8786"


def s3(endpoint: str) -> dict[str, str]:
    """How obstore and GDAL find an endpoint that is not Amazon's."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        **servers.gdal_s3(endpoint, "AKIAIOSFODNN7EXAMPLE", SECRET),
    }


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    namespaces.able()
    folder = tmp_path_factory.mktemp("machines")
    ours, theirs = (namespaces.authority(folder / name) for name in ("ours", "theirs"))
    with namespaces.network(tmp_path_factory.getbasetemp(), ours) as network:
        port = servers.free_port()
        command = [servers.python(), "-c", "from moto.server import main; main()", "-H", network.here, "-p", port]
        with servers.process(command, {}, folder / "moto.log") as running:
            servers.answering(running, network.here, port, folder / "moto.log")
            endpoint = f"http://{network.here}:{port}"
            servers.bucket(endpoint, BUCKET, {})
            scheduler = network.scheduler()
            assert scheduler.running is not None
            until("the scheduler", lambda: b"tls://" in (scheduler.folder / "log").read_bytes())
            yield Cluster(network, scheduler, s3(endpoint), ours, theirs)


@pytest.fixture
def as_client(machines: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cluster:
    for name, value in machines.env.items():
        monkeypatch.setenv(name, value)
    for name, file in (("CA", "ca.pem"), ("CERT", "cert.pem"), ("KEY", "key.pem")):
        monkeypatch.setenv(f"MARSTFN_TLS_{name}", str(machines.authority / file))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return machines


def in_bucket(served: Served, endpoint: str, file: Path) -> str:
    """The season as items in a file whose assets lie in the bucket `season`; the catalogue it makes."""
    with urllib.request.urlopen(f"{served.url}/search?limit=1000", timeout=60) as answer:
        found = json.load(answer)
    kept = [item for item in found["features"] if item["properties"]["datetime"] < f"{END}T99"]
    text = json.dumps({"type": "FeatureCollection", "features": [{**item, "links": []} for item in kept]})
    prefix = f"{served.url}/data/"
    keys = {part.split('"')[0] for part in text.split(f'"{prefix}')[1:]}
    servers.bucket(endpoint, "season", {f"data/{key}": served.folder / "data" / key for key in keys})
    file.write_text(text.replace(prefix, "s3://season/data/"))
    return f"simulated@{file}"


def asked(served: Served, **extra: Any) -> request.Request:
    fixed = {"aoi": str(served.aoi), "year": 2023, "end": END, "method": "additive", "threads": 1, "tile_px": 60}
    return request.make(**fixed | extra)


def calm_run(served: Served, store: Path) -> dict[str, np.ndarray]:
    """Every array of a run on this machine, in a folder, with nothing going wrong."""
    made = job.prepare(asked(served, catalog=served.catalog, store=str(store)))
    with (
        LocalCluster(
            1, threads_per_worker=1, processes=False, protocol="tcp://", host="127.0.0.1",
            dashboard_address="127.0.0.1:0", worker_dashboard_address="127.0.0.1:0", resources={"IO": 1, "GPU": 1},
        ) as local,
        Client(local, set_as_default=False) as client,
    ):  # fmt: skip
        job.ingest(made, client)
        job.harmonise(made, client)
        job.fuse(made, client)
    job.finish(made)
    return arrays(store)


def stored(store: Store) -> dict[str, np.ndarray]:
    """Every array of both cubes of a store, by name."""
    found = {}
    for cube in (INPUTS, FUSED):
        for name, member in zarr.open_group(store.zarr(cube), mode="r").members(max_depth=None):
            if isinstance(member, zarr.Array):
                found[f"{cube}/{name}"] = np.asarray(member[...])
    return found


def test_machines_come_and_go_and_the_cubes_are_those_of_a_calm_run(as_client, catalogue, tmp_path, monkeypatch):
    monkeypatch.setenv("MARSTFN_UNIT_MB", "0")  # tiles, not units, are given out and lost
    cloud, network = as_client, as_client.network
    catalog = in_bucket(catalogue, cloud.env["AWS_ENDPOINT_URL"], tmp_path / "items.json")
    first = {stage: network.worker(cloud.scheduler, stage, cloud.env, hold=1) for stage in ("ingest", "fuse")}
    second = {stage: network.worker(cloud.scheduler, stage, cloud.env, wait=True) for stage in ("ingest", "fuse")}
    calm = calm_run(catalogue, tmp_path / "calm")
    store = Store(f"s3://{BUCKET}/far")
    lost, records, clock = {"ingest": first["ingest"].kill, "fuse": first["fuse"].cut}, {}, {}

    def fate() -> None:
        """In each stage: a worker joins, takes tiles, and the other one is lost in the middle of a tile."""
        for stage, lose in lost.items():
            until(f"the first {stage} worker in its second tile", lambda s=stage: first[s].journal("held", s))
            second[stage].join()
            until(f"the second {stage} worker's first tile", lambda s=stage: second[s].journal("done", s))
            records.update({f"ledger/{stage}/{t}.json": None for t in first[stage].journal("done", stage)})
            records.update({name: store.read(name) for name in records})
            clock[stage] = time.monotonic()
            lose()

    thread = threading.Thread(target=fate, daemon=True)
    thread.start()
    events: list[Any] = []
    with cluster.connect(cloud.address, patience=60) as client:
        until("both workers", lambda: cluster.slots(client, "IO") and cluster.slots(client, "GPU"))
    asking = asked(catalogue, catalog=catalog, store=store.url, scheduler=cloud.address)
    summary = work.work(asking, "far", events.append)
    thread.join(10)
    print({stage: f"{time.monotonic() - at:.1f} s before the end" for stage, at in clock.items()})

    assert summary.cube == f"{store.url}/{FUSED}"
    found = stored(store)
    assert found.keys() == calm.keys()
    for name in calm:
        np.testing.assert_array_equal(found[name], calm[name], err_msg=name)
    assert (calm[f"{FUSED}/quality"] > 0).any((1, 2)).mean() > 0.9
    for stage in lost:
        ours, theirs = first[stage].journal("done", stage), second[stage].journal("done", stage)
        assert len(ours) == 1, "it was lost in its second tile"
        assert sorted(ours + theirs) == sorted(TILES), "a tile that was finished was made again"
        assert first[stage].journal("held", stage)[0] in theirs
        done = [event.tile for event in events if isinstance(event, TileDone) and event.stage == stage]
        assert sorted(done) == sorted(TILES)
    assert len(records) == 2
    assert {name: store.read(name) for name in records} == records, "a finished tile was written again"
    assert verify.verify(store).ok
    assert status.read(store).complete
    # nothing of the run lies where only one machine could read it, and no secret anywhere
    assert {"plan.json", "logs/far.log"} <= set(store.names(""))
    assert ".lock" not in store.names("")
    assert not [name for name in store.names("") if SECRET.encode() in (store.read(name) or b"")]
    logs = [machine.folder / "log" for machine in network.machines] + list((tmp_path / "state").rglob("*.log"))
    assert not [log for log in logs if SECRET in log.read_text(errors="replace")]


def refusal(address: str, **given: Any) -> str:
    """What connect says, in seconds."""
    began = time.monotonic()
    with pytest.raises(ClusterError) as caught, cluster.connect(address, defaults=settings.load(**given), patience=4):
        pass
    assert time.monotonic() - began < 10
    return str(caught.value)


def test_who_may_not_come_in_is_told_why_in_seconds(as_client, monkeypatch, tmp_path):
    address, theirs = as_client.address, as_client.stranger
    plain = address.replace("tls://", "tcp://")
    assert "not encrypted" in refusal(plain)
    assert "MARSTFN_INSECURE=1" in refusal(plain)
    assert f"it speaks TLS: give {address}" in refusal(plain, insecure=True)
    said = refusal(address, tls_ca=theirs / "ca.pem")
    assert f"is not signed by {theirs / 'ca.pem'}" in said
    said = refusal(address, tls_cert=theirs / "cert.pem", tls_key=theirs / "key.pem")
    assert f"refuses the certificate {theirs / 'cert.pem'}" in said
    assert "cannot be used" in refusal(address, tls_key=theirs / "key.pem")
    assert "there is no file" in refusal(address, tls_ca=tmp_path / "none.pem")
    assert "within 4 s" in refusal(f"tls://{as_client.network.subnet}.250:8786")
    assert "no Dask scheduler answers" in refusal(address.replace("8786", "9"))
    for name in ("CA", "CERT", "KEY"):
        monkeypatch.delenv(f"MARSTFN_TLS_{name}")
    assert "none is named for" in refusal(address)
