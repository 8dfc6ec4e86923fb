"""The loop IR: its text, its digest, and how deep in the loops a value varies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.dtypes import bool_, float32, int64
from graphc.node import Tensor
from passes.loop_ir import Arg, Instr, LoopKernel
from passes.lower import lower
from passes.pipeline import optimize
from passes.program import LoopCall
from runtime.fetches import flatten


def calls(*fetches: Any) -> list[LoopCall]:
    found = lower(optimize(flatten(list(fetches)).graph)).calls
    return [c for c in found if isinstance(c, LoopCall)]


def only(*fetches: Any) -> LoopKernel:
    (call,) = calls(*fetches)
    return call.kernel


def double(roles: str = "p", strides: str = "1", **changes: Any) -> LoopKernel:
    body = (Instr("load", float32, (), 0), Instr("binary", float32, (0, 0), "add"), Instr("store", float32, (1,), 1))
    args = (Arg(float32, "r", strides), Arg(float32, "w", strides))
    return LoopKernel(roles, args, (body,), **changes)


def test_text() -> None:
    assert double().text.splitlines() == [
        "kernel p extents=0 guards=0",
        "  arg 0: float32 r [1]",
        "  arg 1: float32 w [1]",
        "  stage 0:",
        "    v0 = load 0 : float32",
        "    v1 = binary add v0 v0 : float32",
        "    store 1 v1 : float32",
    ]


def test_kernels_are_equal_when_their_texts_are() -> None:
    assert double().digest == double().digest
    different = [
        double(), double("r"), double(strides="s"), double("pp", "s1"), double(extents=1), double(guards=1),
        double(split=True),
        LoopKernel("p", (Arg(float32, "rw", "1"),), (double().stages[0][:2], (Instr("store", float32, (1,), 0),))),
        LoopKernel("p", (Arg(float32, "r", "1"), Arg(float32, "w", "1", per_split=True)), double().stages),
    ]  # fmt: skip
    assert len({k.digest for k in different}) == len(different)


def test_a_constants_type_and_sign_are_in_the_text() -> None:
    texts = {
        str(Instr("const", dtype, (), repr(np.asarray(value, dtype).item())))
        for value, dtype in [(0.0, float32), (-0.0, float32), (0, int64), (False, bool_), (np.nan, float32)]
    }
    assert len(texts) == 5


def test_levels() -> None:
    x, row, scalar = gc.placeholder(("n", "m"), name="x"), gc.placeholder(("n", 1)), gc.placeholder(())
    kernel = only(x * gc.exp(row) + gc.abs(scalar))
    levels = {str(i): kernel.levels[n] for stage in kernel.numbered for n, i in stage}
    found = {text.split(" ")[0]: set() for text in levels}
    for text, level in levels.items():
        found[text.split(" ")[0]].add(level)
    assert found["load"] == {0, 1, 2}
    assert found["store"] == {2}
    assert [kernel.levels[n] for s in kernel.numbered for n, i in s if i.attr == "exp"] == [1]
    assert [kernel.levels[n] for s in kernel.numbered for n, i in s if i.attr == "abs"] == [0]


def test_levels_of_reductions() -> None:
    x = gc.placeholder(("n", "m"), name="x")
    for kernel, level in ((only(gc.sum(x, 1)), 1), (only(gc.sum(gc.placeholder((4, 4)))), 0)):
        assert [kernel.levels[n] for s in kernel.numbered for n, i in s if i.op == "reduce"] == [level]
    head, tail = (c.kernel for c in calls(gc.sum(x, 0)))
    assert head.split
    assert not tail.split
    assert {k.levels[n] for k in (head, tail) for s in k.numbered for n, i in s if i.op == "reduce"} == {2}


CASES: dict[str, tuple[Any, str, list[str]]] = {
    "contiguous": (lambda x, y: x + 1, "p", ["1", "0", "1"]),
    "transposed": (lambda x, y: x.T + 1, "pp", ["1s", "00", "s1"]),
    "both ways": (lambda x, y: x + x.T, "pp", ["s1", "1s", "s1"]),
    "a row": (lambda x, y: x + y, "pp", ["s1", "01", "s1"]),
    "a column": (lambda x, y: x + gc.expand_dims(y, 1), "pp", ["s1", "10", "s1"]),
    "row sums": (lambda x, y: gc.sum(x, 1), "pr", ["s1", "10"]),
    "column sums": (lambda x, y: gc.sum(x, 0), "rp", ["s1", "01"]),
    "batches": (lambda x, y: gc.reshape(x, ("n", 2, -1)).mT + 1, "ppp", ["s1s", "000", "ss1"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_strides(name: str) -> None:
    """Strides are known as 0, 1 or a run-time number, and nothing else about shapes is in a kernel."""
    form, roles, strides = CASES[name]
    x, y = gc.placeholder(("n", "n"), name="x"), gc.placeholder(("n",), name="y")
    kernel = calls(form(x, y))[0].kernel
    assert kernel.roles == roles
    found = [a.strides for a in kernel.args]
    assert found == strides or (kernel.split and len(found) == len(strides))


def test_an_argument_for_each_way_of_walking_a_buffer() -> None:
    x = gc.placeholder(("n", "n"), name="x")
    (call,) = calls(x * 2 + x.T * x)
    assert [o.buffer.kind for o in call.operands].count("feed") == 2


def test_a_buffer_read_and_written_at_one_place_is_one_argument() -> None:
    p = gc.parameter(np.ones((3, 4), np.float32), name="p")
    (call,) = calls(gc.assign(p, p * 2 + 1))
    assert [a.mode for a, o in zip(call.kernel.args, call.operands, strict=True) if o.buffer.kind == "parameter"] == [
        "rw"
    ]


def test_indices_are_named_by_their_collapsed_axis() -> None:
    x: Tensor = gc.placeholder((2, "n", 3), "int64", name="x")
    (call,) = calls(x + gc.expand_dims(gc.arange("n"), 1))
    (index,) = [i for i in call.kernel.instructions() if i.op == "index"]
    assert call.axes[index.attr] == gc.dim("n")
