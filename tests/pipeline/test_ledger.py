"""What is done is known by its fingerprint, and what it left by its checksums."""

import hashlib
import json

import pytest

from pipeline import ledger
from pipeline.errors import CubeError
from pipeline.ledger import ABSENT, Record
from pipeline.store import Store

WRONG = b'{"stage": "ingest", "tile": "r000c001", "fingerprint": 3, "checksums": ["a"]}'
"""The right names, with values of another kind."""


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def record(**change):
    given = {"stage": "ingest", "tile": "r000c001", "fingerprint": "f" * 64, "checksums": {"a/c/0": "1"}}
    return Record(**given | {"stats": {"sentinel2": [[1, 2, 3]]}, "seconds": 1.5, "timings": {"read": 1.0}} | change)


def test_a_record_comes_back_with_the_time_it_was_written(store):
    assert ledger.read(store, "ingest", "r000c001") is None
    ledger.write(store, record())
    found = ledger.read(store, "ingest", "r000c001")
    assert found.written.endswith("+00:00")
    assert record(written=found.written) == found
    assert ledger.read(store, "fuse", "r000c001") is None


def test_done_means_from_these_very_inputs(store):
    assert not ledger.done(store, "ingest", "r000c001", "f" * 64)
    store.write("a/c/0", b"shard")
    ledger.write(store, record())
    assert ledger.done(store, "ingest", "r000c001", "f" * 64)
    assert not ledger.done(store, "ingest", "r000c001", "e" * 64)
    assert not ledger.done(store, "fuse", "r000c001", "f" * 64)


@pytest.mark.parametrize("listed", [True, False])
def test_done_means_that_what_was_left_is_still_there(store, listed):
    def done():
        return ledger.done(store, "ingest", "r000c001", "f" * 64, store.sizes("a") if listed else None)

    store.write("a/c/0", b"shard")
    ledger.write(store, record(checksums={"a/c/0": "1", "a/c/1": ABSENT}))
    assert done()
    store.write("a/c/0", b"shar")
    assert not done(), "a shard cut short"
    store.delete("a/c/0")
    assert not done(), "a shard that is gone"
    assert ledger.lost(store, ledger.read(store, "ingest", "r000c001")) == ["a/c/0"]


def test_a_record_of_old_knows_no_sizes_but_what_is_gone(store):
    store.write("a/c/0", b"shard")
    ledger.write(store, record())
    name = ledger.name("ingest", "r000c001")
    old = json.loads(store.read(name))
    del old["sizes"]
    store.write(name, json.dumps(old).encode())
    assert ledger.done(store, "ingest", "r000c001", "f" * 64)
    store.delete("a/c/0")
    assert not ledger.done(store, "ingest", "r000c001", "f" * 64)


def test_a_damaged_record_means_that_the_tile_is_made_again(store):
    store.write(ledger.name("ingest", "r000c001"), b"{")
    assert not ledger.done(store, "ingest", "r000c001", "f" * 64)


def test_clearing_a_stage_leaves_the_other(store):
    ledger.write(store, record())
    ledger.write(store, record(stage="fuse"))
    ledger.clear(store, "ingest")
    assert store.names("ledger") == ["ledger/fuse/r000c001.json"]


def test_checksums_are_of_bytes_and_say_what_is_absent(store):
    store.write("x/c/0", b"shard")
    want = hashlib.blake2b(b"shard", digest_size=32).hexdigest()
    assert ledger.checksum(store, ["x/c/0", "x/c/1"]) == {"x/c/0": want, "x/c/1": ABSENT}


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"stage": "ingest", "unknown": 1}', WRONG])
def test_a_damaged_record_is_named_with_the_remedy(store, damage):
    store.write(ledger.name("ingest", "r000c001"), damage)
    with pytest.raises(CubeError, match=r"r000c001.json is not a ledger record.*delete it"):
        ledger.read(store, "ingest", "r000c001")
