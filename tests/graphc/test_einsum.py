"""``einsum`` against NumPy: subscripts of every kind, drawn ones too, symbolic extents, derivatives, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.dims import Symbol, evaluate, symbols
from graphc.errors import DTypeError, FeedError, ShapeError
from graphc.node import Tensor
from graphc.opdef import Kind
from passes.graph import topological

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def sessions() -> Iterator[list[graphc.Session]]:
    with graphc.Session(device="reference") as reference, graphc.Session(device="cpu") as cpu:
        yield [reference, cpu]


def tensor(*shape: Any, name: str | None = None, dtype: str = "float32") -> Tensor:
    return graphc.placeholder(shape, dtype=dtype, name=name)


def check(subscripts: str, arrays: list[Array], inputs: list[Tensor], sessions: list[graphc.Session]) -> None:
    """Values of NumPy's dtype and shape; for floats within n * eps * einsum of the magnitudes."""
    expected = np.asarray(np.einsum(subscripts, *arrays))
    found = graphc.einsum(subscripts, *inputs)
    values = {s: int(str(s)[1:]) for t in inputs for e in t.shape if not isinstance(e, int) for s in symbols(e)}
    assert tuple(evaluate(e, values) for e in found.shape) == expected.shape
    assert found.dtype == expected.dtype
    sizes = np.prod([max(e, 1) for a in arrays for e in a.shape])
    eps = float(np.finfo(expected.dtype).eps) if expected.dtype.kind == "f" else 0.0
    bound = 2 * sizes * eps * np.einsum(subscripts, *(np.abs(a.astype(float)) for a in arrays))
    for session in sessions:
        value = session.run(found, dict(zip(inputs, arrays, strict=True)))
        gap = np.abs(np.subtract(value, expected, dtype=float))
        assert np.all(gap <= bound), (subscripts, [a.shape for a in arrays], session.device)


CASES: list[tuple[str, tuple[tuple[int, ...], ...]]] = [
    ("ij,jk->ik", ((2, 3), (3, 4))), ("ij,jk", ((2, 3), (3, 4))), ("ij,kj->ki", ((2, 3), (4, 3))),
    ("ij->ji", ((2, 3),)), ("ij->", ((2, 3),)), ("ij->j", ((2, 3),)), ("ii->i", ((3, 3),)), ("ii", ((3, 3),)),
    ("iij->ji", ((2, 2, 3),)), ("iii->", ((3, 3, 3),)), ("i,j->ij", ((2,), (3,))), ("i,i->", ((4,), (4,))),
    ("i,i->i", ((4,), (4,))), ("bij,bjk->bik", ((2, 3, 4), (2, 4, 2))),
    ("bhqd,bhkd->bhqk", ((2, 2, 3, 4), (2, 2, 5, 4))), ("...ij,...jk->...ik", ((2, 3, 4), (5, 1, 4, 2))),
    ("...->...", ((2, 3),)), ("...i->...", ((2, 3),)), ("i...,i->...", ((3, 2), (3,))),
    ("ab...,...->b...", ((2, 3, 4), (4,))), ("a,ab,abc->abc", ((2,), (2, 3), (2, 3, 4))),
    ("ij,jk,kl,lm->im", ((2, 3), (3, 4), (4, 5), (5, 2))), ("a,b,c,d->dcba", ((2,), (3,), (1,), (2,))),
    ("ea,fb,abcd,gc,hd->efgh", ((2, 2), (2, 2), (2, 2, 2, 2), (2, 2), (2, 2))), ("ij,ij->", ((2, 3), (2, 3))),
    ("ij,j->i", ((2, 3), (3,))), (",i->i", ((), (3,))), ("->", ((),)), ("i,->", ((3,), ())),
    ("ij,jk->ik", ((0, 3), (3, 4))), ("ij,jk->ik", ((2, 0), (0, 4))), ("i,i->i", ((1,), (4,))),
    ("ij,jk->ik", ((2, 1), (3, 4))), (" i j , j k -> i k ", ((2, 3), (3, 4))), ("Ab,bA->A", ((2, 3), (3, 2))),
    ("aab,bc->ac", ((2, 2, 3), (3, 2))), ("bac,bda->dc", ((2, 3, 4), (2, 5, 3))),
    ("ijk,ilm->jm", ((2, 3, 4), (2, 5, 3))),
]  # fmt: skip


