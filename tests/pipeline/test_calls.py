"""Patches of dates in turn: each once, in order, in whole batches but for the last."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.calls import Calls, Share


def run(dates: list[tuple[str, int]], batch: int, blocks: list[int]) -> list[tuple[Share[int], ...]]:
    batches: Calls[int] = Calls(batch)
    out = []
    for number, ((kind, count), block) in enumerate(zip(dates, blocks, strict=True)):
        out += batches.rest(before=block - 1)
        out += batches.add(number, kind, count, block)
    return out + batches.rest()


dates = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 40)), max_size=20)


@given(dates, st.integers(1, 16), st.integers(1, 6))
def test_every_patch_once_in_order_and_by_kind(found, batch, length):
    calls = run(found, batch, [k // length for k in range(len(found))])
    seen: dict[int, list[int]] = {k: [] for k in range(len(found))}
    for call in calls:
        assert len({found[s.date][0] for s in call}) == 1
        assert len(call) == 1 or sum(s.last - s.first for s in call) <= batch
        for share in call:
            seen[share.date] += range(share.first, share.last)
    assert seen == {k: list(range(count)) for k, (_, count) in enumerate(found)}


@given(st.lists(st.integers(1, 40), min_size=1, max_size=20), st.integers(1, 16))
def test_of_one_kind_only_the_last_batch_is_short(counts, batch):
    calls = run([("a", n) for n in counts], batch, [0] * len(counts))
    sizes = [sum(s.last - s.first for s in call) for call in calls]
    assert all(size % batch == 0 for size in sizes[:-1])
    assert sum(-(-size // batch) for size in sizes) == -(-sum(counts) // batch)


def test_no_patch_waits_for_more_than_the_next_block():
    batches: Calls[int] = Calls(8)
    assert batches.add(0, "a", 3, block=0) == []
    assert batches.rest(before=0) == []
    assert batches.rest(before=1) == [(Share(0, 0, 3),)]
    assert batches.rest() == []


def test_a_batch_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Calls(0)
