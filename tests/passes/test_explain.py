"""``step.explain()``: what it says of kernels is what the program does."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from fuzz.case import holds
from fuzz.catalogue import entries
from fuzz.drawing import draw

import graphc as gc
from graphc.dims import Dim, Symbol, evaluate, product, symbols
from graphc.errors import FeedError
from graphc.node import Tensor
from passes.explain import KernelNote, explain
from passes.lower import lower
from passes.pipeline import optimize
from passes.program import GemmCall, LoopCall, Program, Unfused
from runtime.fetches import flatten
from runtime.session import unify_constraints

CATALOGUE = entries()


def lowered(fetches: Any) -> Program:
    graph = flatten(fetches).graph
    unifier = unify_constraints(graph.nodes)
    return lower(optimize(graph, unifier=unifier), unifier=unifier)


def notes(fetches: Any) -> tuple[KernelNote, ...]:
    return explain(lowered(fetches), {}, {}).kernels


def only(fetches: Any) -> KernelNote:
    (note,) = notes(fetches)
    return note


def matrix(name: str = "x", dtype: str = "float32") -> Tensor:
    return gc.placeholder(("n", 4), dtype, name=name)


def test_an_elementwise_kernel() -> None:
    x, y = matrix(), gc.placeholder((4,), name="y")
    z = gc.exp(x * 2 + y)
    note = only(z)
    assert note.number == 0
    assert note.role == "forward"
    assert sorted(note.ops) == ["add", "exp", "multiply"]
    assert note.lines == (z.node.where,)
    assert note.flops == 3 * 4 * Dim(matrix().shape[0].terms)
    assert {(t.name, t.type) for t in note.reads} >= {("x", "float32[n, 4]"), ("y", "float32[4]")}
    assert [(t.type, str(t.bytes)) for t in note.writes] == [("float32[n, 4]", "16*n")]
    assert {a.role for a in note.axes} == {"parallel"}
    assert note.intensity is None
    assert not note.neighbours


N = gc.dim("n")
FLOPS: dict[str, tuple[Any, Any]] = {
    # what is fetched, and its operations
    "choosing counts nothing": (lambda x: gc.where(x > 0, x, 0), 0),
    "integers count nothing": (lambda x: gc.astype(x > 0, "int64") * 3 + 1, 0),
    "a square is one": (lambda x: gc.square(x), 4 * N),
    "exp is one": (lambda x: gc.exp(x), 4 * N),
    "a sum along rows": (lambda x: gc.sum(x, 1), 4 * N),
    "a sum of products along rows": (lambda x: gc.sum(x * x * 0.5, 1), 12 * N),
    "what is constant along a row is counted once for the row": (lambda x: gc.sum(x, 1) * 0.5 + 1, 6 * N),
    "a product of matrices": (lambda x: x @ gc.placeholder((4, 5), name="w"), 40 * N),
    "a product with its epilogue": (
        lambda x: gc.tanh(x @ gc.placeholder((4, 5), name="w") + gc.placeholder((5,), name="b")),
        (40 + 10) * N,
    ),
    "a sum over rows, in blocks": (lambda x: gc.sum(gc.square(x), 0), 8 * N + 4 * gc.dim("splits")),
    "a batch of products": (
        lambda x: gc.placeholder((3, "n", 4), name="a") @ gc.placeholder((3, 4, 5), name="b"),
        120 * N,
    ),
}


@pytest.mark.parametrize("name", FLOPS)
def test_flops(name: str) -> None:
    build, expected = FLOPS[name]
    assert sum((n.flops for n in notes(build(matrix()))), start=0) == expected  # type: ignore[misc]


def test_both_halves_of_a_split_reduction() -> None:
    x = matrix()
    first, second = notes([gc.sum(gc.exp(x)) * 3])
    assert "exp" in first.ops
    assert "exp" not in second.ops
    assert "multiply" in second.ops
    assert "multiply" not in first.ops
    assert "sum" in first.ops
    assert "sum" in second.ops
    assert [t.name for t in first.writes] == ["parts of sum"]
    assert [(n.kernel, n.through) for n in first.neighbours] == [(1, "parts of sum")]
    assert "partial results" in first.neighbours[0].why
    assert str(first.writes[0].bytes) == "4*splits"
    assert first.flops == 8 * N


def test_roles_and_lines_of_a_training_step() -> None:
    x, w = matrix(), gc.parameter(np.ones((4, 3), np.float32), name="w")
    h = gc.tanh(x @ w)
    loss = gc.mean(gc.square(h))
    train = gc.optim.Adam(0.1).minimize(loss)
    lines = {h.node.where, loss.node.where, train.assigns[0].where}
    found = notes([loss, train])
    assert set().union(*(n.lines for n in found)) <= lines | {loss.node.inputs[0].node.where}
    assert set().union(*(set(n.role.split(" and ")) for n in found)) == {"forward", "backward", "update"}
    (update,) = [n for n in found if any(t.name == "w" for t in n.writes)]
    assert "update" in update.role
    assert {t.name for t in update.writes if t.kind == "parameter"} == {"w", "w/adam_m", "w/adam_v"}


def test_neighbours_and_the_reason_they_are_apart() -> None:
    x = matrix()
    h = gc.exp(x)
    program = lowered([h @ gc.placeholder((4, 4), name="w"), gc.sum(h, 1)])
    (maker,) = [i for i, c in enumerate(program.calls) if isinstance(c, LoopCall) and "exp" in c.label]
    (product,) = [i for i, c in enumerate(program.calls) if isinstance(c, GemmCall)]
    (tensor,) = [b.tensor for b in program.calls[maker].writes if b in program.calls[product].reads]
    assert tensor is not None
    reason = Unfused(maker, product, tensor, "a product is computed by BLAS")
    told = explain(dataclasses.replace(program, unfused=(reason,)), {}, {})
    silent = explain(dataclasses.replace(program, unfused=()), {}, {})
    assert [(n.through, n.why) for n in told.kernels[maker].neighbours if n.kernel == product] == [
        ("exp", "a product is computed by BLAS")
    ]
    assert f"-> {product} through exp: a product is computed by BLAS" in str(told)
    assert f"-> {product} through exp\n" in f"{silent}\n"
    (own,) = [n.why for n in explain(program, {}, {}).kernels[maker].neighbours if n.kernel == product]
    assert own  # the compiler has a reason of its own


def test_every_maker_of_a_part_has_the_reader_of_the_whole() -> None:
    parts = [gc.exp(matrix("x")) @ gc.placeholder((4, 4)), gc.placeholder((4, "n"), name="y").T, matrix("z")]
    program = lowered(gc.cumulative_sum(gc.concat(parts, 0), 0))
    (reader,) = [i for i, c in enumerate(program.calls) if "cumulative" in c.label]
    whole = program.calls[reader].reads[0]
    makers = [i for i, c in enumerate(program.calls) if whole in c.writes]
    assert len(makers) > 1
    told = explain(program, {}, {}).kernels
    assert all([n.kernel for n in told[i].neighbours].count(reader) == 1 for i in makers)


@pytest.mark.parametrize("number", range(30))
def test_formulas_give_the_numbers(number: int) -> None:
    """With symbols and with numbers the same is said, and every reader of a kernel's result is one."""
    case, _ = draw(11, number, CATALOGUE)
    program = lowered(case.fetches)
    formulas = explain(program, {}, {})
    told = {(k.number, n.kernel): n.why for k in formulas.kernels for n in k.neighbours}
    assert all(told[u.producer, u.consumer] for u in program.unfused)
    for run in (run for run in range(len(case.runs)) if holds(case, run)):
        values = case.extents(run)
        sizes = {
            b.id: evaluate(b.dtype.itemsize * product(b.shape), values) * (5 if b.kind == "partial" else 1)
            for b in program.buffers
        }
        numbers = explain(program, values, sizes)
        at = {**values, Symbol("splits"): 5}
        for formula, note in zip(formulas.kernels, numbers.kernels, strict=True):
            pairs = [(formula.bytes_read, note.bytes_read), (formula.bytes_written, note.bytes_written)]
            if all(values.values()):  # of no elements there are no slices either
                pairs += [(p.extent, q.extent) for p, q in zip(formula.axes, note.axes, strict=True)]
                pairs += [] if formula.flops is None or note.flops is None else [(formula.flops, note.flops)]
            assert [evaluate(a, at) for a, _ in pairs] == [b for _, b in pairs]
            assert note.intensity is None or note.intensity >= 0
        assert all(len(line) <= 120 for line in f"{formulas}\n{numbers}".splitlines())
    for note in formulas.kernels:
        for neighbour in note.neighbours:
            assert neighbour.kernel > note.number
            assert neighbour.through in {t.name for t in formulas.kernels[neighbour.kernel].reads}


