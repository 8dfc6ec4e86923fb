"""Initialisers: the range of what they draw, in the dtype of the parameter, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from graphc import init
from graphc.errors import ArgumentError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 1.0000001), (1.0, 1.0 + 2**-22), (3, 3)])
def test_uniform_stays_below_high(low: float, high: float, dtype: str) -> None:
    """In the dtype itself, where rounding reaches high: in half of all draws if low and high are neighbours."""
    drawn = init.uniform(low, high)((1000,), np.dtype(dtype), RNG)
    start, end = np.dtype(dtype).type(low), np.dtype(dtype).type(high)
    assert drawn.dtype == dtype
    assert np.all((start <= drawn) & ((drawn < end) | (start == end)))


def test_uniform_takes_every_value_of_a_coarse_range_equally_often() -> None:
    """Four neighbours of float32: rounding gives low half of a gap, and high the other half, which low takes."""
    step = 2.0**-23
    drawn = init.uniform(1.0, 1.0 + 4 * step)((40000,), np.dtype("float32"), RNG)
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [1 + k * step for k in range(4)]
    assert np.all(np.abs(counts - 10000) < 5 * math.sqrt(40000 * 3 / 16))


def test_uniform_of_integers_rounds_down() -> None:
    drawn = init.uniform(0, 2.5)((1000,), np.dtype("int32"), RNG)
    assert sorted(set(drawn.tolist())) == [0, 1, 2]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: init.normal(0, -1), "init.normal: std must be at least 0, got -1"),
        (lambda: init.normal(0, math.nan), "init.normal: std must be at least 0, got nan"),
        (lambda: init.uniform(1, 0), "init.uniform: low must not exceed high, got low=1 and high=0"),
        (lambda: init.uniform(math.nan, 0), "init.uniform: low must not exceed high"),
        (lambda: init.uniform(-1e308, 1e308), "init.uniform: high - low must be finite"),
        (lambda: init.uniform(0, math.inf), "init.uniform: high - low must be finite"),
    ],
)
def test_what_is_refused(make: Any, text: str) -> None:
    with pytest.raises(ArgumentError) as error:
        make()
    assert text in str(error.value)
