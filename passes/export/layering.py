"""Layering: the row of each cell.

Rows come from the linear program of E. Gansner, E. Koutsofios, S. North and K.-P. Vo, "A technique for drawing
directed graphs", IEEE Trans. Softw. Eng. 19, 1993, section 2: arrows point to a later row, and the total length of
all arrows is least. Here the backward half points to earlier rows, and an arrow from one half to the other has no
direction, only a length, so that a derivative is drawn beside the op it belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from passes.export.cells import Arrow, Cell

_PROGRAM_LIMIT = 6000  # above that many cells the longest path decides alone


def layer(cells: Sequence[Cell], arrows: Sequence[Arrow]) -> tuple[list[int], list[bool]]:
    """Row of each cell, the first being 0; and which arrows are loose: across bands, or against the flow."""
    steps = _flow(cells, arrows)
    against = _back_steps(len(cells), steps)
    loose = [step is None or i in against for i, step in enumerate(steps)]
    down = [step for i, step in enumerate(steps) if step is not None and not loose[i]]
    ties = [(a.source, a.target, 4.0 if a.seed else 1.0) for a, free in zip(arrows, loose, strict=True) if free]
    rows = _least_length(len(cells), down, ties) if len(cells) <= _PROGRAM_LIMIT else _longest_path(len(cells), down)
    rows = _from_zero(rows, down, ties)
    return _pinned(cells, _near(cells, rows)), loose


def _flow(cells: Sequence[Cell], arrows: Sequence[Arrow]) -> list[tuple[int, int] | None]:
    """For each arrow its (upper, lower) cell, or None between bands."""
    found: list[tuple[int, int] | None] = []
    for arrow in arrows:
        if cells[arrow.source].band != cells[arrow.target].band or arrow.source == arrow.target:
            found.append(None)
        else:
            ends = (arrow.source, arrow.target)
            found.append(ends if cells[arrow.source].band == 0 else ends[::-1])
    return found


def _back_steps(count: int, steps: Sequence[tuple[int, int] | None]) -> set[int]:
    """Steps that close a cycle, by an iterative depth-first search.

    Graphs have none; kernels drawn as one cell may.
    """
    leaving: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for i, step in enumerate(steps):
        if step is not None:
            leaving[step[0]].append((step[1], i))
    state = [0] * count
    back: set[int] = set()
    for root in range(count):
        stack = [(root, 0)] if not state[root] else []
        while stack:
            cell, position = stack.pop()
            state[cell] = 1
            if position == len(leaving[cell]):
                state[cell] = 2
                continue
            stack.append((cell, position + 1))
            lower, i = leaving[cell][position]
            if state[lower] == 1:
                back.add(i)
            elif not state[lower]:
                stack.append((lower, 0))
    return back


def _longest_path(count: int, down: Sequence[tuple[int, int]]) -> list[int]:
    """Each cell as early as its upper neighbours allow."""
    lower: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for u, v in down:
        lower[u].append(v)
        waiting[v] += 1
    rows = [0] * count
    ready = [c for c in range(count) if not waiting[c]]
    for cell in ready:
        for other in lower[cell]:
            rows[other] = max(rows[other], rows[cell] + 1)
            waiting[other] -= 1
            if not waiting[other]:
                ready.append(other)
    return rows


def _least_length(count: int, down: Sequence[tuple[int, int]], ties: Sequence[tuple[int, int, float]]) -> list[int]:
    """The linear program; its matrix is totally unimodular, so that a vertex is integral."""
    if not down and not ties:
        return [0] * count
    from scipy.optimize import linprog
    from scipy.sparse import csr_matrix

    variables = count + len(ties)  # rows, then the length of each tie
    cost = np.zeros(variables)
    entries: list[tuple[int, int, float]] = []
    limits: list[float] = []
    for u, v in dict.fromkeys(down):
        cost[v] += 1
        cost[u] -= 1
        entries += [(len(limits), u, 1.0), (len(limits), v, -1.0)]
        limits.append(-1.0)
    for k, (u, v, weight) in enumerate(ties):
        cost[count + k] = weight
        for sign in (1.0, -1.0):
            entries += [(len(limits), u, sign), (len(limits), v, -sign), (len(limits), count + k, -1.0)]
            limits.append(0.0)
    line, column, value = (np.array(part) for part in zip(*entries, strict=True))
    matrix = csr_matrix((value, (line, column)), shape=(len(limits), variables))
    solved = linprog(cost, A_ub=matrix, b_ub=limits, bounds=(0, None), method="highs-ds")
    if solved.status != 0:
        return _longest_path(count, down)
    return [round(r) for r in solved.x[:count]]


def _from_zero(rows: list[int], down: Sequence[tuple[int, int]], ties: Sequence[tuple[int, int, float]]) -> list[int]:
    """Each connected part starts in row 0: the program leaves its place open."""
    parent = list(range(len(rows)))

    def root(cell: int) -> int:
        while parent[cell] != cell:
            parent[cell] = parent[parent[cell]]
            cell = parent[cell]
        return cell

    for u, v in [*down, *((u, v) for u, v, _ in ties)]:
        parent[root(u)] = root(v)
    first: dict[int, int] = {}
    for cell, row in enumerate(rows):
        part = root(cell)
        first[part] = min(first.get(part, row), row)
    return [row - first[root(cell)] for cell, row in enumerate(rows)]


def _near(cells: Sequence[Cell], rows: list[int]) -> list[int]:
    """A cell without arrows stands where there is most room: in a row of those it is near, or one before them."""
    rows = list(rows)
    for c, cell in enumerate(cells):
        if not cell.near:
            continue
        around = [rows[other] for other in cell.near]
        before = (min(around) - 1, max(around)) if cell.band == 0 else (min(around), max(around) + 1)
        filled = dict.fromkeys(range(max(before[0], 0), min(before[1], max(rows)) + 1), 0.0)
        for other, row in enumerate(rows):
            if other != c and row in filled and cells[other].band == cell.band:
                filled[row] += cells[other].width
        rows[c] = min(filled, key=lambda row: (filled[row], row))
    return rows


def _pinned(cells: Sequence[Cell], rows: list[int]) -> list[int]:
    """Cells pinned to the first or last row get one for themselves."""
    inner = [row for cell, row in zip(cells, rows, strict=True) if cell.pin is None]
    low, high = min(inner, default=0), max(inner, default=0)
    place = {"first": low - 1, "last": high + 1}
    rows = [row if cell.pin is None else place[cell.pin] for cell, row in zip(cells, rows, strict=True)]
    start = min(rows, default=0)
    return [row - start for row in rows]
