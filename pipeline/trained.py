"""Which trained weights a run uses: found by name or file, checked, and referred to by content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from marstfn import weights as files
from pipeline.errors import PlanError, WeightsError
from pipeline.plan import Scene, WeightsRef


def offered(names: str | Sequence[str], base: Path) -> tuple[WeightsRef, ...]:
    """The sets of weights that `auto`, a name or file (relative to `base`), or two of them stand for; pan first.

    Raises WeightsError where one cannot be read, is of another band order, or does not fit the lattice or the other.
    """
    listed = [names] if isinstance(names, str) else list(names)
    listed = list(files.SHIPPED) if listed == ["auto"] else listed
    refs = [_reference(name, base) for name in listed]
    if len({ref.pan for ref in refs}) < len(refs):
        kind = "with" if refs[0].pan else "without"
        raise WeightsError(
            f"weights {', '.join(listed)} are all {kind} the panchromatic band; nothing was planned. Give one of each"
        )
    if len({ref.patch for ref in refs}) > 1:
        sides = ", ".join(f"{ref.source}: {ref.patch} px" for ref in refs)
        raise WeightsError(
            f"weights of one run must have one patch side ({sides}); nothing was planned. Give sets trained alike"
        )
    return tuple(sorted(refs, key=lambda ref: not ref.pan))


def used(refs: tuple[WeightsRef, ...], scenes: Sequence[Scene]) -> tuple[WeightsRef, ...]:
    """Of `refs` those that the Landsat scenes call for: with pan for dates that have it, without for the others.

    Raises PlanError where dates have no pan and no set does without it.
    """
    landsat = [s for s in scenes if s.sensor == "landsat8"]
    bare = [s for s in landsat if not s.pan_items]
    if bare and refs and all(ref.pan for ref in refs):
        raise PlanError(
            f"weights {refs[0].source} need the panchromatic band, and {len(bare)} of {len(landsat)} Landsat dates "
            f"have none (the first: {bare[0].day}); nothing was planned. "
            "Use marstfn-nopan (or auto), or a catalogue with Level-1 scenes"
        )
    return tuple(ref for ref in refs if not ref.pan or len(bare) < len(landsat))


def _reference(name: str, base: Path) -> WeightsRef:
    path = Path(name).expanduser()
    place = name if name in (*files.SHIPPED, *files.SIBLINGS) else str(path if path.is_absolute() else base / path)
    try:
        loaded = files.load(place)
    except (ValueError, OSError) as error:
        raise WeightsError(f"{error}; nothing was planned") from error
    patch = loaded.config.patch
    if patch % 6 or patch < 12:
        raise WeightsError(
            f"weights {name}: their patch side of {patch} px is no multiple of 6 px, so it does not fit the lattice; "
            "nothing was planned. Use weights trained on another patch side"
        )
    return WeightsRef(
        source=place,
        sha256=loaded.sha256,
        pan=loaded.config.pan,
        patch=patch,
        context=loaded.config.context,
        interval=loaded.interval,
    )
