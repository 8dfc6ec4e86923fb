"""A graph as text: one node a line, with type, inputs and the user's line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.node import Node, Tensor
from graphc.opdef import Kind
from passes.graph import Graph


def print_graph(graph: Graph) -> str:
    """The whole graph, and what is fetched."""
    names = {node: i for i, node in enumerate(graph.nodes)}
    lines = [print_node(node, names) for node in graph.nodes]
    lines.append("fetch " + ", ".join(_name(t, names) for t in graph.outputs))
    return "\n".join(lines) + "\n"


def print_window(nodes: Sequence[Node], around: Node, radius: int = 4) -> str:
    """The nodes near one of them, which is marked."""
    names = {node: i for i, node in enumerate(nodes)}
    place = names[around]
    shown = nodes[max(0, place - radius) : place + radius + 1]
    return "\n".join(("  > " if n is around else "    ") + print_node(n, names) for n in shown)


def print_node(node: Node, names: dict[Node, int]) -> str:
    """``%3 = multiply(%1, %2) : float32[2, 2]  # file.py:4``."""
    inputs = ", ".join(_name(t, names) for t in node.inputs)
    told = {"initial"} | ({"shape", "dtype"} if node.op.kind is Kind.LEAF else set())  # what the type says already
    attrs = "".join(f" {k}={_attr(v)}" for k, v in sorted(node.attrs.items()) if k not in told)
    types = ", ".join(str(t) for t in node.results) or "()"
    label = f" {node.name!r}" if node.name else ""
    return f"%{names[node]} = {node.op.name}{label}({inputs}){attrs} : {types}  # {node.where}"


def _name(tensor: Tensor, names: dict[Node, int]) -> str:
    number = names.get(tensor.node)
    base = f"%{number}" if number is not None else f"%?{tensor.node.label}"
    return base if len(tensor.node.results) == 1 else f"{base}.{tensor.index}"


def _attr(value: object) -> str:
    if isinstance(value, np.ndarray):
        return str(value.item()) if value.size == 1 else f"<{value.dtype}{list(value.shape)}>"
    return str(value)
