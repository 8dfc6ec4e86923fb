"""The tensor passes one by one: what each rule makes of a graph, and that the numbers stay what they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import ops
from graphc.dims import Unifier
from graphc.errors import CompilerError, IndexRangeError
from graphc.node import Node, Tensor, attrs_of
from graphc.opdef import Kind
from passes import pipeline
from passes.cse import eliminate_common_subexpressions
from passes.decompose import decompose
from passes.fold import LIMIT, fold_constants
from passes.gemm import fuse_updates
from passes.graph import Graph
from passes.options import CompileOptions
from passes.simplify import simplify
from runtime.fetches import flatten

SPECIAL = np.array([0.0, -0.0, 1.5, -2.0, np.inf, -np.inf, np.nan, 1e-40, -3e38, 7.0], np.float32)


def graph_of(*fetches: Any) -> Graph:
    return flatten(list(fetches)).graph


def counts(graph: Graph) -> Counter[str]:
    return Counter(n.op.name for n in graph.nodes)


def run(fetches: Any, feeds: dict[Tensor, Any], device: str = "cpu") -> Any:
    with np.errstate(all="ignore"), gc.Session(device) as session:
        return session.run(fetches, feeds)


def same_bits(found: Any, expected: Any) -> None:
    """Equal, NaN for NaN, and with the signs of zeros."""
    np.testing.assert_array_equal(found, expected)
    here = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found)[here], np.signbit(expected)[here])


def vector() -> Tensor:
    return gc.placeholder((len(SPECIAL),), name="x")


# Simplification: structure, and every bit of special values.

UNARY_RULES: dict[str, tuple[Callable[[Tensor], Tensor], str | None]] = {
    "x * 1": (lambda x: x * 1, None),
    "1 * x": (lambda x: 1 * x, None),
    "x * -1": (lambda x: x * -1, "negative"),
    "x / 1": (lambda x: x / 1, None),
    "x / 4": (lambda x: x / 4, "multiply"),
    "x / -0.5": (lambda x: x / -0.5, "multiply"),
    "x - 0": (lambda x: x - 0, None),
    "-(-x)": (lambda x: gc.negative(-x), None),
    "where(c, x, x)": (lambda x: gc.where(x > 0, x, x), None),
    "stop_gradient": (gc.stop_gradient, None),
    "times ones": (lambda x: x * gc.ones_like(x), None),
    "broadcast to itself": (lambda x: gc.reshape(gc.reshape(x, (2, 5)), (10,)), None),
    "reshape of reshape": (lambda x: gc.reshape(gc.reshape(x, (2, 5)), (5, 2)), "reshape"),
    "reshape of expand": (lambda x: gc.reshape(gc.expand_dims(x, 0), (10,)), None),
    "squeeze of expand": (lambda x: gc.squeeze(gc.expand_dims(x, 1), 1), None),
    "permutations": (lambda x: gc.reshape(x, (2, 5)).T.T, "reshape"),
    "broadcast of broadcast": (lambda x: gc.broadcast_to(gc.broadcast_to(x, (3, 10)), (2, 3, 10)), "broadcast_to"),
}


@pytest.mark.parametrize("name", UNARY_RULES)
def test_simplify(name: str) -> None:
    build, left = UNARY_RULES[name]
    x = vector()
    y = build(x)
    graph = simplify(graph_of(y))
    computing = [n.op.name for n in graph.nodes if n.op.kind is not Kind.LEAF]
    assert computing == ([] if left is None else [left])
    same_bits(run(y, {x: SPECIAL}), run(y, {x: SPECIAL}, "reference"))


def test_expand_of_squeeze() -> None:
    x = gc.placeholder((3, 1), name="x")
    graph = simplify(graph_of(gc.expand_dims(gc.squeeze(x, 1), 1)))
    assert graph.outputs == (x,)
    other = gc.expand_dims(gc.squeeze(x, 1), 0)
    assert counts(simplify(graph_of(other)))["squeeze"] == 1


KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    "x + 0 turns -0.0 into 0.0": lambda x: x + 0,
    "x - -0.0 turns -0.0 into 0.0": lambda x: x - (-0.0),
    "x * 0 keeps NaN": lambda x: x * 0,
    "x - x keeps NaN": lambda x: x - x,
    "x / x keeps NaN": lambda x: x / x,
    "x / 3 is not x * (1/3)": lambda x: x / 3,
    "x / 0": lambda x: x / 0,
    "x / -0.0": lambda x: x / -0.0,
    "x / inf": lambda x: x / np.inf,
    "x / tiny": lambda x: x / 2.0**-126,
    "0 - x is not -x": lambda x: 0 - x,
}


@pytest.mark.parametrize("name", KEPT)
def test_simplify_leaves(name: str) -> None:
    x = vector()
    y = KEPT[name](x)
    assert counts(simplify(graph_of(y))) == counts(graph_of(y))
    same_bits(run(y, {x: SPECIAL}), run(y, {x: SPECIAL}, "reference"))


def test_a_broadcasting_one_stays() -> None:
    x = vector()
    assert counts(simplify(graph_of(x * gc.constant(np.ones((2, 1), np.float32)))))["multiply"] == 1
    assert counts(simplify(graph_of(gc.expand_dims(x, 0) - gc.constant(np.zeros((3, 1), np.float32)))))["subtract"] == 1


def test_unsigned_integers_are_not_negated() -> None:
    x = gc.placeholder((2,), "int8", name="x")
    assert counts(simplify(graph_of(x * -1)))["negative"] == 1
    np.testing.assert_array_equal(run(x * -1, {x: [-128, 5]}), np.array([-128, -5], np.int8))


# Constants.


def test_fold_computes_constants() -> None:
    c = gc.constant(np.arange(6.0, dtype=np.float32).reshape(2, 3))
    y = gc.sum(gc.exp(c) @ gc.constant(np.ones((3, 2), np.float32)), 0) / 3
    graph = fold_constants(graph_of(y))
    assert counts(graph) == {"constant": 1}
    np.testing.assert_array_equal(graph.outputs[0].node.attrs["value"], run(y, {}, "reference"))
    assert not graph.outputs[0].node.attrs["value"].flags.writeable


@pytest.mark.parametrize(("size", "folded"), [(LIMIT, True), (LIMIT + 1, False)])
def test_fold_has_a_limit(size: int, folded: bool) -> None:
    c = gc.constant(np.ones(size, np.float32))
    assert (counts(fold_constants(graph_of(c + 1)))["add"] == 0) is folded
    assert counts(fold_constants(graph_of(gc.sum(c))))["sum"] == 0  # only the result's size counts


def test_fold_leaves_views_and_what_is_not_constant() -> None:
    x = gc.placeholder((3,), name="x")
    graph = fold_constants(graph_of(x + gc.broadcast_to(gc.constant(1.0), (3,)), gc.arange(3)))
    assert counts(graph)["broadcast_to"] == counts(graph)["arange"] == counts(graph)["add"] == 1


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_fold_never_hides_a_bad_index(device: str) -> None:
    bad = gc.constant(np.array([0, 7], np.int64))
    for y in (ops.check_index(bad, 3), gc.one_hot(bad, 3), ops.check_index(bad, 3) * 0):
        pipeline.optimize(graph_of(y))
        with pytest.raises(IndexRangeError):
            run(y, {}, device)
    np.testing.assert_array_equal(run(ops.check_index(gc.constant([0, 2]), 3), {}, device), [0, 2])


def test_fold_keeps_special_values() -> None:
    c = gc.constant(SPECIAL)
    y = [c * 2, gc.sqrt(c), gc.log(c), 1 / c, gc.maximum(c, 0), gc.sign(c)]
    for folded, plain in zip(run(y, {}), run(y, {}, "reference"), strict=True):
        same_bits(folded, plain)


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


# Updates by a matrix product.


def weights() -> tuple[Tensor, Tensor, Tensor]:
    w = gc.parameter(np.arange(6.0, dtype=np.float32).reshape(3, 2), name="w")
    return w, gc.placeholder(("n", 3), name="x"), gc.placeholder(("n", 2), name="d")


def product_update(form: str) -> tuple[list[Any], dict[Tensor, Any], Tensor]:
    w, x, d = weights()
    lr = gc.placeholder((), name="lr")
    g = x.T @ d
    value = {
        "w - 0.1 * g": lambda: w - 0.1 * g, "w - g * 0.1": lambda: w - g * 0.1, "w - lr * g": lambda: w - lr * g,
        "w + 0.5 * g": lambda: w + 0.5 * g, "0.5 * g + w": lambda: 0.5 * g + w, "w - g": lambda: w - g,
        "w + g": lambda: w + g,
        "product fetched": lambda: w - 0.1 * g, "product read twice": lambda: w - 0.1 * g + 0 * gc.sum(g),
        "multiple fetched": lambda: w - 0.1 * g, "not the parameter": lambda: w * 2 - 0.1 * g, "g - w": lambda: g - w,
    }[form]()  # fmt: skip
    fetches: list[Any] = [gc.assign(w, value)]
    fetches += {"product fetched": [g], "multiple fetched": [value.node.inputs[1]]}.get(form, [])
    return fetches, {x: np.ones((4, 3)), d: np.arange(8.0).reshape(4, 2), lr: 0.25}, w


@pytest.mark.parametrize(
    ("form", "matches"),
    [
        ("w - 0.1 * g", True), ("w - g * 0.1", True), ("w - lr * g", True), ("w + 0.5 * g", True),
        ("0.5 * g + w", True), ("w - g", True), ("w + g", True), ("product fetched", False),
        ("product read twice", False), ("multiple fetched", False), ("not the parameter", False), ("g - w", False),
    ],
)  # fmt: skip
def test_gemm(form: str, matches: bool) -> None:
    fetches, feeds, w = product_update(form)
    needed = {n.outputs[0] for n in graph_of(*fetches).nodes if n.outputs}
    feeds = {t: a for t, a in feeds.items() if t in needed}
    graph = fuse_updates(graph_of(*fetches))
    assert counts(graph)["gemm_add"] == int(matches)
    if matches:
        (node,) = [n for n in graph.nodes if n.op.name == "gemm_add"]
        assert node.attrs["trans_a"]
        assert not node.attrs["trans_b"]
        assert counts(graph)["permute_dims"] == counts(graph)["matmul"] == 0
    values = []
    for device in ("cpu", "reference"):
        with gc.Session(device) as session:
            for _ in range(2):
                session.run(fetches, feeds)
            values.append(session.get(w))
    np.testing.assert_allclose(values[0], values[1], rtol=1e-6)


def test_gemm_is_not_made_of_a_product_that_broadcasts() -> None:
    w = gc.parameter(np.ones((3, 4), np.float32), name="w")
    row = gc.placeholder((1, 2), name="row") @ gc.placeholder((2, 4), name="b")
    update = gc.assign(w, w - 0.1 * row)
    assert counts(fuse_updates(graph_of(update)))["gemm_add"] == 0
    with gc.Session() as session:
        session.run(update, {"row": np.ones((1, 2)), "b": np.ones((2, 4))})
        np.testing.assert_allclose(session.get(w), np.full((3, 4), 0.8), rtol=1e-6)


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
