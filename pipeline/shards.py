"""Whole shards encoded at the rate of their codec: chunk after chunk into one object, as Zarr's sharding has them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, product
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs import Blosc  # type: ignore[import-untyped]
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

ABSENT = 2**64 - 1
"""Offset and length, in a shard's index, of a chunk that is fill throughout."""


def encoded(data: NDArray[Any], shard: Sequence[int], chunk: Sequence[int], fill: int, codec: Blosc) -> Iterator[bytes]:
    """The object of a shard that holds `data`, at its beginning, and `fill` beyond: piece after piece, each encoded
    when it is asked for; no piece where it is fill throughout.

    Zarr v3 sharding: chunks by `codec`, then their offsets and lengths in order of the chunks, then a CRC32C of those.
    In the thread that asks: the stages store several layers or tiles at once, and to hand chunks over to further
    threads costs 3 to 9 % of the codec's time in waking them.
    """
    starts = list(product(*(range(0, size, step) for size, step in zip(shard, chunk, strict=True))))
    index = np.full((len(starts), 2), ABSENT, "<u8")
    end = 0
    for entry, start in zip(index, starts, strict=True):
        # no name holds a piece: whoever asked lets go of it, and the next is made in the same memory, still at hand
        held = _chunk(data, tuple(chunk), fill, codec, start)
        if held:
            entry[:] = end, len(held[0])
            end += len(held[0])
            yield held.pop()
    if end:
        table = index.tobytes()
        yield table
        yield np.array(google_crc32c.value(table), "<u4").tobytes()


def plain(array: zarr.Array[Any]) -> tuple[Sequence[int], Blosc] | None:
    """Inner chunks and codec of an array whose shards `encoded` can make: little-endian, blosc, index at the end; None
    where it is of another make, and Zarr itself must write it."""
    codecs: Sequence[Any] = getattr(array.metadata, "codecs", ())
    if len(codecs) != 1 or not isinstance(codecs[0], ShardingCodec):
        return None
    sharding: Any = codecs[0]
    at_end = str(getattr(sharding.index_location, "value", sharding.index_location)) == "end"
    if [type(c) for c in sharding.codecs] != [BytesCodec, BloscCodec] or not at_end:
        return None
    if [type(c) for c in sharding.index_codecs] != [BytesCodec, Crc32cCodec]:
        return None
    swapped = array.dtype.byteorder == ">" or any(
        getattr(c.endian, "value", c.endian) == "big"
        for c in (*sharding.codecs, *sharding.index_codecs)
        if isinstance(c, BytesCodec) and c.endian is not None
    )
    if swapped:
        return None
    said: Any = sharding.codecs[1].to_dict()["configuration"]
    shuffle = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}[said["shuffle"]]
    return sharding.chunk_shape, Blosc(said["cname"], said["clevel"], shuffle, said["blocksize"])


def put(array: zarr.Array[Any], block: Sequence[int], pieces: Iterable[bytes]) -> None:
    """Store the object of shard `block` (its place along each axis), whole or not at all; no pieces remove it."""
    path = array.store_path / array.metadata.encode_chunk_key(tuple(block))
    coming = iter(pieces)
    first = next(coming, None)
    if first is None:
        sync(path.delete())
    elif isinstance(path.store, LocalStore):
        pieces = chain([first], coming)
        del first
        _write(path.store.root / path.path, pieces)
    else:
        sync(path.set(default_buffer_prototype().buffer.from_bytes(b"".join([first, *coming]))))


def _write(target: Path, pieces: Iterable[bytes]) -> None:
    """Piece by piece as they come: to hold them all takes memory that the system must clear first, and to join them
    would copy them."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # Store.sweep knows the name of what a killed process leaves
    partial = target.with_name(f"{target.name}.{uuid.uuid4().hex}.partial")
    try:
        with partial.open("wb") as file:
            file.writelines(pieces)
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _chunk(data: NDArray[Any], chunk: tuple[int, ...], fill: int, codec: Blosc, start: tuple[int, ...]) -> list[bytes]:
    """The piece of the chunk at `start`, by itself in a list; nothing in it where the chunk is fill throughout."""
    part = data[tuple(slice(at, at + step) for at, step in zip(start, chunk, strict=True))]
    if part.shape != chunk:
        whole = np.full(chunk, fill, data.dtype)
        whole[tuple(slice(0, n) for n in part.shape)] = part
        part = whole
    # most chunks show at once that they hold something
    if part.flat[0] == fill and (part == fill).all():
        return []
    return [codec.encode(np.ascontiguousarray(part))]
