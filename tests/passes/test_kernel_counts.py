"""How many kernels whole computations become, what is in them, and that they are right.

The counts are what knowing the whole step is worth: a value and its gradient in one walk over the data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.node import Tensor
from passes.lower import lower
from passes.pipeline import optimize
from passes.program import Call, GemmCall, LoopCall, epilogue_of
from runtime.fetches import flatten
from runtime.session import unify_constraints

Array = np.ndarray[Any, Any]
SIZES = ((0, 5), (1, 5), (3, 1), (7, 300), (3000, 37))


def calls(*fetches: Any) -> tuple[Call, ...]:
    graph = flatten(list(fetches)).graph
    unifier = unify_constraints(graph.nodes)
    return lower(optimize(graph, None, unifier), unifier).calls


def forms(*fetches: Any) -> list[str]:
    """Each kernel by the roles of its axes, a product by the roles of its epilogue."""
    found = []
    for call in calls(*fetches):
        if isinstance(call, LoopCall):
            found.append(call.kernel.roles)
        else:
            epilogue = epilogue_of(call)
            found.append(f"product {epilogue[0].kernel.roles}" if epilogue else call.label)
    return found


def ops(call: Call) -> Counter[str]:
    return Counter(n.op.name for n in call.nodes)


def stores(call: Call) -> list[tuple[Any, ...]]:
    return [b.shape for b in call.writes]


def layer_norm(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return nn.layer_norm(x, 1, weight=scale, bias=bias)


# Counts.


def test_softmax_cross_entropy_and_its_gradient_are_one_walk_and_a_combination() -> None:
    x, t = gc.placeholder(("n", 1000), name="x"), gc.placeholder(("n",), "int64", name="t")
    loss = nn.cross_entropy(x, t)
    walk, combination = calls(loss, gc.gradients(loss, x))
    assert isinstance(walk, LoopCall)
    assert walk.kernel.roles == "pr"
    assert ops(walk)["exp"] == 1
    assert ops(walk)["log"] == 1
    assert stores(walk)[0] == (gc.dim("n"), 1000)
    assert [b.kind for b in walk.writes] == ["output", "partial"]
    assert isinstance(combination, LoopCall)
    assert combination.kernel.roles == "r"


def test_a_gelu_chain_and_its_gradient_are_one_kernel() -> None:
    x, w, g = (gc.placeholder(("n", "m"), name=n) for n in "xwg")
    u = x * w
    y = 0.5 * u * (1 + gc.tanh(0.7978845608 * (u + 0.044715 * u * u * u)))
    (only,) = calls(y, gc.gradients(y, w, g))
    assert ops(only)["tanh"] + ops(only)["sigmoid"] == 1  # 1 + tanh is also a sigmoid
    for kind in ("tanh", "none"):
        other = nn.gelu(x * w, approximate=kind)
        assert forms(other, gc.gradients(other, w, g)) == ["p"]
    loss = gc.mean(y)
    assert forms(loss, gc.gradients(loss, w)) == ["r", "r"]  # the mean is combined from blocks


def test_a_layer_norm_and_its_gradients_are_two_kernels() -> None:
    x, g = (gc.placeholder(("n", 1024), name=n) for n in "xg")
    scale, bias = (gc.parameter(gc.init.ones(), shape=(1024,), name=n) for n in ("scale", "bias"))
    y = layer_norm(x, scale, bias)
    walk, combination = calls(y, *gc.gradients(y, [x, scale, bias], g))
    assert isinstance(walk, LoopCall)
    assert walk.kernel.roles == "pr"
    assert sorted(b.kind for b in walk.writes) == ["output", "output", "partial", "partial"]
    assert isinstance(combination, LoopCall)
    assert combination.kernel.roles == "rp"
    assert len(combination.writes) == 2


@pytest.mark.parametrize("optimizer", [gc.optim.Adam, gc.optim.AdamW, gc.optim.RMSprop, gc.optim.SGD])
def test_an_optimizer_is_one_kernel_for_each_parameter(optimizer: Any) -> None:
    params = [gc.parameter(gc.init.ones(), shape=(30, 4 + i), name=f"p{i}") for i in range(3)]
    xs = [gc.placeholder((30, 4 + i)) for i in range(3)]
    loss = gc.sum(sum((gc.sum(gc.square(p) * x) for p, x in zip(params, xs, strict=True)), start=gc.constant(0.0)))
    found = calls(optimizer(1e-3).minimize(loss))
    big = [c for c in found if any(b.shape for b in c.writes)]
    assert len(big) == 3
    assert all("rw" in {a.mode for a in c.kernel.args} for c in big if isinstance(c, LoopCall))
    assert len(found) - len(big) <= 1  # the number of steps


def test_sums_over_different_axes_read_their_input_once() -> None:
    x = gc.placeholder(("n", "m"), name="x")
    assert forms(gc.sum(x, 0), gc.sum(x, 1), gc.sum(x)) == ["pr", "rp", "r"]
    assert forms(gc.sum(x, 0), gc.sum(x)) == ["pr", "rp", "r"]
    assert forms(gc.max(gc.exp(x), 0), gc.sum(x)) == ["pr", "rp", "r"]
    short = gc.placeholder(("n", 5), name="x")
    assert forms(gc.sum(short, 0), gc.sum(short)) == ["rp", "rp", "r", "r"]


def test_a_sum_that_waits_for_another_is_a_walk_of_its_own() -> None:
    x = gc.placeholder(("n", "m"), name="x")
    columns = gc.sigmoid(gc.sum(x, 0, keepdims=True))
    assert forms(columns, gc.sum(gc.square(x - columns))) == ["rp", "rp", "rr", "r"]


def test_a_row_that_lies_across_the_memory_is_not_walked_again_and_again() -> None:
    """Statistics of columns: three walks along the rows are far less than one down the columns."""
    x = gc.placeholder(("n", "m"), name="x")
    assert forms(gc.softmax(x, 0)) == ["rp", "rp", "rp", "rp", "pp"]
    centred = x - gc.mean(x, 0)
    assert forms(centred / gc.sqrt(gc.mean(gc.square(centred), 0) + 1e-5)) == ["rp", "rp", "rp", "rp", "pp"]
    images = gc.placeholder(("n", 32, "h", "w"), name="images")
    centred = images - gc.mean(images, (0, 2, 3), keepdims=True)  # of a channel: pieces of rows one after the other
    assert forms(centred / gc.mean(gc.square(centred), (0, 2, 3), keepdims=True)) == ["prr", "prr"]


def test_a_training_step_of_a_perceptron() -> None:
    """Eight products, each with all that follows it; what sums over all rows is combined, with the bias's update."""
    x, y = gc.placeholder((None, 64), name="x"), gc.placeholder((None,), "int64", name="y")
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    loss = nn.cross_entropy(model(x), y)
    found = forms(loss, gc.optim.Adam(1e-3).minimize(loss))
    products = [f for f in found if f.startswith("product")]
    assert len(products) == 8
    assert Counter(found) == Counter([*products, "r", "rp", "rp", "rp", "p"])


