"""The pixels of scenes over a window: bands on the lattice and clear masks, whichever tiles the window holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pystac
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from marstfn.bands import BANDS, FINE, PAN_RES
from pipeline import bandpass, cloudmask, cube, units
from pipeline.cube import CLEAR, FILL, MASKED, NOTHING, Group
from pipeline.errors import AssetError, CatalogError
from pipeline.facts import platform
from pipeline.grid import Tile, Window
from pipeline.plan import Adjustment, Plan, Scene
from pipeline.profiles import Product, Role, resolve
from pipeline.reader import Asset, Kind, load
from pipeline.retries import Repeats
from pipeline.sensors import MaskOptions, fmask_clear, grown, landsat_clear, sentinel2_clear
from pipeline.uniform import MASK, SATURATION, keys, product_of, stac_cfg, uniform


@dataclass(frozen=True, slots=True)
class _Found:
    """An item of the plan and what it is."""

    item: pystac.Item
    product: Product


@dataclass(frozen=True, slots=True)
class Around:
    """The smallest window around some tiles of a plan (at least one), and how assets are read over it."""

    plan: Plan
    items: Mapping[str, pystac.Item]
    tiles: tuple[Tile, ...]
    name: str
    """Of the tiles, for errors."""
    threads: int
    repeats: Repeats

    @property
    def window(self) -> Window:
        """What is read."""
        return units.bounding(self.tiles)

    def bands(self, group: Group, scenes: Sequence[Scene], names: Sequence[str]) -> dict[str, NDArray[np.int16]]:
        """int16 reflectance (scenes, ny, nx) in units of 1e-4 by band of `group`, -9999 where nothing is.

        Raises AssetError naming item and asset.
        """
        found = self._found(group, scenes)
        present = [index for index, scene in enumerate(found) if scene]
        read: Mapping[str, NDArray[Any]] = {}
        if present:
            kinds = dict.fromkeys(names, _kind(group))
            suffix = "#pan" if group is cube.LANDSAT8_PAN else ""
            box = self.window.geobox(group.resolution)
            read = self._load(group, [found[index] for index in present], kinds, box, suffix)
        if len(present) == len(scenes):
            return dict(read)
        out = {}
        for name in names:
            out[name] = np.full((len(scenes), *self.window.shape(group.resolution)), FILL, np.int16)
            if present:
                out[name][present] = read[name]
        return out

    def clear(self, group: Group, scenes: Sequence[Scene]) -> NDArray[np.uint8]:
        """Clear mask (scenes, ny, nx): nothing, clear, masked; as the mask has it, whatever the bands lack.

        QA_PIXEL is read at 15 m, where its 30 m pixels (corners 15 mod 30) fall exactly: on the 30 m lattice nearest
        neighbour would move every cloud by half a pixel. A lattice pixel is clear where all that it touches is. Raises
        AssetError naming item and asset.
        """
        found = self._found(group, scenes)
        present = [index for index, scene in enumerate(found) if scene]
        out = np.zeros((len(scenes), *self.window.shape(group.resolution)), np.uint8)
        some = [found[index] for index in present]
        if not some:
            return out
        plan, product = self.plan, self._product(group)
        options = MaskOptions.of(plan.options)
        resolution = FINE if group is cube.SENTINEL2 else PAN_RES
        margin = -(-plan.options.mask_dilation // resolution) + 1
        margin += margin % 2  # keeps pairs of 15 m pixels together
        box = self.window.geobox(resolution).pad(margin)
        names = [MASK]
        if product.saturation and all(f.product.saturation in f.item.assets for scene in some for f in scene):
            names.append(SATURATION)  # a catalogue may leave it out; saturation is rare over land
        layers = self._load(group, some, dict.fromkeys(names, "nearest"), box, None)
        inner = (slice(margin, -margin), slice(margin, -margin))
        for place, (index, flags) in enumerate(zip(present, layers[MASK], strict=True)):
            saturation = layers[SATURATION][place] if SATURATION in layers else None
            clear = _classified(product, flags, saturation, resolution, options)[inner]
            out[index] = clear if group is cube.SENTINEL2 else halved(clear)
        del layers
        learned = cloudmask.find(plan.options.cloud_mask)
        if learned is not None:
            for begin in range(0, len(present), cloudmask.DATES):
                part = slice(begin, begin + cloudmask.DATES)
                self._look(group, some[part], present[part], learned, out)
        return out

    def _look(
        self,
        group: Group,
        scenes: Sequence[Sequence[_Found]],
        places: Sequence[int],
        learned: cloudmask.Learned,
        out: NDArray[np.uint8],
    ) -> None:
        """Mask in `out`, at `places`, the cloud and shadow that a learned mask sees in `scenes`, grown.

        It is shown each tile by itself with the ground around it: what a network sees depends on the picture's shape.
        """
        margin = cloudmask.CONTEXT + cloudmask.CONTEXT % 2
        box = self.window.geobox(group.resolution).pad(margin)
        layers = self._load(group, scenes, dict.fromkeys(learned.bands, _kind(group)), box, "")
        for tile in self.tiles:
            rows, columns = units.within(tile, self.window, group.resolution)
            around = slice(rows.start, rows.stop + 2 * margin), slice(columns.start, columns.stop + 2 * margin)
            for index, place in enumerate(places):
                stored = np.stack([layers[band][index][around] for band in learned.bands])
                values = np.where(stored == FILL, np.nan, stored * cube.SCALE).astype(np.float32)
                seen = learned.mask(values, float(group.resolution))
                cloud = grown(seen, self.plan.options.mask_dilation, group.resolution)[margin:-margin, margin:-margin]
                view = out[place, rows, columns]
                view[cloud & (view != NOTHING)] = MASKED

    def _found(self, group: Group, scenes: Sequence[Scene]) -> list[list[_Found]]:
        """The items of each scene that serve `group`."""
        source, role, pan = resolve(self.plan.catalog), cast(Role, group.name), group is cube.LANDSAT8_PAN
        return [
            [
                _Found(item := _item(self.items, name, scene), product_of(source, item, role))
                for name in (scene.pan_items if pan else scene.items)
            ]
            for scene in scenes
        ]

    def _product(self, group: Group) -> Product:
        product = resolve(self.plan.catalog).product(cast(Role, group.name))
        if product is None:
            raise AssetError(f"catalogue {self.plan.catalog} has no product for {group.name}; make the plan anew")
        return product

    def _load(
        self,
        group: Group,
        scenes: Sequence[Sequence[_Found]],
        kinds: Mapping[str, Kind],
        box: GeoBox,
        suffix: str | None,
    ) -> dict[str, NDArray[Any]]:
        """Arrays (scenes, ny, nx) by layer; each item is read as its own catalogue wants it. `suffix` None: masks."""
        cfg = stac_cfg(self._product(group))
        products = {found.item.id: found.product for scene in scenes for found in scene}
        own = {
            found.item.id: bandpass.of_item(self.plan.options, platform({"properties": found.item.properties}))
            for scene in scenes
            for found in scene
        }
        try:
            alike = [[uniform(found.item, found.product, list(kinds)) for found in scene] for scene in scenes]
        except CatalogError as error:
            raise AssetError(str(error)) from error
        return load(
            alike, kinds, box,
            lambda item, layer: _asset(self.plan, products[item.id], item, layer, suffix, own[item.id]),
            masks=suffix is None, where=f"tile {self.name}", stac_cfg=cfg, threads=self.threads, repeats=self.repeats,
        )  # fmt: skip


def _classified(
    product: Product,
    flags: NDArray[Any],
    saturation: NDArray[Any] | None,
    resolution: float,
    options: MaskOptions,
) -> NDArray[np.uint8]:
    """Clear mask by the kind of mask that the product has."""
    if product.family == "dea-ard":
        return fmask_clear(flags, resolution=resolution, options=options)
    if product.family == "sentinel-2-l2a":
        return sentinel2_clear(flags, resolution=resolution, options=options)
    return landsat_clear(flags, saturation, resolution=resolution, options=options)


def halved(clear: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Clear mask (2h, 2w) on pixels twice as large: nothing or masked where any of the four is, in that order."""
    h, w = clear.shape
    quads = clear.reshape(h // 2, 2, w // 2, 2)
    out = np.full((h // 2, w // 2), CLEAR, np.uint8)
    out[(quads == MASKED).any((1, 3))] = MASKED
    out[(quads == NOTHING).any((1, 3))] = NOTHING
    return out


def _kind(group: Group) -> Kind:
    # cubic convolution is the rule for Landsat (HLS); Sentinel-2's 10 m bands lie on the lattice and are copied
    return "bilinear" if group is cube.SENTINEL2 else "cubic"


def _item(items: Mapping[str, pystac.Item], name: str, scene: Scene) -> pystac.Item:
    try:
        return items[name]
    except KeyError as error:
        raise AssetError(
            f"item {name} of {scene.label} is in the plan and not in items.json; the store was altered, plan anew"
        ) from error


def _asset(
    plan: Plan, product: Product, item: pystac.Item, layer: str, suffix: str | None, own: Adjustment | None
) -> Asset:
    """The asset of a layer of an item (in uniform form) with its radiometry, `own` its platform's adjustment;
    `suffix` None: a mask."""
    key = keys(product)[layer]
    href = item.assets[layer].href
    if suffix is None:
        return Asset(item.id, key, href, product.numbers(key)[1], None, product.access)
    radiometry = plan.radiometry[item.id + suffix]
    nadir = plan.nbar.get(item.id) if not suffix else None
    if nadir is not None:
        factor = nadir.factors[BANDS.index(layer)]
        factored = {"scale": radiometry.scale * factor, "offset": radiometry.offset * factor}
        radiometry = radiometry.model_copy(update=factored)
    if own is not None and not suffix:
        scale, offset = own.scale[BANDS.index(layer)], own.offset[BANDS.index(layer)]
        adjusted = {"scale": radiometry.scale * scale, "offset": radiometry.offset * scale + offset}
        radiometry = radiometry.model_copy(update=adjusted)
    return Asset(item.id, key, href, radiometry.nodata, radiometry, product.access)
