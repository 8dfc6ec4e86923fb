"""Programs whose runs are examined: the base of ``check_numerics`` and of the debug mode."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.dims import Symbol
from graphc.node import Tensor
from passes import program as lowered
from passes.graph import Graph
from passes.waves import Steps
from runtime.profile import Timings
from runtime.reference import leaf_values
from runtime.store import ParameterStore, write_together

if TYPE_CHECKING:
    from runtime.session import Program

Array = np.ndarray[Any, Any]


class GuardedProgram:
    """Another program, shown as it is but for its runs."""

    again = None  # every run is looked at

    def __init__(self, inner: Program, graph: Graph, placeholders: Sequence[Tensor], store: ParameterStore) -> None:
        self._inner = inner
        self._placeholders = placeholders
        self._store = store
        self._updated = [a.inputs[0] for a in graph.updates]
        self.runs = 0

    @property
    def kernels(self) -> Sequence[Any]:
        return self._inner.kernels

    @property
    def program(self) -> lowered.Program | None:
        return self._inner.program

    def sizes(self, values: Mapping[Symbol, int]) -> Mapping[int, int]:
        return self._inner.sizes(values)

    def steps(self, values: Mapping[Symbol, int]) -> Steps:
        return self._inner.steps(values)

    def scratch(self, values: Mapping[Symbol, int]) -> int:
        return self._inner.scratch(values)

    def run(self, values: Mapping[Symbol, int], feeds: Sequence[Array], steps: int = 1) -> list[Any]:
        """Outputs of the last of ``steps`` runs, each of which is examined."""
        outputs: list[Any] = []
        for step in range(steps):
            if step and self._store.cancel:
                break
            outputs = self.run_once(values, feeds)
            self.runs += 1
        return outputs

    def run_once(self, values: Mapping[Symbol, int], feeds: Sequence[Array]) -> list[Any]:
        """Outputs of one run."""
        raise NotImplementedError

    def profile(self, values: Mapping[Symbol, int], feeds: Sequence[Array], steps: int) -> Timings:
        return self._inner.profile(values, feeds, steps)

    def leaves(self, graph: Graph, feeds: Sequence[Array]) -> dict[Tensor, Array]:
        """Feeds and parameters as they are before the run, in memory that the run does not write."""
        found = leaf_values(graph, self._placeholders, feeds, self._store)
        return found | {p: found[p].copy() for p in self._updated if p in found}

    @contextlib.contextmanager
    def restoring(self) -> Iterator[None]:
        """Parameters and the run counter keep their values if the block raises."""
        arrays = [self._store.counter, *(self._store.array(p) for p in self._updated)]
        before = [a.copy() for a in arrays]
        try:
            yield
        except BaseException:
            write_together(arrays, before)
            raise
