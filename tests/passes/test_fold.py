"""Folding of constants: what is computed, what stays small, and that nothing is lost or raised by it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from rewrite_checks import FLOATS, computing, evaluated, graph_of, ops_in, run, same_bits

import graphc as gc
from graphc import ops
from graphc.errors import IndexRangeError
from graphc.node import Tensor
from passes import pipeline
from passes.fold import LIMIT, SMALL, fold_constants


def array(*shape: int) -> Tensor:
    return gc.constant(np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + 1)


def test_it_computes_constants() -> None:
    y = gc.sum(gc.exp(array(2, 3)) @ gc.ones((3, 2)), 0) / 3
    graph = fold_constants(graph_of(y))
    assert computing(graph) == []
    same_bits(graph.outputs[0].node.attrs["value"], run(y, {}, "reference"))
    assert not graph.outputs[0].node.attrs["value"].flags.writeable


FOLDED: dict[str, Callable[[], Tensor]] = {
    "elementwise": lambda: gc.sin(array(4)),
    "conversion": lambda: array(4).astype("int8"),
    "conversion of a number": lambda: gc.constant(300).astype("uint8"),
    "reduction": lambda: gc.sum(array(3, 4), 1),
    "matrix product": lambda: array(3, 4) @ array(4, 2),
    "permutation": lambda: gc.permute_dims(array(3, 4), (1, 0)),
    "reshape": lambda: gc.reshape(array(3, 4), (2, 6)),
    "slice": lambda: array(9)[::-2],
    "concatenation": lambda: gc.concat([array(3), array(2)]),
    "roll": lambda: gc.roll(array(4), 1),
    "product with a broadcast": lambda: array(2, 3) @ gc.ones((3, 2)),
    "sum of a broadcast": lambda: gc.sum(gc.ones((5, 7)), 1),
    "random bits of a known key": lambda: gc.constant(np.uint64(3)).astype("uint32"),
    "an outer sum that is small": lambda: array(8, 1) + array(1, 8),
}


@pytest.mark.parametrize("name", FOLDED)
def test_what_is_folded(name: str) -> None:
    y = FOLDED[name]()
    graph = fold_constants(graph_of(y))
    assert computing(graph) == []
    assert graph.outputs[0].type == y.type
    same_bits(graph.outputs[0].node.attrs["value"], evaluated(graph_of(y), {})[0])


@pytest.mark.parametrize(("size", "folded"), [(LIMIT, True), (LIMIT + 1, False)])
def test_large_constants_stay(size: int, folded: bool) -> None:
    c = array(size)
    assert ("add" in computing(fold_constants(graph_of(c + 1)))) is not folded
    assert computing(fold_constants(graph_of(gc.sum(c)))) == []  # only the result's size counts


GROWING: dict[str, Callable[[], Tensor]] = {
    "broadcast": lambda: gc.broadcast_to(array(3), (2, 3)),
    "a small broadcast": lambda: gc.broadcast_to(gc.constant(1.0), (2,)),
    "outer sum": lambda: array(SMALL, 1) + array(1, SMALL),
    "outer product": lambda: array(SMALL, 1) @ array(1, SMALL),
    "sum of a large broadcast": lambda: gc.sum(gc.broadcast_to(gc.constant(0.1), (LIMIT + 1, 2)), 0),
    "reshape of a broadcast": lambda: gc.reshape(gc.broadcast_to(gc.constant(0.1), (3, 4)), (2, 6)),
    "padding": lambda: gc.pad(array(2), 100),
    "a range": lambda: gc.arange(3),
    "zeros of a symbolic extent": lambda: gc.broadcast_to(gc.constant(0.0), (gc.placeholder(("n",)).shape[0],)),
}


@pytest.mark.parametrize("name", GROWING)
def test_no_constant_outgrows_what_it_is_made_of(name: str) -> None:
    y = GROWING[name]()
    graph = fold_constants(graph_of(y))
    assert computing(graph) == computing(graph_of(y))
    assert graph.outputs[0] is y


NUMBERS: dict[str, Callable[[Tensor], Tensor]] = {
    "ones": lambda x: gc.ones_like(x) * 0.5,
    "ones and zeros": lambda x: gc.exp(gc.zeros_like(x)) + gc.ones_like(x),
    "a mask": lambda x: gc.where(gc.ones_like(x) > gc.zeros_like(x), gc.full_like(x, 2), gc.full_like(x, 3)),
    "a conversion": lambda x: gc.ones_like(x).astype("int8"),
    "one element": lambda x: gc.broadcast_to(gc.constant([3.0]), x.shape) * 2,
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("shape", [(3,), (100_000,), ("n", 4)])
def test_a_number_everywhere_stays_one_number(name: str, shape: tuple[int | str, ...]) -> None:
    x = gc.placeholder(shape, name="x")
    y = NUMBERS[name](x)
    graph = fold_constants(graph_of(y))
    assert computing(graph) == ["broadcast_to"]
    assert graph.outputs[0].type == y.type
    fed = {x: np.zeros([5 if e == "n" else e for e in shape])}
    same_bits(run(y, fed), run(y, fed, "reference"))


def test_what_depends_on_its_place_is_no_number() -> None:
    x = gc.placeholder((200, 200), name="x")
    found = run(gc.tril(gc.ones_like(x)), {x: np.zeros((200, 200))})
    np.testing.assert_array_equal(found, np.tril(np.ones((200, 200))))


def test_it_leaves_what_is_not_constant() -> None:
    x, p = gc.placeholder((3,), name="x"), gc.parameter(np.ones(3, np.float32), name="p")
    for y in (x + gc.constant(1.0), p * 2, gc.random.uniform((3,)) * 2, gc.random.bits((2,), seed=3)):
        graph = graph_of(y)
        assert fold_constants(graph).nodes == graph.nodes


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_it_never_hides_a_bad_index(device: str) -> None:
    bad = gc.constant(np.array([0, 7], np.int64))
    for y in (ops.check_index(bad, 3), gc.one_hot(bad, 3), ops.check_index(bad, 3) * 0):
        pipeline.optimize(graph_of(y))
        with pytest.raises(IndexRangeError):
            run(y, {}, device)
    np.testing.assert_array_equal(run(ops.check_index(gc.constant([0, 2]), 3), {}, device), [0, 2])


def test_special_values_are_folded_in_silence() -> None:
    """No warning and no exception at compile time, whatever the numbers."""
    c = gc.constant(np.array(FLOATS, np.float32))
    i = gc.constant(np.array([0, 1, -128, 127], np.int8))
    y = [
        c * 2, gc.sqrt(c), gc.log(c), 1 / c, c / 0, gc.maximum(c, 0), gc.sign(c), c % 0, c**c, gc.sum(c), gc.max(c),
        c.astype("int8"), c.astype("uint64"), c * c, gc.constant(3e38) * 10, i * 2, -i, i // 0, i % 0, abs(i),
        gc.constant(np.float64(1e300)).astype("float32"),
    ]  # fmt: skip
    with warnings.catch_warnings(), np.errstate(all="raise"):
        warnings.simplefilter("error")
        graph = fold_constants(graph_of(*y))
    assert computing(graph) == []
    for folded, plain in zip(graph.outputs, evaluated(graph_of(*y), {}), strict=True):
        same_bits(folded.node.attrs["value"], plain)


def test_folded_constants_keep_their_place() -> None:
    y = gc.exp(array(3))
    node = fold_constants(graph_of(y)).outputs[0].node
    assert node.op.name == "constant"
    assert node.where == y.node.where


def test_folded_numbers_reach_the_kernels() -> None:
    """The seed of a gradient, times numbers, is one number by the time that kernels are made."""
    x = gc.placeholder((4,), name="x")
    graph = pipeline.optimize(graph_of(gc.gradients(gc.sum(x * 3) * 0.5, x)))
    assert ops_in(graph)["multiply"] == 0
