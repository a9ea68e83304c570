"""Reproducible randomness without state: integers in, uniform or normal deviates out, the same on every machine.

Array code of the simulator uses only integer arithmetic and the operations IEEE 754 rounds exactly (+ - * / sqrt),
so that a pixel does not depend on the window it is rendered in, on the vector unit, or on the platform's libm.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

U32 = NDArray[np.uint32]
F32 = NDArray[np.float32]

_STEP = np.uint32(0x9E3779B9)
_MASK = 0xFFFFFFFF


def _mix(h: U32) -> U32:
    """Spread every input bit over all 32 output bits (xor-shift-multiply, twice); works in place on `h`."""
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x7FEB352D)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0x846CA68B)
    h ^= h >> np.uint32(16)
    return h


def _word(value: ArrayLike) -> U32:
    array = np.asarray(value)
    if array.dtype == np.uint32:
        return array
    return (array.astype(np.int64, copy=False) & _MASK).astype(np.uint32)


def mixed(key: int | np.integer | U32, *values: ArrayLike) -> U32:
    """Hash of `key` and integer arrays (broadcast together) as uint32 of their common shape."""
    h = _word(key)
    with np.errstate(over="ignore"):
        for value in values:
            h = _mix((h * _STEP) ^ (_word(value) + np.uint32(0x85EBCA6B)))
    return h


def key(*parts: int | str) -> int:
    """One 32-bit key out of numbers and names, e.g. key(seed, "clouds", 17)."""
    h = 0x243F6A88
    for part in parts:
        words = (zlib.crc32(part.encode()),) if isinstance(part, str) else (part & _MASK, (part >> 32) & _MASK)
        for word in words:
            h = int(mixed(h, word))
    return h


def uniform(hashed: U32) -> F32:
    """Hash to float32 in [0, 1): the upper 24 bits, exactly representable."""
    return (hashed >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def normal(hashed: U32) -> F32:
    """Hash to float32 of mean 0 and variance 1: six 16-bit uniforms summed (bounded at +-4.2)."""
    total = np.zeros(np.shape(hashed), np.float32)
    h = hashed.copy()
    for salt in (0x68E31DA4, 0xB5297A4D, 0x1B56C4E9):
        with np.errstate(over="ignore"):
            h = _mix(h + np.uint32(salt))
        total += (h & np.uint32(0xFFFF)).astype(np.float32)
        total += (h >> np.uint32(16)).astype(np.float32)
    # a sum of six uniforms on 0..65535 has mean 3 * 65535 and variance 6 * 65536^2 / 12
    return (total - np.float32(196605.0)) * np.float32(1.0 / (65536.0 * 0.5**0.5))


def draw(*parts: int | str) -> float:
    """One uniform number in [0, 1) for a key made of `parts`."""
    return float(uniform(mixed(key(*parts), 1)))


def draw_normal(*parts: int | str) -> float:
    """One normal number for a key made of `parts`."""
    return float(normal(mixed(key(*parts), 2)))
