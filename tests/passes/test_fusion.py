"""Fusion: how many kernels a pattern takes, apart from whether their numbers are right."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import pytest

import graphc as gc
from graphc.dims import Unifier
from graphc.node import Tensor
from graphc.opdef import Kind
from passes.cluster import Cluster
from passes.fuse import MAX_OPS, MAX_POINTERS, fuse
from passes.graph import Graph
from passes.inplace import unit_graph
from passes.lower import lower
from passes.pipeline import optimize
from passes.program import LoopCall, Program
from runtime.fetches import flatten


def graph_of(*fetches: Any) -> Graph:
    return optimize(flatten(list(fetches)).graph)


def lowered(*fetches: Any) -> Program:
    return lower(graph_of(*fetches))


def kernels(*fetches: Any) -> list[str]:
    """The roles of each loop kernel's axes, and the other calls by name."""
    return [c.kernel.roles if isinstance(c, LoopCall) else c.label for c in lowered(*fetches).calls]


def matrix(name: str = "x", shape: tuple[Any, ...] = ("n", "m")) -> Tensor:
    return gc.placeholder(shape, name=name)


# One kernel.


def test_an_elementwise_chain_is_one_kernel() -> None:
    x, y = matrix("x"), matrix("y")
    assert kernels(gc.tanh(gc.exp(x) * y + 1) - y) == ["p"]


def test_a_value_and_its_derivative_share_a_loop() -> None:
    x, v = matrix("x"), matrix("v")
    y = gc.tanh(x * x)
    assert kernels(y, gc.gradients(y, x, v)) == ["p"]


def test_broadcasts_and_views_cost_nothing() -> None:
    x, row, column = matrix(), matrix("row", ("m",)), matrix("column", ("n", 1))
    assert kernels(x * row + column) == ["pp"]
    assert kernels(gc.expand_dims(x.T, 0) * 2) == ["pp"]
    assert kernels(gc.reshape(x * 2, (-1,))) == ["p"]


def test_producers_go_into_the_reduction() -> None:
    assert kernels(gc.sum(gc.exp(matrix()) * 2, 1)) == ["pr"]
    assert kernels(gc.sum(gc.exp(matrix()), 0)) == ["rp", "rp"]


def test_a_reduction_and_its_epilogue_are_one_kernel() -> None:
    x = matrix()
    assert kernels(gc.sqrt(gc.sum(gc.square(x), 1)) + 1) == ["pr"]
    assert kernels(gc.mean(x, 1)) == ["pr"]


def test_softmax_is_one_row_wise_kernel() -> None:
    x = matrix()
    for y in (gc.softmax(x), gc.log_softmax(x), gc.softmax(x * 2) + 1):
        (call,) = lowered(y).calls
        assert isinstance(call, LoopCall)
        assert call.kernel.roles == "pr"
        assert len(call.kernel.stages) == 3
    assert len(kernels(gc.logsumexp(x, 1))) == 1


def test_a_layer_norm_and_its_gradient_are_row_wise() -> None:
    x = matrix()
    centred = x - gc.mean(x, 1, keepdims=True)
    y = centred / gc.sqrt(gc.mean(gc.square(centred), 1, keepdims=True) + 1e-5)
    assert kernels(y) == ["pr"]


def test_full_reductions_are_split_unless_they_are_small() -> None:
    assert kernels(gc.sum(matrix())) == ["r", "r"]
    assert kernels(gc.sum(matrix(shape=(8, 8)))) == ["r"]
    assert kernels(gc.sum(matrix(shape=(1000, 1000)))) == ["r", "r"]
    assert kernels(gc.sum(matrix(), 0)) == ["rp", "rp"]


def test_a_loss_and_its_gradient_take_few_kernels() -> None:
    x, t = matrix("x"), matrix("t")
    loss = gc.mean(gc.square(gc.tanh(x) - t))
    assert len(kernels(loss, gc.gradients(loss, x))) <= 4  # one of them for the single number 2 / count


def test_several_reductions_of_one_input_share_the_loop() -> None:
    x = matrix()
    assert kernels(gc.sum(x, 1), gc.max(x, 1)) in (["pr"], ["pr", "pr"])


# Limits.


def test_a_long_chain_is_cut_and_shares_its_kernels() -> None:
    x = y = matrix()
    for i in range(500):
        y = gc.tanh(y) if i % 2 else y * x
    program = lowered(y)
    assert 500 / MAX_OPS <= len(program.calls) <= 10
    for call in program.calls:
        assert isinstance(call, LoopCall)
        assert len(call.nodes) <= MAX_OPS
        walking = [o for o in call.operands if any(s != 0 for s in o.strides)]
        assert len(walking) <= MAX_POINTERS


def test_a_kernel_has_few_pointers() -> None:
    y = sum((gc.exp(matrix(f"x{i}")) for i in range(60)), start=matrix("y"))
    for call in lowered(y).calls:
        assert isinstance(call, LoopCall)
        walking = [o for o in call.operands if any(s != 0 for s in o.strides)]
        assert len(walking) <= MAX_POINTERS


def test_many_outputs_are_spread_over_kernels() -> None:
    x = matrix()
    outputs = [gc.tanh(x * (i + 2)) for i in range(40)]
    for call in lowered(*outputs, sum(outputs[1:], start=outputs[0])).calls:
        assert isinstance(call, LoopCall)
        walking = [o for o in call.operands if any(s != 0 for s in o.strides)]
        assert len(walking) <= MAX_POINTERS


# Computing again.


def test_a_cheap_node_is_computed_again() -> None:
    x = matrix()
    cheap = x + 1
    product = gc.tanh(cheap) @ gc.tanh(cheap).T
    program = lowered(cheap * gc.sum(product))  # the product stands between two kernels that read x + 1
    assert sum(any(n.op.name == "add" for n in c.nodes) for c in program.calls) > 1
    assert not [b for b in program.buffers if b.kind == "temp" and b.tensor is cheap]