# From a step.


def test_a_step_explains_itself() -> None:
    x = matrix()
    with gc.Session() as session:
        step = session.compile([gc.sum(gc.exp(x)), x @ gc.placeholder((4, 2), name="w")], feeds=[x, "w"])
        told = step.explain()
        assert len(told.kernels) == len(step.kernels)
        assert any(symbols(n.bytes_read) for n in told.kernels)
        for numbers in (step.explain(n=1000), step.explain(np.ones((1000, 4)), np.ones((4, 2)))):
            assert "at n = 1000" in str(numbers)
            assert all(isinstance(n.bytes_read, int) and isinstance(n.intensity, float) for n in numbers.kernels)
            assert any(t.type == "float32[1000, 4]" for n in numbers.kernels for t in n.reads)
        step(np.ones((7, 4)), np.ones((4, 2)))
        assert "n = 7" not in str(step.explain())  # symbolic unless asked


def test_fixed_extents_are_numbers_without_being_asked() -> None:
    with gc.Session() as session:
        told = session.compile(gc.sum(gc.placeholder((30, 40), name="x") * 2, 1)).explain()
    assert [n.flops for n in told.kernels] == [2400]
    assert all(n.bytes_read >= 4800 for n in told.kernels)


def test_the_reference_has_no_kernels() -> None:
    with gc.Session("reference") as session:
        told = session.compile(matrix() * 2).explain()
    assert told.kernels == ()
    assert str(told).startswith("no kernels: device 'reference'")


def test_extents_are_checked() -> None:
    x = matrix()
    with gc.Session() as session:
        step = session.compile(x * 2)
        with pytest.raises(FeedError, match=r"no extent of the feeds is named batch; there are: n"):
            step.explain(batch=3)
        with pytest.raises(FeedError, match=r"an extent is an int of at least 0, got n=-1"):
            step.explain(n=-1)
        with pytest.raises(FeedError, match=r"give arrays or extents by name, not both"):
            step.explain(np.ones((2, 4)), n=2)
        with pytest.raises(FeedError, match=r"axis 1 must have extent 4"):
            step.explain(np.ones((2, 5)))
