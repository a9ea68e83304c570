"""What a Landsat product's MTL.json says, group by group: the same key means two things in two groups."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.errors import CatalogError


@dataclass(frozen=True, slots=True)
class Metadata:
    """The groups of an MTL file of Collection 2; values are text, as the file has them.

    Groups are never merged: a Level-2 file holds REFLECTANCE_MULT_BAND_4 twice, 2.75e-05 of surface reflectance and
    2.0000E-05 of Level-1.
    """

    groups: Mapping[str, Mapping[str, str]]

    def value(self, group: str, key: str) -> str | None:
        """The text of `key` in `group`, or None where either is missing."""
        return self.groups.get(group, {}).get(key)

    def number(self, group: str, key: str) -> float | None:
        """The same as a number. Raises CatalogError where it is none."""
        text = self.value(group, key)
        try:
            return None if text is None else float(text)
        except ValueError as error:
            raise CatalogError(
                f"MTL group {group}: {key} = {text!r} is not a number; the item cannot be used"
            ) from error

    @property
    def pan(self) -> tuple[float, float] | None:
        """REFLECTANCE_MULT and ADD of band 8, Level-1: top-of-atmosphere reflectance before division by the sine of
        the sun's elevation; None where the file does not say."""
        mult, add = (self.number("LEVEL1_RADIOMETRIC_RESCALING", f"REFLECTANCE_{k}_BAND_8") for k in ("MULT", "ADD"))
        return None if mult is None or add is None else (mult, add)

    @property
    def surface(self) -> tuple[float, float] | None:
        """REFLECTANCE_MULT and ADD of band 4, Level-2 surface reflectance; None where the file is of Level-1."""
        group = "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"
        mult, add = (self.number(group, f"REFLECTANCE_{k}_BAND_4") for k in ("MULT", "ADD"))
        return None if mult is None or add is None else (mult, add)

    @property
    def sun_elevation(self) -> float | None:
        """Sun elevation in degrees at the centre of the scene."""
        return self.number("IMAGE_ATTRIBUTES", "SUN_ELEVATION")

    @property
    def pan_saturated(self) -> bool:
        """Whether band 8 is saturated anywhere: QA_RADSAT has no bit for it."""
        return self.value("IMAGE_ATTRIBUTES", "SATURATION_BAND_8") == "Y"

    @property
    def level1(self) -> str | None:
        """Product id of the Level-1 scene: in a Level-2 file of the one it was made from."""
        return self.value("LEVEL1_PROCESSING_RECORD", "LANDSAT_PRODUCT_ID")


def parse(text: str | bytes) -> Metadata:
    """An MTL.json file. Raises CatalogError where it is none."""
    try:
        document = json.loads(text)["LANDSAT_METADATA_FILE"]
        groups = {group: {key: str(v) for key, v in values.items()} for group, values in document.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CatalogError(
            f"not a Landsat Collection 2 metadata file in JSON ({type(error).__name__}: {error}); "
            "give MTL.json, not MTL.txt or MTL.xml"
        ) from error
    return Metadata(groups)
