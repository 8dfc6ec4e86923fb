"""What the layout works on: rectangles and the arrows between them, without any meaning."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Point = tuple[float, float]


@dataclass(slots=True)
class Cell:
    """A rectangle. In band 0 arrows enter at the top and leave at the bottom; in band 1 the other way round.

    Arrows along the heaviest path are drawn straight before others. ``pin`` keeps it in a first or last row of its
    own. ``near``, for a cell without arrows, names some among which it stands. ``enter`` and ``leave`` fix where an
    arrow's key meets the border, as an offset from the left side; otherwise the layout chooses.
    """

    width: float
    height: float
    band: int = 0
    weight: float = 1.0
    pin: Literal["first", "last"] | None = None
    near: tuple[int, ...] = ()
    enter: Mapping[Hashable, float] = field(default_factory=dict)
    leave: Mapping[Hashable, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Arrow:
    """From cell to cell. Arrows of one ``key`` (and source) share their way.

    ``seed`` pulls its ends to the same row.
    """

    source: int
    target: int
    key: Hashable
    seed: bool = False


@dataclass(slots=True)
class Placement:
    """Left top corners of the cells, a polyline with axis-parallel pieces per arrow, and the size of it all.

    ``bands`` holds left, top, right and bottom of each band that has cells.
    """

    corners: list[Point]
    routes: list[list[Point]]
    width: float
    height: float
    bands: dict[int, tuple[float, float, float, float]]