def test_a_costly_node_is_computed_once() -> None:
    x = matrix()
    costly = gc.exp(x)
    program = lowered(gc.sum(costly, 1), gc.sum(costly * 2, 0))
    instructions = [i for c in program.calls if isinstance(c, LoopCall) for i in c.kernel.instructions()]
    assert sum(i.attr == "exp" for i in instructions) == 1


def test_a_long_cheap_chain_is_not_computed_again() -> None:
    x = matrix()
    y = x
    for _ in range(30):
        y = y + 1.5
    program = lowered(gc.sum(y * 2, 1), gc.sum(gc.exp(y), 0))
    adds = [i for c in program.calls if isinstance(c, LoopCall) for i in c.kernel.instructions() if i.attr == "add"]
    assert len(adds) <= 30 + 8


# No circles.


@pytest.mark.parametrize("fetches", [1, 2])
def test_a_kernel_does_not_read_what_it_has_yet_to_store(fetches: int) -> None:
    """The same tensor is read as it is and, as another shape of its memory, at other places."""
    x = matrix("x", (1, "n"))
    y = gc.exp(x)
    z = y + gc.reshape(y, ("n",))
    other = gc.expand_dims(gc.reshape(y * 2, ("n",)), 1) - y
    forms = [z, gc.sum(y * gc.reshape(y, ("n", 1)), 1), other][: 2 * fetches - 1]
    for program in (lowered(*forms), lowered(*forms, y)):
        for call in program.calls:
            assert not set(call.reads) & set(call.writes)
    found = []
    for device in ("cpu", "reference"):
        with gc.Session(device) as session:
            found.append(session.run(forms, {x: [[0.0, 1.0, 2.0]]}))
    for mine, expected in zip(*found, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-6)


def units_are_acyclic(graph: Graph) -> bool:
    wanted = [*graph.outputs, *(a.inputs[1] for a in graph.updates)]
    fused = fuse(graph, Unifier(), [t for t in wanted if t.node.op.kind is not Kind.LEAF])
    made = {t for u in fused.units if isinstance(u, Cluster) for t in u.outputs}

    def root(t: Tensor) -> Tensor:
        while t.node.op.name in ("reshape", "expand_dims", "squeeze") and t not in made:
            t = t.node.inputs[0]
        return t

    return nx.is_directed_acyclic_graph(unit_graph(fused, root))


def test_a_diamond_through_a_product_makes_no_circle() -> None:
    x, w = matrix("x", ("n", 8)), matrix("w", (8, 8))
    h = gc.exp(x)
    for y in (h + h @ w, (h * 2 + h @ w) * h, gc.softmax(h @ w) * h, h @ w @ gc.tanh(h).T):
        assert units_are_acyclic(graph_of(y))
        lowered(y)


def test_a_training_step_makes_no_circle() -> None:
    x = matrix("x", ("n", 8))
    layers = [gc.parameter(np.eye(8, dtype=np.float32), name=f"w{i}") for i in range(4)]
    h = x
    for w in layers:
        h = h + gc.tanh(h @ w)
    loss = gc.sum(gc.log_softmax(h))
    updates = [gc.assign(w, w - 0.1 * g) for w, g in zip(layers, gc.gradients(loss, layers), strict=True)]
    assert units_are_acyclic(graph_of(loss, h, gc.group(*updates)))
    lowered(loss, h, gc.group(*updates))


# Canonical form.


def test_axes_collapse() -> None:
    x, y = matrix("x", ("a", "b", 3, 4)), matrix("y", ("a", "b", 3, 4))
    assert kernels(x * y) == ["p"]
    assert kernels(x * matrix("z", (3, 4))) == ["pp"]
    assert kernels(x * matrix("z", ("a", "b", 1, 1))) == ["pp"]
    assert kernels(x * matrix("z", ("b", 1, 4))) == ["pppp"]
    assert kernels(gc.sum(x, (2, 3))) == ["pr"]
    assert kernels(gc.sum(x, (1, 2))) == ["prp"]
    assert kernels(gc.sum(x, (0, 2))) == ["prrp"]
    assert kernels(gc.permute_dims(x, (2, 3, 0, 1)) + 1) == ["pp"]
    assert kernels(gc.permute_dims(x, (3, 2, 1, 0)) + 1) == ["pppp"]


def test_extents_of_one_are_dropped() -> None:
    assert kernels(matrix("x", (1, "n", 1)) * matrix("y", (1, "n", 1))) == ["p"]
    assert kernels(gc.sum(matrix("x", ("n", 1, 4, 1)), (1, 2))) == ["pr"]
    assert kernels(matrix("x", (1, 1)) * 2) == ["p"]


@pytest.mark.parametrize("axis", [0, 1, None])
def test_kernels_do_not_depend_on_extents(axis: int | None) -> None:
    def digests(batch: int | str) -> list[str]:
        x = gc.placeholder((batch, 100), name="x")
        y = [gc.softmax(x), gc.tanh(x) * x, gc.sum(x, axis) if axis != 0 else gc.sum(x, 0) * 2]
        return [c.kernel.digest for c in lowered(*y).calls if isinstance(c, LoopCall)]

    assert digests(32) == digests(64)
    if axis == 1:
        assert digests(32) == digests("batch")


def test_scalars_are_arguments() -> None:
    x = matrix()
    one, other = (lowered(x * s + 1).calls[0] for s in (0.5, 0.25))
    assert isinstance(one, LoopCall)
    assert isinstance(other, LoopCall)
    assert one.kernel.digest == other.kernel.digest
