"""A simulated year of land seen by Landsat 8 and Sentinel-2, with its exact truth.

The land is a pure function of absolute UTM metres and the day; each sensor looks at it through its own grid, PSF,
band-passes, noise, registration error and sky. What comes of it is to be marked as simulated wherever it is shown.
"""

from marstfn.simulate.products import AssetSpec
from marstfn.simulate.scene import Simulation
from marstfn.simulate.style import HELD_BACK, VARIED, Style
from marstfn.simulate.weather import Sky
from marstfn.simulate.year import Acquisition, Conditions

__all__ = ["HELD_BACK", "VARIED", "Acquisition", "AssetSpec", "Conditions", "Simulation", "Sky", "Style"]