@pytest.mark.parametrize("shape", [("n", 64), ("n", 12, 64)])
def test_a_squared_error_and_its_gradients_are_an_epilogue(shape: tuple[int | str, ...]) -> None:
    """The loss adds up all of the product, the bias's gradient its rows: both while the block is in the cache."""
    x, y = gc.placeholder(shape, name="x"), gc.placeholder((*shape[:-1], 300), name="y")
    w = gc.parameter(gc.init.ones(), shape=(64, 300), name="w")
    b = gc.parameter(gc.init.ones(), shape=(300,), name="b")
    loss = nn.mse_loss(x @ w + b, y)
    found = forms(loss, gc.optim.Adam(1e-3).minimize(loss))
    assert Counter(found) == Counter(["product pr", "product pp", "r", "rp", "p"])


def test_a_gradient_with_the_sum_of_its_rows_follows_a_product_of_several_batch_axes() -> None:
    x, y = gc.placeholder(("n", 12, 64), name="x"), gc.placeholder(("n", 12, 32), name="y")
    first, second = (gc.parameter(gc.init.ones(), shape=s, name=n) for s, n in (((64, 300), "u"), ((300, 32), "v")))
    bias = gc.parameter(gc.init.ones(), shape=(300,), name="b")
    found = forms(*gc.gradients(gc.tanh(x @ first + bias) @ second, [first, bias], y))
    assert found == ["matmul", "product pr", "matmul", "rp"]  # tanh is computed where its derivative is


def test_kernels_of_a_deep_network_are_those_of_its_layers() -> None:
    x, y = gc.placeholder((None, 16), name="x"), gc.placeholder((None,), "int64", name="y")
    for layers in (3, 40):
        model = nn.Sequential(*(f() for _ in range(layers) for f in (lambda: nn.Linear(16, 16), nn.ReLU)))
        loss = nn.cross_entropy(model(x), y)
        found = Counter(forms(loss, gc.optim.Adam(1e-3).minimize(loss)))
        products = sum(found[f] for f in found if f.startswith("product"))
        assert products == 3 * layers - 1
        assert found == Counter({**found, "rp": layers, "r": 1, "p": 1})
        assert found["product pr"] == layers


