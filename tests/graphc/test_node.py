"""Nodes and tensors: immutability, identity, what a symbolic value refuses, where it says it comes from."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import SymbolicError
from graphc.node import Tensor
from graphc.where import capture, derived_from

HERE = "tests/graphc/test_node.py"


def tensor(name: str = "x", **more: Any) -> Tensor:
    return graphc.placeholder((2, 3), name=name, **more)


# Identity and immutability.


def test_hash_and_equality() -> None:
    x, y = tensor(), tensor()
    assert len({x, y, x}) == 2
    assert {x: 1, y: 2}[x] == 1
    assert isinstance(x == y, Tensor)
    assert (x == y).dtype == bool
    assert (x == y).node.op.name == "equal"
    assert (x != y).node.op.name == "not_equal"
    assert (x == 1).shape == (2, 3)


@pytest.mark.parametrize(
    ("attribute", "value"),
    [("op", None), ("inputs", ()), ("attrs", {}), ("results", ()), ("name", "y"), ("where", None)],
)
def test_a_node_is_immutable(attribute: str, value: Any) -> None:
    node = tensor().node
    with pytest.raises(AttributeError):
        setattr(node, attribute, value)
    with pytest.raises(AttributeError):
        delattr(node, attribute)
    with pytest.raises(TypeError):
        node.attrs["shape"] = ()  # type: ignore[index]


@pytest.mark.parametrize(
    ("attribute", "value"), [("node", None), ("index", 1), ("shape", ()), ("dtype", None), ("extra", 1)]
)
def test_a_tensor_is_immutable(attribute: str, value: Any) -> None:
    with pytest.raises(AttributeError):
        setattr(tensor(), attribute, value)


# Symbolic means no number.


@pytest.mark.parametrize(
    ("use", "what", "advice"),
    [
        (bool, "the truth of a tensor", "graphc.where(condition, x, y)"),
        (float, "float()", "float(session.run(t, feeds))"),
        (int, "int()", "int(session.run(t, feeds))"),
        (iter, "iteration", "Run it, and iterate over the array"),
        (list, "iteration", "as one expression"),
        (len, "len()", "Its extents are in .shape"),
        (lambda t: 3 in t, "'in'", "graphc.max(x == item)"),
        (lambda t: range(3)[t], "an index", "Run it: int("),
        (np.asarray, "numpy.asarray()", "session.run(t, feeds) returns a NumPy array"),
        (np.array, "numpy.asarray()", "Run it"),
        (lambda t: t if t else None, "the truth of a tensor", "by element"),
        (lambda t: 0 < t < 1, "the truth of a tensor", "or run it"),
    ],
)
def test_a_value_is_refused_with_advice(use: Callable[[Tensor], object], what: str, advice: str) -> None:
    x = tensor()
    with pytest.raises(SymbolicError) as error:
        use(x + 1)
    text = str(error.value)
    assert what in text
    assert advice in text
    assert "is symbolic: it has none until a session runs" in text
    assert HERE in text


def test_the_refusal_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        bool(tensor())


@pytest.mark.parametrize(
    ("build", "op"),
    [
        (lambda a, t: a * t, "multiply"), (lambda a, t: a + t, "add"), (lambda a, t: a - t, "subtract"),
        (lambda a, t: a / t, "divide"), (lambda a, t: a < t, "greater"), (lambda a, t: a == t, "equal"),
        (lambda a, t: a**t, "pow"), (lambda a, t: a @ t.T, "matmul"),
    ],
)  # fmt: skip
def test_an_array_on_the_left_builds_a_node(build: Callable[[Any, Tensor], Tensor], op: str) -> None:
    x = tensor()
    for left in (np.ones((2, 3), np.float32), np.float64(2.0), 2.0):
        if op == "matmul" and np.ndim(left) == 0:
            continue
        result = build(left, x)
        assert isinstance(result, Tensor)
        assert result.node.op.name in (op, "less" if op == "greater" else op)
        assert result.dtype in (np.dtype(np.float32), np.dtype(bool))


def test_operators() -> None:
    x, flag = tensor(), tensor("flag", dtype="bool")
    built = {
        "add": x + 1, "subtract": 1 - x, "multiply": 2 * x, "divide": 1 / x, "pow": 2**x, "negative": -x, "abs": abs(x),
        "less": x < 1, "less_equal": x <= 1, "greater": x > 1, "greater_equal": x >= 1, "logical_and": flag & True,
        "logical_or": True | flag, "logical_not": ~flag, "matmul": x @ x.T, "square": x**2, "permute_dims": x.mT,
        "reshape": x.reshape(3, 2), "astype": x.astype("int32"), "sum": x.sum(), "max": x.max(0), "min": x.min(axis=1),
    }  # fmt: skip
    assert {name: t.node.op.name for name, t in built.items()} == {name: name for name in built}
    assert +x is x
    assert x.mean().shape == ()
    assert x.reshape((3, 2)).shape == x.reshape(3, -1).shape == x.T.shape == (3, 2)
    assert x.sum(axis=0, keepdims=True).shape == (1, 3)


# What it says of itself.


def test_repr() -> None:
    x = graphc.placeholder(("batch", 3, None), name="x")
    y = x * 2
    assert repr(x) == f"<Tensor x: placeholder float32[batch, 3, ?] at {HERE}:{line_of(x)} in test_repr>"
    assert repr(y) == f"<Tensor {y.name}: multiply float32[batch, 3, ?] at {HERE}:{line_of(y)} in test_repr>"
    assert y.name == f"multiply_{y.node.serial}"
    assert repr(y.node).startswith(f"<Node {y.name}: multiply -> float32[batch, 3, ?] at {HERE}:")
    assert (x.ndim, x.dtype, x.name) == (3, np.dtype(np.float32), "x")


def line_of(t: Tensor) -> int:
    return t.node.where.line


def outer(x: Tensor) -> Tensor:
    def inner(x: Tensor) -> Tensor:
        return graphc.softmax(x)  # the user's line

    return inner(x)


def test_where_is_the_users_line() -> None:
    y = outer(tensor())
    assert y.node.where.file == __file__
    assert y.node.where.line == outer.__code__.co_firstlineno + 2
    assert y.node.where.function == "inner"
    assert str(y.node.where) == f"{HERE}:{line_of(y)} in inner"


def test_where_is_never_inside_graphc() -> None:
    x = graphc.placeholder((4, 3), name="x")
    labels = graphc.placeholder((4,), dtype="int32")
    layer = graphc.nn.Linear(3, 2)
    loss = graphc.nn.cross_entropy(layer(x), labels) + graphc.mean(graphc.argmax(x)) + x.T.sum()
    update = graphc.optim.Adam(1e-3).minimize(loss)
    pending, seen = [t.node for t in (loss,)] + list(update), set()
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            assert node.where.file == __file__, node
            pending += [t.node for t in node.inputs]
    assert len(seen) > 40


def test_where_of_code_without_a_file() -> None:
    scope: dict[str, Any] = {"graphc": graphc}
    exec(compile("y = graphc.placeholder((), name='p') + 1", "<string>", "exec"), scope)
    assert str(scope["y"].node.where) == "<string>:1"


def test_derived_nodes_take_place_and_role() -> None:
    x = tensor()
    with derived_from(x.node.where, "backward"):
        y = x + 1
    z = x + 1
    assert (y.node.where, y.node.role) == (x.node.where, "backward")
    assert z.node.role == "forward"
    assert capture()[1] == "forward"


# Copies.


def test_copies_are_the_same_tensor() -> None:
    x = tensor()
    assert copy.copy(x) is x
    assert copy.deepcopy(x) is x
    assert copy.deepcopy({"a": [x]})["a"][0] is x


@pytest.mark.parametrize(
    "what", [lambda t: t, lambda t: t.node, lambda t: [t], lambda t: graphc.assign(graphc.parameter(1.0), 2)]
)
def test_pickling_says_what_to_do(what: Callable[[Tensor], object]) -> None:
    with pytest.raises(TypeError, match=r"a graph is not pickled: .* store parameters with Session.save\(path\)"):
        pickle.dumps(what(tensor()))


# Size.


def test_a_long_chain_is_built_and_freed() -> None:
    x = tensor()
    y = x
    for _ in range(100_000):
        y = y + 1
    middle = weakref.ref(y.node.inputs[0].node.inputs[0].node)
    assert y.shape == (2, 3)
    del y
    gc.collect()
    assert middle() is None
