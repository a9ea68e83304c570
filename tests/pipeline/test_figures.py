"""Pictures of a comparison are pictures: of the size laid out, not blank, and with the box where the change is."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from marstfn.comparison import Case, Outcome
from marstfn.reference import Reference
from marstfn.scoring import by_case
from pipeline import figures
from pipeline.figures import DPI, SIDE, Box
from pipeline.pixels import Pixels
from tests.pipeline.comparisons import REASON, failing, made, two_groups


def opened(png: bytes) -> Image.Image:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    image = Image.open(io.BytesIO(png))
    image.load()
    return image


def colours(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB"), int)


@pytest.fixture(scope="module")
def date() -> tuple[Case, list[Outcome]]:
    """Three methods, and one that failed."""
    outcomes = [o for o in two_groups() if o.case.name == "2020-07-01"]
    assert outcomes[-1].reason == REASON
    return outcomes[0].case, outcomes


def sampled(outcomes: list[Outcome]) -> Pixels:
    pixels = Pixels()
    for own, methods in by_case(outcomes):
        pixels.add(own, methods)
    return pixels


def width(columns: int) -> int:
    return round((0.1 + columns * (SIDE + 0.07)) * DPI)


def test_images_stand_side_by_side(date: tuple[Case, list[Outcome]]) -> None:
    image = opened(figures.side_by_side(*date))
    assert image.mode == "P"
    assert abs(image.width - width(4)) <= 1  # three inputs and four methods in two lines of four
    assert abs(image.height - (0.62 + 2 * (0.24 + 2 * SIDE + 0.05 + 0.06) + 0.08) * DPI) <= 1
    pixels = colours(image)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    yellow = (pixels[..., 0] > 220) & (np.abs(pixels[..., 1] - 213) < 25) & (pixels[..., 2] < 130)
    assert yellow.sum() > 200


def test_predictions_share_the_stretch_of_the_truth(date: tuple[Case, list[Outcome]]) -> None:
    """A prediction that is the truth is the same picture; one that is brighter is brighter."""
    case, outcomes = date
    truth = np.asarray(case.view.truth)
    pair = [Outcome(case, "same", truth, 0), Outcome(case, "brighter", np.asarray(truth + np.float32(0.1)), 0)]
    pixels = colours(opened(figures.side_by_side(case, pair)))
    # five cells in one line: the truth is the third, then both predictions
    side, step, top = SIDE * DPI, (SIDE + 0.07) * DPI, (0.62 + 0.24) * DPI
    cells = [pixels[int(top) + 4 : int(top + side) - 4, int(0.1 * DPI + k * step) + 4 :][:, :140] for k in (2, 3, 4)]
    assert np.abs(cells[0] - cells[1]).mean() < 12
    assert cells[2].mean() > cells[0].mean() + 25
    assert outcomes


def test_the_box_lies_on_the_largest_change(date: tuple[Case, list[Outcome]]) -> None:
    case, _ = date
    box = figures.largest_change(case)
    assert box.side == 18
    assert (box.row % 3, box.col % 3) == (0, 0)
    rows, cols = box.fine
    # the changed field is rows 30-41, columns 12-23
    assert rows.start <= 30 < 42 <= rows.stop
    assert cols.start <= 12 < 24 <= cols.stop


def test_without_a_known_change_the_box_lies_in_the_middle(date: tuple[Case, list[Outcome]]) -> None:
    case, _ = date
    nothing = Reference.single(np.full_like(case.view.truth, np.nan), 3)
    blind = Case(case.name, case.group, replace(case.view, reference=nothing), case.data, case.simulated)
    assert figures.largest_change(blind) == Box(18, 18, 18)


@pytest.mark.parametrize("figure", [figures.difference_maps, figures.vegetation])
def test_maps_of_errors_show_where_and_with_which_sign(date: tuple[Case, list[Outcome]], figure: object) -> None:
    case, outcomes = date
    shifted = np.array(case.view.truth)
    shifted[3, :27] += 0.1
    shifted[3, 27:] -= 0.02
    png = figure(case, [Outcome(case, "shifted", shifted, 0), *outcomes[1:]])  # type: ignore[operator]
    image = opened(png)
    assert abs(image.width - width(4)) <= 1
    pixels = colours(image)
    top, side = int((0.62 + 0.4) * DPI), int(SIDE * DPI)
    upper = pixels[top + 4 : top + side // 2 - 4, 14 : 14 + side - 8].reshape(-1, 3).mean(0)
    lower = pixels[top + side // 2 + 4 : top + side - 4, 14 : 14 + side - 8].reshape(-1, 3).mean(0)
    channel = 0 if figure is figures.difference_maps else 2
    # too bright is red, too green is green: against the other half, of the other sign
    assert upper[channel] - upper[2 - channel] > lower[channel] - lower[2 - channel] + 20


def test_a_failed_method_leaves_its_maps_grey_and_the_scale_alone(date: tuple[Case, list[Outcome]]) -> None:
    case, outcomes = date
    alone = colours(opened(figures.vegetation(case, outcomes[:3])))
    along = colours(opened(figures.vegetation(case, [*outcomes[:2], failing(case)])))
    top, side = int((0.62 + 0.4) * DPI), int(SIDE * DPI)
    cell = along[top + 4 : top + side - 4, int((0.1 + 2 * (SIDE + 0.07)) * DPI) + 4 :][:, : side - 8]
    grey = np.abs(cell - (217, 222, 227)).max(-1) < 8
    assert grey.mean() > 0.8
    first = (slice(top + 4, top + side - 4), slice(14, 14 + side - 8))
    assert np.abs(alone[first] - along[first]).mean() < 45


def test_scatter_has_a_row_a_method_and_a_column_a_band() -> None:
    outcomes = [o for o in two_groups() if o.case.group == "lands"]
    image = opened(figures.scatter(sampled(outcomes), "lands"))
    assert abs(image.width - (1.2 + 6 * 1.12 + 0.15) * DPI) <= 1
    assert abs(image.height - (0.92 + 4 * 1.12 + 0.5) * DPI) <= 1
    pixels = colours(image)
    green = (pixels[..., 1] > pixels[..., 0] + 25) & (pixels[..., 1] > 100)
    for k in range(6):
        left = int((1.2 + k * 1.12) * DPI)
        assert green[:, left : left + 100].sum() > 100


def test_a_constant_or_hidden_date_is_drawn_without_complaint() -> None:
    outcomes = made("flat", constant=True)
    case = outcomes[0].case
    hidden = replace(case.view, landsat=np.full_like(case.view.landsat, np.nan))
    dark = Case("dark", "flat", hidden, "d", False)
    for held in (case, dark):
        own = [Outcome(held, o.method, o.image, 0) for o in outcomes]
        for png in (figures.side_by_side(held, own), figures.difference_maps(held, own), figures.vegetation(held, own)):
            assert opened(png).width > 300
        assert opened(figures.scatter(sampled(own), "flat")).width > 300