def test_bias_activation_and_residual_are_an_epilogue() -> None:
    x, w = gc.placeholder(("n", 8), name="x"), gc.parameter(gc.init.ones(), shape=(8, 8), name="w")
    b = gc.parameter(gc.init.ones(), shape=(8,), name="b")
    assert forms(gc.relu(x @ w + b) + x) == ["product pp"]
    assert forms(gc.softmax(x @ w + b)) == ["product pr"]
    (call,) = calls(gc.tanh(x @ w))
    assert isinstance(call, GemmCall)
    assert call.epilogue is not None
    assert call.c.kind == "output"  # made where the result goes
    assert [a.mode for a in call.epilogue.kernel.args] == ["rw"]


def test_what_is_no_epilogue() -> None:
    x, w = gc.placeholder(("n", 8), name="x"), gc.parameter(gc.init.ones(), shape=(8, 8), name="w")
    product = x @ w
    assert forms(gc.exp(product).T) == ["matmul", "pp"]  # stored in another order
    assert forms(gc.exp(product) * gc.sum(product)) == ["matmul", "r", "r", "p"]  # waits for the whole product
    other = gc.tanh(product) @ w
    assert forms(product + other)[0] == "product pp"  # tanh follows the first; the sum follows the second
    assert forms(product + other)[1] == "product pp"


def test_neighbours_that_stay_apart_have_a_reason() -> None:
    x = gc.placeholder(("n", "m"), name="x")
    graph = flatten([gc.exp(x) * gc.sum(gc.exp(x))]).graph
    program = lower(optimize(graph))
    whys = {u.why for u in program.unfused}
    assert whys
    assert all(whys)
    for u in program.unfused:
        assert 0 <= u.producer < len(program.calls)
        assert 0 <= u.consumer < len(program.calls)
        assert u.producer != u.consumer


# Numbers: against the reference, and the same bits on one thread and two.


def agree(fetches: list[Tensor], feeds: Mapping[Tensor, Array]) -> None:
    expected = gc.Session("reference").run(fetches, feeds)
    one, two = (gc.Session(threads=n).run(fetches, feeds) for n in (1, 2))
    terms = max(a.size for a in feeds.values()) + 16
    for a, b, c in zip(expected, one, two, strict=True):
        wide = np.asarray(a, np.float64)
        np.testing.assert_array_equal(b, c)
        # Sums of n terms in two orders differ by at most n roundings of what is added; blocks make that log-like.
        bound = 8 * np.sqrt(terms) * np.finfo(np.float32).eps * max(1.0, float(np.max(np.abs(wide), initial=0)))
        np.testing.assert_allclose(b, wide, rtol=0, atol=bound)


@pytest.mark.parametrize(("n", "c"), SIZES)
def test_numbers_of_merged_kernels(n: int, c: int) -> None:
    rng = np.random.default_rng(n + c)
    x, g = (gc.placeholder(("n", c), name=k) for k in "xg")
    scale, bias = (gc.placeholder((c,), name=k) for k in ("scale", "bias"))
    y = layer_norm(x, scale, bias)
    loss = gc.sum(y * g)
    feeds = {t: rng.normal(size=(n, c)).astype("f4") for t in (x, g)}
    feeds |= {t: rng.normal(size=c).astype("f4") for t in (scale, bias)}
    agree([y, loss, *gc.gradients(loss, [x, scale, bias])], feeds)
    agree([gc.sum(x, 0), gc.sum(x, 1), gc.sum(x), gc.softmax(x) * g], feeds)
    if n:
        t = gc.placeholder(("n",), "int64", name="t")
        entropy = nn.cross_entropy(x, t)
        agree([entropy, gc.gradients(entropy, x), gc.max(x, 0), gc.max(x)], {**feeds, t: rng.integers(0, c, n)})


@pytest.mark.parametrize(("n", "c"), SIZES)
def test_numbers_of_totals_over_several_axes(n: int, c: int) -> None:
    rng = np.random.default_rng(n * c)
    z = gc.placeholder((3, "n", c), name="z")
    feeds = {z: rng.normal(size=(3, n, c)).astype("f4")}
    agree([gc.sum(z, (0, 1)), gc.sum(z, 2), gc.sum(z), gc.sum(z, (1, 2)), gc.sum(z, 1)], feeds)
    agree([gc.sum(z, 0), z * gc.sum(z, (1, 2), keepdims=True), gc.sum(gc.exp(z))], feeds)


