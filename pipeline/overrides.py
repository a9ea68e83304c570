"""What a user says of the radiometry of items, where a catalogue says it wrongly."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

RUN = "boa-offset"
"""Stands for all Sentinel-2 items of a run."""
PATTERN = r"^(boa-offset=(-0\.1|0)|[^=\s,]+=[0-9.eE+-]+,[0-9.eE+-]+)$"
"""What an override looks like; the bounds of its numbers are checked by `parse`."""
SCALES, OFFSETS = (1e-7, 1e-2), (-1.0, 1.0)
"""What a scale and an offset may be."""


@dataclass(frozen=True, slots=True)
class Override:
    """rho = DN * scale + offset for one item, or an offset for all Sentinel-2 items (`item` and `scale` None)."""

    item: str | None
    """Key of the plan's radiometry: an item's id, for pan with `#pan` behind it."""
    scale: float | None
    offset: float

    @property
    def text(self) -> str:
        """As a user types it; `parse` reads it back."""
        if self.item is None or self.scale is None:
            return f"{RUN}={self.offset:g}"
        return f"{self.item}={self.scale!r},{self.offset!r}"


def parse(text: str) -> Override:
    """`ITEM=SCALE,OFFSET`, or `boa-offset=-0.1` or `boa-offset=0` for all Sentinel-2 items of a run.

    Raises ValueError that says what is wrong with it.
    """
    text = text.strip()
    if not re.fullmatch(PATTERN, text):
        raise ValueError(f"{text!r} is neither ITEM=SCALE,OFFSET nor {RUN}=-0.1 nor {RUN}=0")
    item, _, numbers = text.rpartition("=")
    if item == RUN:
        return Override(None, None, float(numbers))
    try:
        scale, offset = map(float, numbers.split(","))
    except ValueError as error:
        raise ValueError(f"{text!r}: {numbers!r} are not two numbers") from error
    for name, value, (low, high) in (("scale", scale, SCALES), ("offset", offset, OFFSETS)):
        if not low <= value <= high:
            raise ValueError(f"{text!r}: the {name} {value:g} lies outside {low:g}..{high:g}")
    return Override(item, scale, offset)


def parse_all(texts: Iterable[str]) -> tuple[Override, ...]:
    """Several, in canonical order. Raises ValueError where one is wrong, or two speak of the same item."""
    found: dict[str, Override] = {}
    for text in texts:
        override = parse(text)
        name = override.item or RUN
        if name in found and found[name] != override:
            raise ValueError(f"{found[name].text!r} and {override.text!r} contradict each other")
        found[name] = override
    return tuple(found[name] for name in sorted(found))