@pytest.mark.parametrize(("subscripts", "shapes"), CASES)
@pytest.mark.parametrize("symbolic", [False, True])
def test_follows_numpy(subscripts: str, shapes: Any, symbolic: bool, sessions: list[graphc.Session]) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    inputs = [tensor(*(f"s{e}" if symbolic and e != 1 else e for e in s)) for s in shapes]
    check(subscripts, arrays, inputs, sessions if symbolic else sessions[:1])


def drawn(rng: np.random.Generator) -> tuple[str, list[tuple[int, ...]]]:
    """Subscripts for one to four operands: labels repeated, broadcast and left out; "..." in some."""
    letters = "abcde"[: rng.integers(1, 6)]
    extents = {c: int(rng.integers(1, 5)) for c in letters}
    hidden = [int(e) for e in rng.integers(1, 4, 2)]
    dots = rng.random() < 0.3
    terms, shapes = [], []
    for _ in range(rng.integers(1, 5)):
        labels = [str(c) for c in rng.choice(list(letters), rng.integers(0, 4))]
        if rng.random() < 0.8:
            labels = list(dict.fromkeys(labels))
        shape = [extents[c] if labels.count(c) > 1 or rng.random() < 0.9 else 1 for c in labels]
        if dots and rng.random() < 0.7:
            place, depth = int(rng.integers(0, len(labels) + 1)), int(rng.integers(0, 3))
            shape[place:place] = [e if rng.random() < 0.8 else 1 for e in hidden[2 - depth :]]
            labels.insert(place, "...")
        terms.append("".join(labels))
        shapes.append(tuple(shape))
    text = ",".join(terms)
    if rng.random() < 0.3:
        return text, shapes
    known = sorted({c for c in text if c.isalpha()})
    output = [str(c) for c in rng.permutation(known)[: rng.integers(0, len(known) + 1)]]
    if "..." in text:
        output.insert(int(rng.integers(0, len(output) + 1)), "...")
    return f"{text}->{''.join(output)}", shapes


@pytest.mark.parametrize("seed", range(6))
def test_drawn_subscripts(seed: int, sessions: list[graphc.Session]) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(60):
        subscripts, shapes = drawn(rng)
        dtype = ["float64", "float32", "int32", "int8", "uint8"][rng.integers(5)]
        arrays = [(np.abs(rng.standard_normal(s)) * 4).astype(dtype) for s in shapes]
        inputs = [tensor(*(f"s{e}" if rng.random() < 0.3 and e > 1 else e for e in s), dtype=dtype) for s in shapes]
        check(subscripts, arrays, inputs, sessions[:1])


def test_products_of_floats_are_matrix_products() -> None:
    """Two operands with a label to sum over become one; elementwise products and dot products none."""
    a, b = tensor("i", "j", "k"), tensor("k", "l", "i")
    for subscripts, count in (("ijk,kli->ijl", 1), ("ijk,kli->jl", 1), ("ijk,kli->iljk", 0), ("ijk,kli->ik", 0)):
        nodes = topological([graphc.einsum(subscripts, a, b).node])
        assert sum(node.op.kind is Kind.MATMUL for node in nodes) == count, subscripts


def test_the_cheap_product_comes_first() -> None:
    """(a @ b) @ v costs a matrix product more than a @ (b @ v); symbolic extents count as of middling size."""
    for extent in ("n", 100):
        a, b, v = tensor(extent, extent), tensor(extent, extent), tensor(extent)
        nodes = topological([graphc.einsum("ij,jk,k->i", a, b, v).node])
        products = [node for node in nodes if node.op.kind is Kind.MATMUL]
        assert len(products) == 2
        assert all(1 in node.results[0].shape for node in products)