@pytest.mark.parametrize(("n", "c"), [(0, 300), (1, 300), (7, 300), (300, 129), (3000, 37), (3, 5000)])
def test_numbers_of_totals_of_rows_and_of_all(n: int, c: int) -> None:
    rng = np.random.default_rng(n * c)
    x, y = gc.placeholder(("n", 3, "c"), name="x"), gc.placeholder((c,), name="y")
    feeds = {x: rng.normal(size=(n, 3, c)).astype("f4"), y: rng.normal(size=c).astype("f4")}
    error = x * 2 - y
    agree([gc.mean(gc.square(error)) if n else gc.sum(error), gc.sum(error, (0, 1)) + y, error], feeds)
    agree([gc.sum(x, (0, 1)), gc.sum(x), gc.sum(gc.exp(x), (0, 1))], feeds)
    columns = gc.tanh(gc.sum(x, (0, 1), keepdims=True))
    agree([columns, gc.sum(gc.square(x - columns))], feeds)


@pytest.mark.parametrize(("n", "c"), [(0, 300), (1, 300), (50, 300), (50, 200)])
def test_numbers_of_totals_in_epilogues(n: int, c: int) -> None:
    rng = np.random.default_rng(n * c)
    x, w, y = gc.placeholder(("n", 4, 9)), gc.placeholder((9, c)), gc.placeholder(("n", 4, c))
    shapes = {x: (n, 4, 9), w: (9, c), y: (n, 4, c)}
    feeds = {t: rng.uniform(-1, 1, s).astype("f4") for t, s in shapes.items()}
    error = gc.tanh(x @ w) - y
    agree([gc.sum(gc.square(error)), gc.sum(error, (0, 1)), *gc.gradients(gc.sum(gc.square(error)), [w])], feeds)
    agree([gc.sum(gc.abs(x @ w - y))], feeds)


@pytest.mark.parametrize(("m", "k", "n"), [(0, 4, 3), (5, 0, 3), (5, 4, 0), (1, 1, 1), (130, 70, 9), (9, 300, 700)])
def test_numbers_of_epilogues(m: int, k: int, n: int) -> None:
    rng = np.random.default_rng(m + k + n)
    a, b, r = gc.placeholder(("m", k)), gc.placeholder((k, n)), gc.placeholder(("m", n))
    row = gc.placeholder((n,))
    shapes = {a: (m, k), b: (k, n), r: (m, n), row: (n,)}
    feeds = {t: rng.uniform(-1, 1, s).astype("f4") for t, s in shapes.items()}
    product = a @ b
    agree([gc.relu(product + row) + r], feeds)
    agree([gc.tanh(product), product], feeds)
    agree([gc.sum(product * r, 1), gc.exp(-gc.square(product))], feeds)
    agree([gc.where(r > 0, product, 0), gc.sum(gc.where(r > 0, product, 0), 0)], feeds)
    if n:
        agree([gc.log_softmax(product + row)], feeds)


def test_numbers_of_a_batched_epilogue() -> None:
    rng = np.random.default_rng(0)
    a, b = gc.placeholder(("b", "m", 6)), gc.placeholder(("b", 6, 5))
    y = gc.softmax(a @ b * 0.5)
    assert forms(y) == ["product pr"]
    for size in ((0, 3), (4, 0), (7, 33)):
        agree([y], {a: rng.normal(size=(*size, 6)).astype("f4"), b: rng.normal(size=(size[0], 6, 5)).astype("f4")})


def test_a_check_in_an_epilogue_leaves_parameters_alone() -> None:
    x, t = gc.placeholder(("n", 4), name="x"), gc.placeholder(("n",), "int64", name="t")
    w = gc.parameter(np.ones((4, 3), "f4"), name="w")
    loss = nn.cross_entropy(x @ w, t)
    with gc.Session() as sess:
        step = sess.compile([loss, gc.optim.SGD(0.1).minimize(loss)], [x, t])
        assert any(isinstance(k, GemmCall) and k.epilogue is not None and k.epilogue.guards for k in step.kernels)
        with pytest.raises(gc.errors.IndexRangeError):
            step(np.ones((5, 4), "f4"), np.array([0, 1, 2, 3, 0]))
        np.testing.assert_array_equal(sess.get(w), np.ones((4, 3), "f4"))
        step(np.ones((5, 4), "f4"), np.array([0, 1, 2, 2, 0]))
        assert not np.array_equal(sess.get(w), np.ones((4, 3), "f4"))
