"""What a picture of a graph shows, before any choice of format: nodes with roles, edges, groups.

Nothing here depends on serial numbers or identities, so that the same program gives the same text, byte for byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphc.dims import Unifier
from graphc.errors import DataError, FetchError
from graphc.gradients import GRADIENT
from graphc.node import Node, Tensor, TensorType
from graphc.opdef import Kind
from graphc.state import PARAMETER, Update
from passes.graph import Graph

STAGES = ("graph", "gradient", "optimized", "kernels")
ROLES = ("placeholder", "parameter", "constant", "forward", "backward", "update")
_LEAF_ROLES = {"placeholder": "placeholder", "parameter": "parameter", "constant": "constant", "extent": "constant"}
_ANONYMOUS = re.compile(r"\?\d+")


@dataclass(frozen=True, slots=True)
class Entry:
    """One node of the picture. ``id`` is ``n0``, ``n1``, ... in topological order."""

    id: str
    node: Node
    role: str
    fetched: bool
    loss: bool

    @property
    def op(self) -> str:
        return self.node.op.name

    @property
    def name(self) -> str | None:
        return self.node.name

    @property
    def where(self) -> str:
        return str(self.node.where)


@dataclass(frozen=True, slots=True)
class Edge:
    """Result ``result`` of node ``source`` is input ``position`` of node ``target``, both indices into the entries."""

    source: int
    result: int
    target: int
    position: int


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes computed by one kernel; members are indices into the entries."""

    id: str
    label: str
    members: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """A graph at one stage of the compiler, ready to be drawn."""

    stage: str
    graph: Graph
    entries: tuple[Entry, ...]
    edges: tuple[Edge, ...]
    groups: tuple[Group, ...]
    index: Mapping[Node, int]


def flatten(fetches: Any) -> Graph:
    """The graph of ``fetches``: tensors, updates, and any nesting of lists, tuples and dicts of them."""
    outputs: dict[Tensor, None] = {}
    updates: dict[Node, None] = {}
    pending: list[tuple[str, Any]] = [("fetches", fetches)]
    while pending:
        place, item = pending.pop()
        if isinstance(item, Tensor):
            outputs[item] = None
        elif isinstance(item, Update):
            updates.update(dict.fromkeys(item))
        elif isinstance(item, Mapping):
            pending += reversed([(f"{place}[{key!r}]", value) for key, value in item.items()])
        elif isinstance(item, (list, tuple)):
            pending += reversed([(f"{place}[{i}]", value) for i, value in enumerate(item)])
        else:
            raise FetchError(
                f"export: {place} is neither a tensor nor an update but {type(item).__name__}; "
                f"pass tensors, updates, or lists, tuples and dicts of them"
            )
    if not outputs and not updates:
        raise FetchError("export: there is nothing to draw: fetches holds no tensor and no update")
    return Graph(tuple(outputs), tuple(updates))


def picture(fetches: Any, stage: str) -> Picture:
    """The graph of ``fetches`` at ``stage``. Raises ``FetchError`` and ``DataError`` (unknown stage)."""
    if stage not in STAGES:
        raise DataError(f"export: stage must be one of {', '.join(map(repr, STAGES))}, got {stage!r}")
    written = flatten(fetches)
    graph, kernels = _at_stage(written, stage)
    return describe(graph, stage, kernels, _losses(written, graph))


def _at_stage(graph: Graph, stage: str) -> tuple[Graph, Sequence[Any]]:
    if stage == "graph":
        return graph, ()
    if stage == "gradient":
        from passes.gradient import expand_gradients

        return expand_gradients(graph), ()
    from passes.pipeline import optimize

    if stage == "optimized":
        return optimize(graph), ()
    return _kernels(graph)


def _kernels(graph: Graph) -> tuple[Graph, Sequence[Any]]:
    from passes.lower import lowered
    from passes.pipeline import optimize

    unifier = Unifier()
    for node in graph.nodes:
        for a, b in node.constraints:
            if b is None:
                continue
            unifier.unify(a, b)
    final, program = lowered(optimize(graph, None, unifier), unifier)
    return final, program.kernels


