"""The tables that the paper prints (Cheng et al. 2024, Remote Sens. 16, 1033, Tables 2, 3 and 4), figure by figure.

They are there to be shown beside one's own. They cannot be met exactly: the trials are not dated, PSNR and RMSE do not
follow from one another by equation 12 with any one maximum, and the truth is the reference that methods were given.
Table 4 prints an RMSE for MARSTFN on Hailar (0.0259) that is not that of Table 2 (0.0255).
"""

from __future__ import annotations

from dataclasses import dataclass

FUSION = ("FSDAF", "STARFM-SI", "ATPRK", "DSTFN", "MARSTFN")
ABLATION = ("ARNet", "MRNet", "MANet", "MARSTFN")


@dataclass(frozen=True, slots=True)
class Printed:
    """One index of one data set: `trials` in the order printed, a value for each of `methods`, and the `average`."""

    table: int
    dataset: str
    index: str
    """PSNR (dB), SSIM or RMSE (reflectance)."""
    methods: tuple[str, ...]
    trials: tuple[tuple[float, ...], ...]
    """Empty in Table 4, which prints averages alone."""
    average: tuple[float, ...]

    @property
    def best(self) -> str:
        """The method whose average is printed in bold."""
        pick = min if self.index == "RMSE" else max
        return self.methods[self.average.index(pick(self.average))]


TABLES = (
    Printed(
        2,
        "Hailar",
        "PSNR",
        FUSION,
        (
            (29.9821, 30.2142, 30.9168, 32.3470, 32.4808),
            (29.5619, 29.6318, 28.9653, 30.3120, 31.2037),
            (29.2083, 29.1779, 29.4909, 30.4400, 31.3767),
            (29.5278, 29.1653, 29.5383, 29.1339, 29.6070),
            (33.4398, 33.4254, 32.2749, 33.6752, 34.3020),
            (30.3845, 30.2776, 29.6360, 30.6992, 31.3778),
        ),
        (30.3507, 30.3154, 30.1370, 31.1012, 31.7247),
    ),
    Printed(
        2,
        "Hailar",
        "SSIM",
        FUSION,
        (
            (0.9505, 0.9510, 0.9577, 0.9580, 0.9597),
            (0.9605, 0.9590, 0.9613, 0.9612, 0.9652),
            (0.9454, 0.9441, 0.9449, 0.9444, 0.9521),
            (0.9150, 0.9132, 0.9236, 0.9240, 0.9294),
            (0.9561, 0.9594, 0.9636, 0.9640, 0.9656),
            (0.9359, 0.9426, 0.9420, 0.9437, 0.9490),
        ),
        (0.9439, 0.9449, 0.9489, 0.9492, 0.9535),
    ),
    Printed(
        2,
        "Hailar",
        "RMSE",
        FUSION,
        (
            (0.0310, 0.0302, 0.0282, 0.0235, 0.0231),
            (0.0338, 0.0339, 0.0328, 0.0290, 0.0261),
            (0.0326, 0.0324, 0.0351, 0.0298, 0.0269),
            (0.0328, 0.0342, 0.0372, 0.0343, 0.0325),
            (0.0205, 0.0205, 0.0236, 0.0195, 0.0183),
            (0.0290, 0.0294, 0.0319, 0.0278, 0.0259),
        ),
        (0.0300, 0.0301, 0.0315, 0.0273, 0.0255),
    ),
    Printed(
        3,
        "Dezhou",
        "PSNR",
        FUSION,
        (
            (31.9103, 32.4065, 31.5480, 34.2633, 34.6670),
            (31.9498, 32.4436, 32.9046, 34.6958, 35.6082),
            (31.3712, 31.6537, 29.9532, 32.1945, 32.9657),
            (27.9400, 28.4388, 26.7805, 28.9720, 29.7145),
            (28.6961, 28.6151, 27.4919, 28.9879, 29.6476),
        ),
        (30.3735, 30.7115, 29.7356, 31.8227, 32.5206),
    ),
    Printed(
        3,
        "Dezhou",
        "SSIM",
        FUSION,
        (
            (0.9719, 0.9705, 0.9627, 0.9700, 0.9731),
            (0.9732, 0.9685, 0.9705, 0.9730, 0.9743),
            (0.9636, 0.9658, 0.9630, 0.9661, 0.9680),
            (0.8697, 0.8814, 0.8760, 0.8923, 0.8978),
            (0.9031, 0.9111, 0.9028, 0.9057, 0.9146),
        ),
        (0.9363, 0.9395, 0.9350, 0.9414, 0.9456),
    ),
    Printed(
        3,
        "Dezhou",
        "RMSE",
        FUSION,
        (
            (0.0252, 0.0238, 0.0265, 0.0192, 0.0182),
            (0.0250, 0.0236, 0.0224, 0.0183, 0.0164),
            (0.0267, 0.0259, 0.0314, 0.0242, 0.0222),
            (0.0378, 0.0352, 0.0446, 0.0341, 0.0314),
            (0.0357, 0.0360, 0.0408, 0.0341, 0.0317),
        ),
        (0.0301, 0.0289, 0.0331, 0.0260, 0.0240),
    ),
    Printed(4, "Hailar", "SSIM", ABLATION, (), (0.9492, 0.9514, 0.9502, 0.9535)),
    Printed(4, "Hailar", "RMSE", ABLATION, (), (0.0271, 0.0267, 0.0265, 0.0259)),
    Printed(4, "Dezhou", "SSIM", ABLATION, (), (0.9415, 0.9413, 0.9422, 0.9456)),
    Printed(4, "Dezhou", "RMSE", ABLATION, (), (0.0254, 0.0248, 0.0245, 0.0240)),
)
