"""The scenes a catalogue supplies for an area and a year, or a clear word on what it lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date

from pipeline import catalog, pan, revisit, scenes
from pipeline.choices import Landsat
from pipeline.errors import CatalogError
from pipeline.events import Listener, Note, silent
from pipeline.facts import Item
from pipeline.plan import SensorName
from pipeline.profiles import Source


def find(
    source: Source, wanted: scenes.Wanted, patience: catalog.Patience, listener: Listener = silent
) -> scenes.Chosen:
    """The scenes of both sensors. Raises CatalogError, with the months that do have scenes, where one has none."""
    for sensor, title in _titles(wanted).items():
        if source.product(sensor) is None:
            raise CatalogError(
                f"catalogue {source.label} serves no {title} reflectance; both sensors are needed and nothing was "
                f"searched. Add a catalogue that does: {source.label}+{_ADDED[sensor]}"
            )
    search = _Search(source, patience, listener)
    selection, found = search.choose(wanted)
    for note in (*found.notes, *_on_pan(selection, found)):
        listener(Note("catalog", note))
    _require_both(selection, found, wanted, search)
    missing = revisit.holes(found.items, wanted.area, wanted.first, wanted.last, wanted.longitude)
    return replace(selection, holes=missing)


def _on_pan(selection: scenes.Chosen, found: catalog.Found) -> list[str]:
    """A word where the catalogue has panchromatic scenes and not for every Landsat date; else it has been said."""
    if "landsat8_pan" not in found.items:
        return []
    landsat = [s for s in selection.scenes if s.sensor == "landsat8"]
    text = pan.said(len(landsat), sum(bool(s.pan_items) for s in landsat), len(found.items["landsat8_pan"]))
    return [] if text is None else [text]


_ADDED: dict[SensorName, str] = {"landsat8": "usgs", "sentinel2": "earth-search"}
TITLES: Mapping[Landsat, str] = {"8": "Landsat 8", "9": "Landsat 9", "both": "Landsat 8 or 9"}


def _titles(wanted: scenes.Wanted) -> dict[SensorName, str]:
    return {"landsat8": TITLES[wanted.landsat], "sentinel2": "Sentinel-2"}


@dataclass(frozen=True, slots=True)
class _Search:
    """One way to search: source and patience stay, days and collections change."""

    source: Source
    patience: catalog.Patience
    listener: Listener = silent

    def choose(self, wanted: scenes.Wanted) -> tuple[scenes.Chosen, catalog.Found]:
        bounds = wanted.area.bounds
        found = catalog.search(
            self.source, bounds, wanted.first, wanted.last, patience=self.patience, listener=self.listener
        )
        return scenes.choose(found.items, self.source, wanted, self._level1), found

    def _level1(self, item: Item) -> str | None:
        product = self.source.product_of(item, "landsat8")
        return None if product is None else pan.level1_of(item, product.access, product.metadata)

    def nearby(self, sensor: SensorName, wanted: scenes.Wanted) -> str:
        """The months from the year before to the year after in which `sensor` has usable scenes; empty if none."""
        only = self.source.only((sensor,))
        year = wanted.first.year
        wider = replace(
            wanted, first=date(year - 1, 1, 1), last=date(year + 1, 12, 31), max_cloud=100.0, overrides=(), nbar="off"
        )
        selection, _ = _Search(only, self.patience).choose(wider)
        return ", ".join(scenes.months_of(selection.scenes, sensor))


def _require_both(selection: scenes.Chosen, found: catalog.Found, wanted: scenes.Wanted, search: _Search) -> None:
    """Raise CatalogError, with the months that do have scenes, unless both sensors have some."""
    missing = [title for sensor, title in _titles(wanted).items() if not scenes.months_of(selection.scenes, sensor)]
    if not missing:
        return
    for sensor in _titles(wanted):
        gone = "" if found.items.get(sensor) else catalog.lost(search.source, sensor, search.patience)
        if gone:
            raise CatalogError(gone)
    lines = []
    for sensor, title in _titles(wanted).items():
        usable = scenes.months_of(selection.scenes, sensor)
        if usable:
            lines.append(f"{title}: {', '.join(usable)}")
            continue
        returned = {i["id"] for i in found.items.get(sensor, ())}
        why = Counter(d.why for d in selection.dropped if d.item in returned).most_common(3)
        reasons = f" ({'; '.join(f'{count} x {text}' for text, count in why)})" if why else ""
        nearby = search.nearby(sensor, wanted)
        elsewhere = f"but in {nearby}" if nearby else "nor in the years before and after"
        lines.append(f"{title}: none from {wanted.first} to {wanted.last}{reasons}, {elsewhere}")
    raise CatalogError(
        f"catalogue {search.source.label} has no {' and no '.join(missing)} scenes from {wanted.first} to "
        f"{wanted.last} that serve this area; both sensors are needed and nothing was planned. Months with scenes: "
        f"{'. '.join(lines)}. Choose another year or dates, or check that longitude and latitude are not swapped"
    )