def _losses(written: Graph, graph: Graph) -> set[Tensor]:
    """What is differentiated: known by its place among the fetches, or because it is still the same tensor."""
    targets = {t for n in written.nodes if n.op is GRADIENT for t in n.inputs[: n.attrs["targets"]]}
    found = {new for old, new in zip(written.outputs, graph.outputs, strict=True) if old in targets}
    present = set(graph.nodes)
    return found | {t for t in targets if t.node in present}


def describe(graph: Graph, stage: str, kernels: Sequence[Any] = (), losses: Iterable[Tensor] = ()) -> Picture:
    """The picture of ``graph``; ``kernels`` have a ``label`` and ``nodes``."""
    nodes = graph.nodes
    index = {node: i for i, node in enumerate(nodes)}
    roles = _roles(graph)
    fetched = {t.node for t in graph.outputs}
    lost = {t.node for t in losses}
    entries = tuple(Entry(f"n{i}", n, roles[n], n in fetched, n in lost) for i, n in enumerate(nodes))
    edges = tuple(
        Edge(index[t.node], t.index, i, position)
        for i, node in enumerate(nodes)
        for position, t in enumerate(node.inputs)
    )
    return Picture(stage, graph, entries, edges, _groups(kernels, index), index)


def _groups(kernels: Sequence[Any], index: Mapping[Node, int]) -> tuple[Group, ...]:
    """One group per kernel. A node recomputed by several kernels is drawn in the first."""
    taken: set[int] = set()
    groups: list[Group] = []
    for number, kernel in enumerate(kernels):
        members = [index[n] for n in dict.fromkeys(kernel.nodes) if n in index]
        own = tuple(sorted(i for i in members if i not in taken))
        taken.update(own)
        if own:
            groups.append(Group(f"k{number}", str(kernel.label), own))
    return tuple(groups)


def _roles(graph: Graph) -> dict[Node, str]:
    """The role of each node.

    What an optimiser built belongs to the update, and so does arithmetic between a gradient and its ``assign``.
    """
    roles: dict[Node, str] = {}
    after_backward: set[Node] = set()
    for node in graph.nodes:
        derived = node.op is GRADIENT or node.role == "backward"
        roles[node] = (
            "update" if node.op.kind is Kind.UPDATE
            else _LEAF_ROLES.get(node.op.name)
            or ("backward" if derived else "update" if node.role == "update" else "forward")
        )  # fmt: skip
        if roles[node] == "backward" or any(t.node in after_backward for t in node.inputs):
            after_backward.add(node)
    fetched = {t.node for t in graph.outputs}
    for node in reversed(graph.nodes):
        if roles[node] == "forward" and node in after_backward and node not in fetched:
            readers = [r for t in node.outputs for r in graph.readers[t]]
            if readers and all(roles[r] == "update" for r in readers):
                roles[node] = "update"
    return roles


def is_leaf(node: Node) -> bool:
    """Whether the user gives the value: a placeholder or a parameter."""
    return node.op is PARAMETER or node.op.name == "placeholder"


def type_text(type_: TensorType) -> str:
    """``float32[batch, 128]``; an extent without a name is ``?``."""
    extents = ", ".join(_ANONYMOUS.sub("?", str(e)) for e in type_.shape)
    return f"{type_.dtype}[{extents}]"


class ShapeNamer:
    """Shapes as lists of ints and strings; extents without a name become ``?0``, ``?1``, ... in order of appearance."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def __call__(self, shape: Iterable[Any]) -> list[int | str]:
        return [e if isinstance(e, int) else _ANONYMOUS.sub(self._rename, str(e)) for e in shape]

    def _rename(self, match: re.Match[str]) -> str:
        return self._names.setdefault(match.group(), f"?{len(self._names)}")
