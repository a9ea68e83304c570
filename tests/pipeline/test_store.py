"""Objects in a folder: whole or not at all, and nothing made by looking."""

import pickle

import pytest

from pipeline.errors import StoreError
from pipeline.store import Store


def test_objects_come_back_as_written(tmp_path):
    store = Store(str(tmp_path / "a b"))
    store.write("ledger/ingest/r000c000.json", b"{}")
    store.write("plan.json", b"1")
    assert store.read("ledger/ingest/r000c000.json") == b"{}"
    assert store.names("ledger") == ["ledger/ingest/r000c000.json"]
    assert store.names("") == ["ledger/ingest/r000c000.json", "plan.json"]
    store.delete("plan.json")
    store.delete("plan.json")
    assert store.read("plan.json") is None


def test_looking_makes_nothing(tmp_path):
    store = Store(str(tmp_path / "never"))
    assert store.read("plan.json") is None
    assert store.names("") == []
    assert store.sweep() == 0
    assert not (tmp_path / "never").exists()


def test_a_relative_path_is_settled_where_it_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = pickle.loads(pickle.dumps(Store("out")))
    monkeypatch.chdir("/")
    store.write("x", b"1")
    assert (tmp_path / "out" / "x").read_bytes() == b"1"


def test_file_urls_and_paths_are_one_place(tmp_path):
    Store(str(tmp_path / "a b")).write("x", b"1")
    assert Store((tmp_path / "a b").as_uri()).read("x") == b"1"


def test_what_cannot_be_written_says_where_and_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/below.*--store"):
        Store(str(tmp_path / "file" / "below")).write("plan.json", b"")


def test_sweep_takes_only_what_was_half_written(tmp_path):
    store = Store(str(tmp_path))
    keep = [
        "fused.zarr/blue/c/0/0/0",
        "ledger/fuse/r000c000.json",
        "notes#1.txt",
        "docs/invoice#12",
        "thesis.partial",
        "#3/x",
    ]
    stale = ["fused.zarr/blue/c/0/0/0.0123abcd.partial", "ledger/fuse/r000c001.json#1"]
    for name in keep + stale:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "fused.zarr" / "old #7").mkdir()
    assert store.sweep() == 2
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == sorted(keep)


def test_messages_leave_out_what_an_object_store_tells_its_developers(tmp_path):
    (tmp_path / "full").write_text("")
    with pytest.raises(StoreError) as caught:
        Store(str(tmp_path / "full" / "below")).write("plan.json", b"")
    assert "Debug" not in str(caught.value)
    assert "Generic {" not in str(caught.value)
