"""Updates by a matrix product: when they become one product, with which transposes, and the numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rewrite_checks import graph_of, ops_in

import graphc as gc
from graphc.node import Tensor
from passes.gemm import fuse_updates


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
        ("w - 0.1 * g", True), ("w - g * 0.1", True), ("w - lr * g", False), ("w + 0.5 * g", True),
        ("0.5 * g + w", True), ("w - g", True), ("w + g", True), ("product fetched", False),
        ("product read twice", False), ("multiple fetched", False), ("not the parameter", False), ("g - w", False),
    ],
)  # fmt: skip
def test_gemm(form: str, matches: bool) -> None:
    fetches, feeds, w = product_update(form)
    needed = {n.outputs[0] for n in graph_of(*fetches).nodes if n.outputs}
    feeds = {t: a for t, a in feeds.items() if t in needed}
    graph = fuse_updates(graph_of(*fetches))
    assert ops_in(graph)["gemm_add"] == int(matches)
    if matches:
        (node,) = [n for n in graph.nodes if n.op.name == "gemm_add"]
        assert node.attrs["trans_a"]
        assert not node.attrs["trans_b"]
        assert ops_in(graph)["permute_dims"] == ops_in(graph)["matmul"] == 0
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
    assert ops_in(fuse_updates(graph_of(update)))["gemm_add"] == 0
    with gc.Session() as session:
        session.run(update, {"row": np.ones((1, 2)), "b": np.ones((2, 4))})
        np.testing.assert_allclose(session.get(w), np.full((3, 4), 0.8), rtol=1e-6)


@pytest.mark.parametrize("turn_a", [False, True])
@pytest.mark.parametrize("turn_b", [False, True])
@pytest.mark.parametrize("scale", [None, 0.25])
def test_a_product_that_is_turned_afterwards(turn_a: bool, turn_b: bool, scale: float | None) -> None:
    """(a @ b).T = b.T @ a.T: the gradient of weights that are written as x @ w.T."""
    w = gc.parameter(np.zeros((2, 3), np.float32), name="w")
    a = gc.placeholder((4, 3) if turn_a else (3, 4), name="a")
    b = gc.placeholder((2, 4) if turn_b else (4, 2), name="b")
    product = ((a.T if turn_a else a) @ (b.T if turn_b else b)).T
    update = gc.assign(w, w - (product if scale is None else scale * product))
    graph = fuse_updates(graph_of(update))
    assert ops_in(graph)["gemm_add"] == 1
    assert ops_in(graph)["permute_dims"] == 0
    rng = np.random.default_rng(3)
    feeds = {t: rng.normal(size=t.shape).astype(np.float32) for t in (a, b)}
    values = []
    for device in ("cpu", "reference"):
        with gc.Session(device) as session:
            session.run(update, feeds)
            values.append(session.get(w))
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5, atol=1e-6)


def test_weights_stored_out_by_in() -> None:
    """The whole step, from the layer to the update: no transposed copy is made."""
    w = gc.parameter(np.ones((2, 3), np.float32), name="w")
    x, y = gc.placeholder(("n", 3), name="x"), gc.placeholder(("n", 2), name="y")
    loss = gc.sum(gc.square(x @ w.T - y))
    update = gc.assign(w, w - 0.1 * gc.gradients(loss, w))
    values = []
    for device in ("cpu", "reference"):
        with gc.Session(device) as session:
            session.run(update, {x: np.eye(3), y: np.ones((3, 2))})
            values.append(session.get(w))
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)


def test_a_turned_product_that_others_read_stays() -> None:
    w = gc.parameter(np.zeros((2, 3), np.float32), name="w")
    product = gc.placeholder((3, 4), name="a") @ gc.placeholder((4, 2), name="b")
    for fetches in ([gc.assign(w, w - product.T), product], [gc.assign(w, w - product.T), product.T * 2]):
        assert ops_in(fuse_updates(graph_of(*fetches)))["gemm_add"] == 0