def test_extents_of_one_label_must_turn_out_equal(sessions: list[graphc.Session]) -> None:
    x, y = tensor("n", "m", name="x"), tensor("k", name="y")
    for session in sessions:
        for subscripts in ("ij,j->i", "ij,j->ij", "ij,i->j"):
            with pytest.raises(FeedError, match="needs equal extents"):
                session.run(graphc.einsum(subscripts, x, y), {x: np.ones((2, 3)), y: np.ones(4)})
        with pytest.raises(FeedError, match="needs equal extents"):
            session.run(graphc.einsum("ii->i", x), {x: np.ones((2, 3))})


@pytest.mark.parametrize(
    ("subscripts", "shapes"),
    [
        ("ij,jk->ik", ((2, 3), (3, 2))), ("ii,ij->j", ((2, 2), (2, 3))), ("a,ab,b->", ((2,), (2, 3), (3,))),
        ("...i,i...->...", ((2, 3), (3, 2))),
    ],
)  # fmt: skip
def test_derivatives(subscripts: str, shapes: Any, sessions: list[graphc.Session]) -> None:
    """It is linear in each operand: a step of 1 in one element is the derivative, to rounding."""
    rng = np.random.default_rng(1)
    arrays = [rng.uniform(0.5, 1.5, s) for s in shapes]
    inputs = [tensor(*s, dtype="float64") for s in shapes]
    slopes = graphc.gradients(graphc.sum(graphc.einsum(subscripts, *inputs)), inputs)
    for session in sessions:
        found = session.run(slopes, dict(zip(inputs, arrays, strict=True)))
        for number, array in enumerate(arrays):
            expected = np.zeros_like(array)
            for place in np.ndindex(array.shape):
                unit = np.zeros_like(array)
                unit[place] = 1
                moved = [*arrays[:number], unit, *arrays[number + 1 :]]
                expected[place] = np.einsum(subscripts, *moved).sum()
            assert np.allclose(found[number], expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize(
    ("subscripts", "shapes", "parts"),
    [
        ("ij,jk->ik", ((2, 3),), ("names 2 operands, got 1",)),
        ("ij->ji", ((2, 3, 4),), ("'ij'", "does not fit the 3 axes", "float32[2, 3, 4]")),
        ("ijk->ji", ((2, 3),), ("does not fit the 2 axes",)),
        ("ij,jk->ik", ((2, 3), (4, 2)), ("'j' of 'ij,jk->ik' has extents 3 and 4", "float32[2, 3]", "float32[4, 2]")),
        ("ii->i", ((2, 3),), ("'i' of 'ii->i' has extents 2 and 3",)),
        ("ii->i", ((1, 3),), ("has extents 1 and 3",)),
        ("...,...", ((2,), (3,)), ("'...' of '...,...' has extents 2 and 3",)),
        ("ij->k", ((2, 3),), ("must have labels of the operands, each once",)),
        ("ij->ii", ((2, 3),), ("must have labels of the operands, each once",)),
        ("i...->i", ((2, 3),), ("must have '...'",)),
        ("i1->i", ((2, 3),), ("got '1' in 'i1->i'",)),
        ("i..->i", ((2, 3),), ("one '...' per operand, got '.'",)),
        ("......", ((2, 3),), ("got '.'",)),
        ("ij->i->j", ((2, 3),), ("got '-'",)),
    ],
)  # fmt: skip
def test_what_is_known_to_be_wrong(subscripts: str, shapes: Any, parts: tuple[str, ...]) -> None:
    with pytest.raises(ShapeError) as raised:
        graphc.einsum(subscripts, *(tensor(*s) for s in shapes))
    text = str(raised.value)
    assert text.startswith("einsum: ")
    for part in parts:
        assert part in text


def test_arguments_that_are_none() -> None:
    with pytest.raises(ShapeError, match="needs at least one operand, got none"):
        graphc.einsum("i->i")
    with pytest.raises(ShapeError, match="the subscripts are a string"):
        graphc.einsum(tensor(2), [0])  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="einsum: operands must be numbers"):
        graphc.einsum("i->", tensor(2, dtype="bool"))
    assert graphc.einsum("i,i->i", [1, 2], tensor(2, dtype="int8")).dtype == np.int8
    assert evaluate(graphc.einsum("ij->ji", tensor("n", 2)).shape[1], {Symbol("n"): 5}) == 5
