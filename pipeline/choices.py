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

Landsat = Literal["8", "9", "both"]
"""Which Landsat is read."""

Snow = Literal["keep", "mask"]
"""Whether snow is ground to be seen, or hides it."""

CloudMaskName = Literal["product", "omnicloudmask"]
"""What tells cloud and shadow: the product's own mask, or a network that looks at the bands."""

Nbar = Literal["auto", "on", "off"]
"""Whether reflectance is brought to a view from above: auto where every item tells its angles."""
