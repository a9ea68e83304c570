"""Names that people choose from; imported where a command's help must not wait for anything else."""

from typing import Literal

Method = Literal[
    "auto",
    "network",
    "additive",
    "additive-linear",
    "linear",
    "sen2like",
    "fsdaf",
    "starfm-si",
    "atprk",
    "bicubic",
    "copy",
]
"""What fuses a Landsat date: auto is the network but where a free method is ahead on this very land."""
