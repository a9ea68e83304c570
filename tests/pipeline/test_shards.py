"""Shards made chunk by chunk: what Zarr reads back, byte for byte what Zarr itself would have stored in each chunk."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore
from zarr.codecs import BloscCodec, GzipCodec

from pipeline import shards
from pipeline.cube import FILL


def empty(store, dtype: str = "int16", compressors=None, shape=(6, 24, 36), fill: int = FILL):
    return zarr.create_array(
        store, shape=shape, shards=(3, 12, 24), chunks=(3, 6, 12), dtype=dtype, fill_value=fill, filters=None,
        compressors=compressors or [BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")],
    )  # fmt: skip


def made(array, data) -> list[bytes]:
    chunk, codec = shards.plain(array)
    return list(shards.encoded(data, array.shards, chunk, array.fill_value, codec))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["int16", "uint8", "float32"]), st.integers(0, 4))
def test_zarr_reads_what_was_encoded_and_stores_chunks_of_the_same_bytes(seed, dtype, holes):
    rng = np.random.default_rng(seed)
    fill = 0 if dtype == "uint8" else FILL
    data = rng.integers(1, 200, (3, 12, 24)).astype(dtype)
    for _ in range(holes):
        y, x = rng.integers(0, 2, 2)
        data[:, y * 6 : y * 6 + 6, x * 12 : x * 12 + 12] = fill
    ours, theirs = zarr.storage.MemoryStore(), zarr.storage.MemoryStore()
    array, other = empty(ours, dtype, fill=fill), empty(theirs, dtype, fill=fill)
    shards.put(array, (1, 0, 0), made(array, data))
    other[3:6, :12, :24] = data
    assert (np.asarray(array[3:6, :12, :24]) == data).all()
    assert (np.asarray(array[:3]) == fill).all()
    key = "c/1/0/0"
    assert (key in ours._store_dict) == (key in theirs._store_dict)
    if key in ours._store_dict:
        mine, its = (s._store_dict[key].to_bytes() for s in (ours, theirs))
        assert len(mine) == len(its)
        assert sorted(pieces(mine)) == sorted(pieces(its))


def pieces(shard: bytes) -> list[bytes]:
    """The chunks of a shard of 2 x 2 of them."""
    index = np.frombuffer(shard[-68:-4], "<u8").reshape(-1, 2)
    return [shard[int(at) : int(at + size)] for at, size in index if at != shards.ABSENT]


def test_a_shard_at_the_end_of_the_plane_is_filled_up(tmp_path):
    array = empty(zarr.storage.LocalStore(tmp_path / "a.zarr"), shape=(5, 20, 30))
    data = np.arange(2 * 8 * 6, dtype=np.int16).reshape(2, 8, 6)
    shards.put(array, (1, 1, 1), made(array, data))
    assert (np.asarray(array[3:, 12:, 24:]) == data).all()
    assert (np.asarray(array[:3]) == FILL).all()
    assert [p.name for p in (tmp_path / "a.zarr" / "c").rglob("*") if p.is_file()] == ["1"]


def test_a_shard_of_nothing_is_no_object_and_replaces_one(tmp_path):
    for store in (zarr.storage.LocalStore(tmp_path / "a.zarr"), zarr.storage.ObjectStore(MemoryStore())):
        array = empty(store)
        shards.put(array, (0, 0, 0), made(array, np.ones((3, 12, 24), np.int16)))
        assert (np.asarray(array[:3, :12, :24]) == 1).all()
        nothing = made(array, np.full((3, 12, 24), FILL, np.int16))
        assert nothing == []
        shards.put(array, (0, 0, 0), nothing)
        assert (np.asarray(array[:]) == FILL).all()


def test_the_pieces_are_the_chunks_in_order_by_the_codec_alone():
    data = np.random.default_rng(5).integers(1, 200, (1, 40, 72)).astype(np.int16)
    data[:, 8:16, 6:12] = FILL
    shape, chunk, codec = data.shape, (1, 2, 6), shards.Blosc("zstd", 3, shards.Blosc.BITSHUFFLE)
    parts = list(shards.encoded(data, shape, chunk, FILL, codec))
    places = [(slice(y, y + 2), slice(x, x + 6)) for y in range(0, 40, 2) for x in range(0, 72, 6)]
    alone = [codec.encode(np.ascontiguousarray(data[:, y, x])) for y, x in places if (data[:, y, x] != FILL).any()]
    assert len(alone) == len(places) - 4
    assert parts[:-2] == alone


def test_no_chunk_is_encoded_before_the_one_ahead_of_it_is_taken(monkeypatch):
    """Else all pieces of a shard would be held at once."""
    shape, chunk, codec = (1, 2, 64), (1, 2, 2), shards.Blosc("zstd", 3, shards.Blosc.BITSHUFFLE)
    encode, begun = shards._chunk, []

    def noted(data, chunk, fill, codec, start):
        begun.append(start)
        return encode(data, chunk, fill, codec, start)

    monkeypatch.setattr(shards, "_chunk", noted)
    coming = shards.encoded(np.ones(shape, np.int16), shape, chunk, FILL, codec)
    for count in range(1, 33):
        next(coming)
        assert len(begun) == count
    assert len(list(coming)) == 2


def test_a_chunk_that_cannot_be_encoded_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch):
    array = empty(zarr.storage.LocalStore(tmp_path / "a.zarr"))
    shards.put(array, (0, 0, 0), [b"old"])
    encode = shards._chunk

    def failing(data, chunk, fill, codec, start):
        if start[1:] == (6, 12):
            raise MemoryError
        return encode(data, chunk, fill, codec, start)

    monkeypatch.setattr(shards, "_chunk", failing)
    chunk, codec = shards.plain(array)
    pieces = shards.encoded(np.ones((3, 12, 24), np.int16), array.shards, chunk, FILL, codec)
    with pytest.raises(MemoryError):
        shards.put(array, (0, 0, 0), pieces)
    files = [p for p in (tmp_path / "a.zarr" / "c").rglob("*") if p.is_file()]
    assert [(p.name, p.read_bytes()) for p in files] == [("0", b"old")]


def test_what_another_codec_made_is_left_to_zarr(tmp_path):
    gzip = empty(zarr.storage.LocalStore(tmp_path / "a.zarr"), compressors=[GzipCodec()])
    flat = zarr.create_array(zarr.storage.LocalStore(tmp_path / "b.zarr"), shape=(6,), chunks=(3,), dtype="int16")
    assert shards.plain(gzip) is None
    assert shards.plain(flat) is None


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path):
    array = empty(zarr.storage.LocalStore(tmp_path / "a.zarr"))
    shards.put(array, (0, 0, 0), [b"old"])

    def breaking():
        yield b"new"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        shards._write(tmp_path / "a.zarr" / "c" / "0" / "0" / "0", breaking())
    files = [p for p in (tmp_path / "a.zarr" / "c").rglob("*") if p.is_file()]
    assert [(p.name, p.read_bytes()) for p in files] == [("0", b"old")]
