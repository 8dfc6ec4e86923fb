"""Epilogues: in whose memory a product is made."""

import itertools
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.dims import Unifier
from graphc.dtypes import float64
from passes.epilogue import joined
from passes.loop_ir import Arg, Instr, LoopKernel
from passes.program import Buffer, GemmCall, LoopCall, Operand
from passes.verify import verify_program


@pytest.mark.parametrize("order", list(itertools.permutations(["product", "scale", "result"])), ids=" ".join)
def test_a_product_is_made_where_its_epilogue_writes(order: tuple[str, ...]) -> None:
    """Whatever the order of the kernel's arguments: never in the memory of the scalar beside it."""
    a, b, product, scale, result = (
        Buffer(i, "temp", shape, float64) for i, shape in enumerate([(4, 3), (3, 5), (4, 5), (), (4, 5)])
    )
    buffers = {"product": product, "scale": scale, "result": result}
    place = {name: i for i, name in enumerate(order)}
    strides = {name: (0, 0) if name == "scale" else (5, 1) for name in order}
    args = tuple(Arg(float64, "w" if n == "result" else "r", "00" if n == "scale" else "s1") for n in order)
    body = (
        Instr("load", float64, attr=place["product"]), Instr("load", float64, attr=place["scale"]),
        Instr("binary", float64, (0, 1), "mul"), Instr("store", float64, (2,), place["result"]),
    )  # fmt: skip
    operands = tuple(Operand(buffers[name], strides[name]) for name in order)
    loop = LoopCall(LoopKernel("pp", args, (body,)), operands, (4, 5), (), "scaled", ())
    gemm = GemmCall(
        Operand(a, (3,)), Operand(b, (5,)), product, False, False, (), 4, 5, 3, 1.0, 0.0, "matmul", ()
    )  # fmt: skip
    found = joined(gemm, loop, private=True)
    assert found.c is result
    assert found.epilogue is not None
    pairs = zip(found.epilogue.operands, found.epilogue.kernel.args, strict=True)
    assert {operand.buffer: arg.mode for operand, arg in pairs} == {scale: "r", result: "rw"}


def test_memory_that_is_written_before_the_product_is_read_is_not_the_products() -> None:
    """A row of another value is kept in a result's memory, in the very stage that goes on to the product."""
    a, b, product, other, result = (
        Buffer(i, "temp", shape, float64) for i, shape in enumerate([(4, 3), (3, 5), (4, 5), (4, 5), (4, 5)])
    )
    args = tuple(Arg(float64, mode, "s1") for mode in ("r", "r", "w"))
    early = (
        Instr("load", float64, attr=1), Instr("store", float64, (0,), 2), Instr("load", float64, attr=0),
        Instr("reduce", float64, (2,), "add"),
    )  # fmt: skip
    late = (Instr("load", float64, attr=2), Instr("binary", float64, (4, 3), "mul"), Instr("store", float64, (5,), 2))
    operands = tuple(Operand(buffer, (5, 1)) for buffer in (product, other, result))
    loop = LoopCall(LoopKernel("pr", args, (early, late)), operands, (4, 5), (), "kept", ())
    gemm = GemmCall(
        Operand(a, (3,)), Operand(b, (5,)), product, False, False, (), 4, 5, 3, 1.0, 0.0, "matmul", ()
    )  # fmt: skip
    found = joined(gemm, loop, private=True)
    assert found.c is product
    assert found.epilogue == loop


@pytest.mark.parametrize("depth", range(1, 9))
def test_products_scaled_by_a_number_that_is_computed(depth: int) -> None:
    """And everything's gradients: each product has a buffer of its own size."""
    x, z = graphc.placeholder((12, 8), "float64", name="x"), graphc.placeholder((6, 8), "float64", name="z")
    rng = np.random.default_rng(depth)
    h: Any = x
    for _ in range(depth):
        w, v = (graphc.constant(rng.normal(size=(8, 8)) * 0.3) for _ in range(2))
        h = graphc.tanh(h @ w)
        h = graphc.tanh(h - graphc.mean(h, axis=1, keepdims=True)) * graphc.sum(graphc.tanh(z @ v)) * 0.1
    fetches = [h, *graphc.gradients(graphc.mean(h * h), [x, z])]
    feeds = {x: rng.normal(size=(12, 8)), z: rng.normal(size=(6, 8))}
    with graphc.Session(threads=2) as session, graphc.Session(device="reference") as reference:
        verify_program(session.compile(fetches).program.program, Unifier())
        for found, expected in zip(session.run(fetches, feeds), reference.run(fetches, feeds), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
