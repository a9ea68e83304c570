"""The embedded catalogue: a simulated year as real products, served as a STAC API, scored against its truth."""
