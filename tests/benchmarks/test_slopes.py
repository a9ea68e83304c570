"""A growth is found where there is one, and its interval is honest about disturbances."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import linregress
from scipy.stats import t as student

from benchmarks import slopes


def test_a_slope_is_found_where_there_is_one_and_not_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(100, 3, 400)
    noise[::37] *= 4  # a few tiles that something else disturbed
    flat, rising = slopes.trend(noise), slopes.trend(noise + np.linspace(0, 8, 400))
    assert flat.flat
    assert not rising.flat
    assert rising.gain == pytest.approx(8, abs=1.5)
    assert (flat.high - flat.low) / flat.mean < 0.05
    gain, width = slopes.figures("x", slopes.trend(noise.tolist()), "ms", 0.1)
    assert gain.met
    assert width.met


def test_a_common_trend_is_that_of_least_squares() -> None:
    values = np.random.default_rng(4).normal(0, 1, (1, 12)) + np.linspace(0, 3, 12)
    found, line = slopes.common(values), linregress((np.arange(12) + 0.5) / 12, values[0])
    assert found.gain == pytest.approx(line.slope)
    assert found.high - found.gain == pytest.approx(student.ppf(0.975, 10) * line.stderr)
    apart = slopes.common(np.vstack([values, values + 5]))
    assert apart.gain == pytest.approx(line.slope), "a round's own level is no slope"


def test_the_interval_of_a_slope_is_the_wider_the_longer_a_disturbance_lasts() -> None:
    rng = np.random.default_rng(2)
    lasting = 100 + lfilter([1], [1, -0.97], rng.normal(0, 1, 300))[100:]
    widths = []
    for values in (lasting, rng.permutation(lasting)):
        found = slopes.trend(values)
        widths.append(found.high - found.low)
    # the integrated autocorrelation is 65 measures, of which a quarter of the run is seen: 50
    assert widths[0] > 2 * widths[1]
    assert slopes.trend([5.0] * 50).flat
