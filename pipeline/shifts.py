"""What is known of the shift of a Landsat date, and what is done about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Decision = Literal["corrected", "left", "rejected", "unmeasured"]


@dataclass(frozen=True, slots=True)
class SceneShift:
    """How far one Landsat date lies beside its Sentinel-2 references, and what is done about it."""

    landsat: int
    """Index along Landsat's own time axis."""
    label: str
    decision: Decision
    reason: str
    east: float | None = None
    """Metres by which what Landsat shows lies east of its place in Sentinel-2; None where it was not measured."""
    north: float | None = None
    error: float | None = None
    """Standard error of either, metres."""
    pixels: int = 0
    """Unchanged pixels of 30 m behind it."""
    windows: int = 0

    @property
    def off(self) -> tuple[float, float] | None:
        """(east, north) metres to be taken back; None where the date is left as it is stored."""
        if self.decision != "corrected" or self.east is None or self.north is None:
            return None
        return self.east, self.north

    @property
    def text(self) -> str:
        """The decision and its reason in one line."""
        return f"{self.decision}: {self.reason}"
