"""The work: from a STAC search to a dense 10 m Zarr cube, tile by tile."""
