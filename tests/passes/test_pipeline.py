"""The tensor passes one by one: what each rule makes of a graph, and that the numbers stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rewrite_checks import graph_of, run, same_bits

import graphc as gc
from graphc.dims import Unifier
from graphc.errors import CompilerError
from graphc.node import Node, Tensor, attrs_of
from graphc.opdef import Kind
from passes import pipeline
from passes.cse import eliminate_common_subexpressions
from passes.decompose import decompose
from passes.graph import Graph
from passes.options import CompileOptions
from runtime.fetches import flatten

SPECIAL = np.array([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, np.nan, 1e-40, -3e38, 7.0], np.float32)


def vector() -> Tensor:
    return gc.placeholder((len(SPECIAL),), name="x")


# Common subexpressions.


def merged(a: Tensor, b: Tensor) -> bool:
    left, right = eliminate_common_subexpressions(graph_of(a, b)).outputs
    return left is right


def test_cse_merges_equal_nodes() -> None:
    x, y = gc.placeholder((2, 2), name="x"), gc.placeholder((2, 2), name="y")
    assert merged(gc.exp(x) + y, gc.exp(x) + y)
    assert merged(x + y, y + x)
    assert merged(gc.maximum(x, y), gc.maximum(y, x))
    assert merged(gc.sum(x, 0), gc.sum(x, 0))
    assert not merged(x - y, y - x)
    assert not merged(gc.sum(x, 0), gc.sum(x, 1))
    assert not merged(gc.sum(x, 0), gc.sum(x, 0, keepdims=True))
    assert not merged(gc.sum(x, 0), gc.max(x, 0))
    assert not merged(x.astype("int32"), x.astype("int64"))
    assert not merged(gc.arange(3), gc.arange(3, "int32"))
    assert merged(gc.arange("n"), gc.arange("n"))
    assert not merged(gc.arange("n"), gc.arange("m"))


def test_cse_compares_constants_by_type_and_bits() -> None:
    def constant(value: Any, dtype: str = "float32") -> Tensor:
        return gc.constant(np.asarray(value, dtype))

    assert merged(constant(1), constant(1))
    assert merged(constant(np.nan), constant(np.nan))
    assert not merged(constant(0.0), constant(-0.0))
    assert not merged(constant(0), constant(0, "int32"))
    assert not merged(constant(0), constant(0, "float64"))
    assert not merged(constant([1.0, 2.0]), constant([[1.0, 2.0]]))
    x = vector()
    same_bits(
        run([1 / (x * 0.0), 1 / (x * -0.0)], {x: SPECIAL}),
        run([1 / (x * 0.0), 1 / (x * -0.0)], {x: SPECIAL}, "reference"),
    )


def test_cse_compares_attributes_by_type() -> None:
    x = gc.placeholder((2,), name="x")
    exp = gc.exp(x).node
    one, other = (exp.rebuilt((x,), attrs_of(k=k)) for k in (0, 0.0))
    assert not merged(one.outputs[0], other.outputs[0])


def test_cse_leaves_parameters_and_placeholders_apart() -> None:
    p, q = (gc.parameter(np.ones(2, np.float32), name=n) for n in "pq")
    x, y = gc.placeholder((2,)), gc.placeholder((2,))
    assert not merged(p + 1, q + 1)
    assert not merged(x + 1, y + 1)


def test_cse_leaves_updates_alone() -> None:
    p, q = (gc.parameter(np.ones(2, np.float32), name=n) for n in "pq")
    graph = eliminate_common_subexpressions(flatten(gc.group(gc.assign(p, q * 2), gc.assign(q, q * 2))).graph)
    assert len(graph.updates) == 2
    assert graph.updates[0].inputs[1] is graph.updates[1].inputs[1]


# Composites.


def test_decompose() -> None:
    x = gc.placeholder((2, 3), name="x")
    graph = decompose(graph_of(gc.softmax(x), gc.log_softmax(x), gc.logsumexp(x, 0), gc.one_hot(gc.argmax(x, 1), 3)))
    assert not [n for n in graph.nodes if n.op.kind is Kind.COMPOSITE]
    assert [o.type for o in graph.outputs] == [o.type for o in (x, x, gc.sum(x, 0), x)]
    assert {n.where.line for n in graph.nodes if n.op.name == "exp"} == {graph.outputs[0].node.where.line}


# The runner: verification, names, dumps.


def broken(change: Callable[[Node], Node | None]) -> Callable[[Graph], Graph]:
    """A pass that replaces the outputs by nodes that ``change`` makes of theirs."""

    def function(graph: Graph) -> Graph:
        made = [change(t.node) for t in graph.outputs]
        return Graph(tuple(t if n is None else n.outputs[0] for n, t in zip(made, graph.outputs, strict=True)))

    return function


def wrong_dtype(node: Node) -> Node:
    other = gc.placeholder(node.inputs[0].shape, "float64", name="wide")
    return node.rebuilt((node.inputs[0], other))


def wrong_shape(node: Node) -> Node:
    return node.rebuilt((node.inputs[0], gc.placeholder((5,), name="longer")))


def wrong_result(node: Node) -> Node:
    results = gc.placeholder((4,)).node.results
    return Node(node.op, node.inputs, node.attrs, results, name=None, where=node.where, role="forward", body=None)


@pytest.mark.parametrize("change", [wrong_dtype, wrong_shape, wrong_result])
def test_the_verifier_names_a_broken_pass(change: Callable[[Node], Node], monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [*pipeline.PASSES[:3], pipeline.Pass("sabotage", broken(change)), *pipeline.PASSES[3:]]
    monkeypatch.setattr(pipeline, "PASSES", tuple(steps))
    y = gc.exp(gc.placeholder((3,), name="x")) + gc.placeholder((3,), name="y")
    with pytest.raises(CompilerError) as error:
        pipeline.optimize(graph_of(y), CompileOptions(verify=True))
    text = str(error.value)
    assert "after pass 'sabotage'" in text
    assert "test_pipeline.py" in text
    marked = [line for line in text.splitlines() if line.startswith("  > ")]
    assert len(marked) == 1
    assert "add" in marked[0]
    assert "exp(" in text


def test_the_verifier_accepts_what_may_hold() -> None:
    x, y = gc.placeholder(("n", 3), name="x"), gc.placeholder(("m", 3), name="y")
    pipeline.optimize(graph_of(x + y), CompileOptions(verify=True), Unifier())


def test_a_pass_that_raises_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(graph: Graph) -> Graph:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(pipeline, "PASSES", (*pipeline.PASSES[:2], pipeline.Pass("bad", fail)))
    with pytest.raises(CompilerError, match=r"pass 'bad' failed \(passes done: stabilise, gradients\): oh") as error:
        pipeline.optimize(graph_of(gc.placeholder((3,)) + 1))
    assert isinstance(error.value.__cause__, ZeroDivisionError)


def test_dump_writes_a_file_for_every_pass(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_DUMP", str(tmp_path / "dump"))
    x = gc.placeholder((3,), name="x")
    with gc.Session() as session:
        session.run(gc.gradients(gc.sum(gc.softmax(x) * x), x), {x: np.ones(3)})
    files = sorted(p.name for p in (tmp_path / "dump").iterdir())
    assert files == ["00-written.txt", *(f"{i:02d}-{p.name}.txt" for i, p in enumerate(pipeline.PASSES, 1))]
    texts = {f: (tmp_path / "dump" / f).read_text() for f in files}
    assert "gradient(" in texts["01-stabilise.txt"]
    assert "gradient(" not in texts["02-gradients.txt"]
    assert "softmax(" in texts["02-gradients.txt"]
    assert "softmax(" not in texts["05-decompose.txt"]
    assert all("fetch %" in t for t in texts.values())
