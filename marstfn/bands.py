"""The six bands both missions share, by STAC common name, and the lattice they are kept on."""

BANDS = ("blue", "green", "red", "nir08", "swir16", "swir22")
"""Landsat 8 b2-b7 = Sentinel-2 B02 B03 B04 B8A B11 B12, in this order everywhere."""

PAN = "pan"
"""Landsat 8 b8, 15 m."""

FINE, PAN_RES, COARSE = 10, 15, 30
"""Pixel sizes in metres of the output, the panchromatic band and the Landsat bands."""

RATIO = COARSE // FINE
"""Fine pixels along one coarse pixel (3)."""
