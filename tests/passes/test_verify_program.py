"""The verifier of lowered programs: what a mistake of scheduling or of joining calls would leave behind is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.dims import Unifier
from graphc.errors import CompilerError
from passes import lower as lowering
from passes.graph import Graph
from passes.lower import lower
from passes.pipeline import optimize
from passes.program import Buffer, GemmCall, LoopCall, Operand, Program
from passes.verify import verify_program


@pytest.fixture
def program() -> Program:
    """A product, whose result a routine reads, and an elementwise kernel."""
    x, w = gc.placeholder(("n", 3), name="x"), gc.placeholder((3, 5), name="w")
    found = lower(optimize(Graph((gc.cumulative_sum(x @ w, 0), gc.exp(w)), ())))
    verify_program(found, Unifier())
    return found


def refused(program: Program, match: str) -> str:
    with pytest.raises(CompilerError, match=match) as error:
        verify_program(program, Unifier())
    return str(error.value)


def product_of(program: Program) -> GemmCall:
    (found,) = [c for c in program.calls if isinstance(c, GemmCall)]
    return found


def with_loop(program: Program, change: Callable[[Operand], Operand]) -> Program:
    """The program in which the exponential's written operand is another."""
    (loop,) = [c for c in program.calls if isinstance(c, LoopCall) and "exp" in c.label]
    operands = [change(o) if "w" in a.mode else o for o, a in zip(loop.operands, loop.kernel.args, strict=True)]
    changed = dataclasses.replace(loop, operands=tuple(operands))
    return dataclasses.replace(program, calls=tuple(changed if c is loop else c for c in program.calls))


def test_a_result_that_is_read_before_it_is_written(program: Program) -> None:
    text = refused(dataclasses.replace(program, calls=program.calls[::-1]), "which no call before it writes")
    assert "test_verify_program.py" in text


def test_a_fetched_result_that_nothing_writes(program: Program) -> None:
    calls = tuple(c for c in program.calls if "exp" not in c.label)
    refused(dataclasses.replace(program, calls=calls), "which is fetched")


def test_a_product_in_a_buffer_of_another_size(program: Program) -> None:
    call = product_of(program)
    small = Buffer(99, "temp", (call.m,), call.c.dtype)
    calls = tuple(dataclasses.replace(c, c=small) if c is call else c for c in program.calls)
    text = refused(dataclasses.replace(program, calls=calls), "writes 5\\*n elements to temp 99, which has n")
    assert "matmul" in text


@pytest.mark.parametrize(("offset", "stride"), [(1, 1), (-1, 1), (0, 2), (0, -1), (15, -2)])
def test_a_write_outside_its_buffer(program: Program, offset: int, stride: int) -> None:
    def moved(operand: Operand) -> Operand:
        return dataclasses.replace(operand, strides=(stride,), offset=offset)

    def backwards(operand: Operand) -> Operand:
        return dataclasses.replace(operand, strides=(-1,), offset=14)

    verify_program(with_loop(program, backwards), Unifier())
    refused(with_loop(program, moved), r"writes elements -?\d+ to \d+ of output \d+, which has 15")


def test_sessions_verify_their_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lowering, "schedule", lambda calls, *_: sorted(calls, key=lambda c: isinstance(c, LoopCall)))
    x = gc.placeholder((2, 3), name="x")
    y = gc.cumulative_sum(gc.exp(x), 0) @ np.ones((3, 2), np.float32)
    monkeypatch.setenv("GRAPHC_VERIFY", "1")
    with gc.Session() as session, pytest.raises(CompilerError, match="which no call before it writes"):
        session.run(y, {x: np.ones((2, 3))})
