"""Random programs that update what they read: on the CPU the same numbers as by the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import IndexRangeError

F32 = np.float32


class Random:
    """A random graph of parameters, updates and fetches. Values are small whole numbers, so that sums are exact."""

    SHAPES = ((4,), (3, 4), (4, 4), (), (3, 1))

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.params = [
            graphc.parameter(self.rng.integers(-2, 3, self.pick(self.SHAPES)).astype(F32), name=f"p{i}")
            for i in range(self.rng.integers(1, 5))
        ]
        self.x = graphc.placeholder((None, 4), name="x")
        self.labels = graphc.placeholder((self.x.shape[0],), "int64", name="labels")
        self.pool: list[graphc.Tensor] = [*self.params, self.x, graphc.one_hot(self.labels, 4)]
        for _ in range(self.rng.integers(1, 12)):
            self.pool.append(self.grown())
        updated = [p for p in self.params if self.rng.random() < 0.8]
        new: list[tuple[graphc.Tensor, graphc.Tensor]] = []
        for p in updated:
            shared = [v for _, v in new if v.shape == p.shape and self.rng.random() < 0.3]
            new.append((p, self.pick(shared) if shared else self.fitted(self.pick(self.pool[-6:]), p)))
        self.updates = [graphc.assign(p, v) for p, v in new]
        self.fetches = [t for t in [*self.pool, *(v for _, v in new)] if self.rng.random() < 0.2]

    def pick(self, items: Any) -> Any:
        return items[self.rng.integers(len(items))]

    def small(self, t: graphc.Tensor) -> graphc.Tensor:
        """Kept within -4 to 4, so that nothing grows beyond what float32 holds exactly."""
        return graphc.minimum(graphc.maximum(t, -4.0), 4.0)

    def grown(self) -> graphc.Tensor:
        a, b = self.pick(self.pool), self.pick(self.pool)
        kind = self.rng.integers(7)
        if kind == 0 and a.ndim:
            return self.small(graphc.sum(a, axis=int(self.rng.integers(a.ndim)), keepdims=bool(self.rng.integers(2))))
        if kind == 1 and a.ndim:
            return graphc.max(a, axis=int(self.rng.integers(a.ndim)))
        if kind == 2 and a.ndim == 2:
            return a.T
        if kind == 3 and a.ndim == 2 and b.ndim == 2 and a.shape[1] == b.shape[0]:
            return self.small(a @ b)
        if kind == 4:
            return self.small(graphc.sum(a))
        if all(m == n or 1 in (m, n) for m, n in zip(a.shape[::-1], b.shape[::-1], strict=False)):
            return self.small(self.pick((graphc.add, graphc.subtract, graphc.multiply, graphc.maximum))(a, b))
        return self.small(a * self.pick((2.0, -1.0)) + 1.0)

    def fitted(self, t: graphc.Tensor, p: graphc.Tensor) -> graphc.Tensor:
        """A value of the shape of ``p`` made of ``t`` and, mostly, of ``p``."""
        value = t
        if t.shape != p.shape:
            while value.ndim:
                value = self.small(graphc.sum(value, axis=0))
            value = graphc.broadcast_to(value, p.shape)
        return self.pick((lambda: value, lambda: p - value, lambda: value + p, lambda: self.small(p * 2.0 + value)))()

    def feeds(self, rows: int) -> dict[graphc.Tensor, np.ndarray]:
        rng = np.random.default_rng(rows)
        return {self.x: rng.integers(-2, 3, (rows, 4)).astype(F32), self.labels: rng.integers(0, 4, rows)}

    def outcome(self, session: graphc.Session) -> list[np.ndarray]:
        """Everything fetched and all parameters after each of three runs."""
        found: list[np.ndarray] = []
        for rows in (2, 9001, 1, 5):
            found += session.run([self.fetches, self.updates], self.feeds(rows))[0]
            found += [session.get(p) for p in self.params]
            for p in self.params:
                session.set(p, np.clip(session.get(p), -3, 3))
        return found


@pytest.mark.parametrize("seed", range(30))
def test_random_updates_agree_with_the_reference(seed: int) -> None:
    """Old values read by other kernels, shared values, views and products of parameters: the same numbers exactly."""
    graph = Random(seed)
    with graphc.Session(threads=2) as session, graphc.Session(device="reference") as reference:
        for got, expected in zip(graph.outcome(session), graph.outcome(reference), strict=True):
            np.testing.assert_array_equal(got, expected)
        before = [session.get(p) for p in graph.params]
        try:  # a bad index, where an index is needed: nothing has happened
            session.run([graph.fetches, graph.updates], {**graph.feeds(3), graph.labels: [0, 4, 1]})
        except IndexRangeError:
            for p, value in zip(graph.params, before, strict=True):
                np.testing.assert_array_equal(session.get(p), value)
