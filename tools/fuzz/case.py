"""A case: a program with the arrays it is fed, run after run. What is drawn, checked, shrunk and printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from graphc.dims import Dim, Extent, Symbol, evaluate
from graphc.errors import GraphcError
from graphc.node import Node, Tensor, make_node
from graphc.ops.leaf import PLACEHOLDER
from graphc.state import PARAMETER, Update
from passes.gradient import without_idle_rules
from passes.graph import Graph
from runtime.feeds import FeedPlan

Array = np.ndarray[Any, Any]
Feeds = Mapping[Tensor, Array]


@dataclass(frozen=True)
class Case:
    """Fetched tensors and update nodes, and what every run is fed.

    ``values`` are values of parameters to start from, in place of their own. With ``sharing`` work is shared among
    threads however small it is.
    """

    outputs: tuple[Tensor, ...]
    updates: tuple[Node, ...]
    runs: tuple[Feeds, ...]
    values: Mapping[Tensor, Array] = field(default_factory=dict)
    sharing: bool = False

    @cached_property
    def graph(self) -> Graph:
        return Graph(self.outputs, self.updates)

    @property
    def fetches(self) -> list[Any]:
        """What is given to ``Session.run``."""
        return [*self.outputs, *([Update(self.updates)] if self.updates else [])]

    @cached_property
    def placeholders(self) -> tuple[Tensor, ...]:
        return tuple(n.outputs[0] for n in self.graph.nodes if n.op is PLACEHOLDER)

    @cached_property
    def parameters(self) -> tuple[Tensor, ...]:
        return tuple(n.outputs[0] for n in self.graph.nodes if n.op is PARAMETER)

    @property
    def computed(self) -> Graph:
        """The graph without what no fetch needs, as a session has it: that may have extents which no feed binds."""
        return without_idle_rules(self.graph)

    def extents(self, run: int) -> dict[Symbol, int]:
        """Values of the symbolic extents in a run; raises what the run would raise."""
        plan = FeedPlan(self.computed.nodes)
        arrays, extras = plan.resolve(self.runs[run])
        return plan.bind(tuple(a.shape for a in arrays), extras)

    def with_tensors(self, replaced: Mapping[Tensor, Tensor]) -> Case:
        """The same program with other tensors in place of some; the types of what reads them are inferred again.

        Raises ``GraphcError`` where a reader does not take its new input.
        """
        known = dict(replaced)
        updates = []
        for node in self.graph.nodes:
            inputs = [known.get(t, t) for t in node.inputs]
            same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            fresh = node if same else make_node(node.op, inputs, node.attrs, node.name)
            if node.op.name == "assign":
                updates.append(fresh)
            for old, new in zip(node.outputs, fresh.outputs, strict=True):
                known.setdefault(old, new)
        outputs = tuple(known.get(t, t) for t in self.outputs)
        return replace(self, outputs=outputs, updates=tuple(updates))


def holds(case: Case, run: int) -> bool:
    """Whether the feeds of a run satisfy all that the program asks of extents."""
    try:
        extents = case.extents(run)
        for node in case.computed.nodes:
            for result in node.results:
                numbers(result.shape, extents)
    except (GraphcError, ValueError):
        return False
    return True


def numbers(shape: Sequence[Extent], extents: Mapping[Symbol, int]) -> tuple[int, ...]:
    return tuple(evaluate(e, extents) for e in shape)


def is_static(shape: Sequence[Extent]) -> bool:
    return not any(isinstance(e, Dim) for e in shape)
