"""Simplification: what each rule leaves of a graph, every bit of special values, and what must not be simplified."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from rewrite_checks import applied, computing, evaluated, graph_of, run, same_bits, special

import graphc as gc
from graphc import ops
from graphc.dims import Extent
from graphc.node import Tensor, make_node
from graphc.opdef import OpDef
from passes.simplify import RULES, simplify
from passes.simplify.algebra import (
    ABSORBING,
    DECIDED,
    IDEMPOTENT,
    IDENTICAL,
    INVOLUTIONS,
    NEUTRAL,
    WHOLE,
)

DTYPES = {"f": ("float32", "float64"), "i": ("int8", "int64"), "u": ("uint8", "uint64"), "b": ("bool",)}


def pairs(dtype: str) -> tuple[Tensor, Tensor, dict[Tensor, Any]]:
    """Two placeholders, fed with all pairs of special values."""
    values = special(dtype)
    x, y = (gc.placeholder((len(values) ** 2,), dtype, name=name) for name in "xy")
    return x, y, {x: np.repeat(values, len(values)), y: np.tile(values, len(values))}


def check(y: Tensor, feeds: dict[Tensor, Any], rule: str, left: Sequence[str] | None = None) -> None:
    """``rule`` fires, ``left`` are the ops that stay, and no bit changes."""
    graph, fired = applied(simplify, y)
    assert rule in fired
    if left is not None:
        assert computing(graph) == list(left)
    assert graph.outputs[0].type == y.type
    same_bits(*evaluated(graph, feeds), *evaluated(graph_of(y), feeds))


# Rules as tables: every row, for every dtype of its kinds.


def rows(table: Sequence[tuple[Any, ...]]) -> list[Any]:
    return [
        pytest.param(row, dtype, id=f"{row[0].name}-{dtype}")
        for row in table
        for kind in row[1]
        for dtype in DTYPES[kind]
    ]


def node_of(op: OpDef, *inputs: Tensor) -> Tensor:
    return make_node(op, inputs).outputs[0]


def numbers(value: Any, x: Tensor) -> list[Tensor]:
    """A number as a scalar, broadcast, and as an array that broadcasts x."""
    array = np.asarray(value).astype(x.dtype)
    return [ops.constant(array), ops.full_like(x, array[()]), ops.constant(np.full((2, 1), array))]


@pytest.mark.parametrize(("row", "dtype"), rows(NEUTRAL))
def test_neutral_operands(row: tuple[OpDef, str, bool, Any], dtype: str) -> None:
    op, _, first, number = row
    x = gc.placeholder((len(special(dtype)),), dtype, name="x")
    for other, left in zip(numbers(number(x.dtype), x), ([], [], ["broadcast_to"]), strict=True):
        for y in (node_of(op, x, other), node_of(op, other, x))[: 2 if first else 1]:
            check(y, {x: special(dtype)}, "neutral_operand", left)


@pytest.mark.parametrize(("row", "dtype"), rows(ABSORBING))
def test_absorbing_operands(row: tuple[OpDef, str, Any], dtype: str) -> None:
    op, _, number = row
    x = gc.placeholder((len(special(dtype)),), dtype, name="x")
    for other in numbers(number(x.dtype), x):
        for y in (node_of(op, x, other), node_of(op, other, x)):
            check(y, {x: special(dtype)}, "absorbing_operand", ["broadcast_to"])


@pytest.mark.parametrize(("row", "dtype"), rows(IDENTICAL))
def test_identical_operands(row: tuple[OpDef, str], dtype: str) -> None:
    x = gc.placeholder((len(special(dtype)),), dtype, name="x")
    check(node_of(row[0], x, x), {x: special(dtype)}, "equal_operands", [])


@pytest.mark.parametrize(("row", "dtype"), rows(DECIDED))
def test_decided_by_equal_operands(row: tuple[OpDef, str, Any], dtype: str) -> None:
    x = gc.placeholder((len(special(dtype)),), dtype, name="x")
    check(node_of(row[0], x, x), {x: special(dtype)}, "equal_operands", ["broadcast_to"])


def functions(table: Sequence[OpDef]) -> list[Any]:
    return [
        pytest.param(op, dtype, id=f"{op.name}-{dtype}")
        for op in table for kind in op.domain.kinds[0] for dtype in DTYPES[kind]
    ]  # fmt: skip


@pytest.mark.parametrize(("op", "dtype"), functions(INVOLUTIONS))
def test_functions_that_undo_themselves(op: OpDef, dtype: str) -> None:
    x = gc.placeholder((len(special(dtype)),), dtype, name="x")
    check(node_of(op, node_of(op, x)), {x: special(dtype)}, "involution", [])


@pytest.mark.parametrize(("op", "dtype"), functions(IDEMPOTENT))
def test_functions_that_leave_their_results(op: OpDef, dtype: str) -> None:
    x = gc.placeholder((len(special(dtype)),), dtype, name="x")
    twice = node_of(op, node_of(op, x))
    assert computing(simplify(graph_of(twice))) == ([] if dtype[0] == "u" and op.name == "abs" else [op.name])
    same_bits(
        *evaluated(simplify(graph_of(twice)), {x: special(dtype)}), *evaluated(graph_of(twice), {x: special(dtype)})
    )


@pytest.mark.parametrize("outer", WHOLE, ids=lambda op: op.name)
@pytest.mark.parametrize(("inner", "dtype"), functions(WHOLE))
def test_rounding_again(outer: OpDef, inner: OpDef, dtype: str) -> None:
    x = gc.placeholder((len(special(dtype)),), dtype, name="x")
    y = node_of(outer, node_of(inner, x))
    floats = dtype[0] == "f"
    check(
        y,
        {x: special(dtype)},
        "rounding_of_whole_numbers" if floats else "identity_of_integers",
        [inner.name] if floats else [],
    )


# Rules of two operands, over all pairs of special values.

FLOAT, SIGNED, INTEGERS = ("float32", "float64"), ("int8", "int64"), ("int8", "int64", "uint8", "uint64")
NUMBERS = (*FLOAT, *INTEGERS)
Build = Callable[[Tensor, Tensor], Tensor]


def _both(condition: Tensor, choose: Callable[[Tensor], Tensor]) -> Tensor:
    """Choices by one and the same condition."""
    return choose(condition)


def one_of(rows: Extent, extent: int) -> gc.Tensor:
    """For each row another index, as a loss has them from its labels."""
    index = ops.check_index(ops.arange(rows) % extent, extent)
    return ops.equal(index[:, None], ops.arange(extent))


EXACT: dict[str, tuple[str, Sequence[str], Build, Sequence[str] | None]] = {
    "x * -1": ("times_minus_one", (*FLOAT, *SIGNED), lambda x, y: x * -1, ["negative"]),
    "-1 * x": ("times_minus_one", (*FLOAT, *SIGNED), lambda x, y: -1 * x, ["negative"]),
    "x / -1": ("times_minus_one", FLOAT, lambda x, y: x / -1, ["negative"]),
    "x / 4": ("divide_by_power_of_two", FLOAT, lambda x, y: x / 4, ["multiply"]),
    "x / -0.5": ("divide_by_power_of_two", FLOAT, lambda x, y: x / -0.5, ["multiply"]),
    "x / 2**126": ("divide_by_power_of_two", FLOAT, lambda x, y: x / 2.0**126, ["multiply"]),
    "x / 2**-126": ("divide_by_power_of_two", FLOAT, lambda x, y: x / 2.0**-126, ["multiply"]),
    "x / twos": ("divide_by_power_of_two", FLOAT, lambda x, y: x / ops.full_like(x, 2), ["multiply"]),
    "x + -y": ("add_of_negative", NUMBERS, lambda x, y: x + ops.negative(y), ["subtract"]),
    "-x + y": ("add_of_negative", NUMBERS, lambda x, y: ops.negative(x) + y, ["subtract"]),
    "x - -y": ("subtract_negative", NUMBERS, lambda x, y: x - ops.negative(y), ["add"]),
    "-0.0 - x": ("subtract_from_zero", FLOAT, lambda x, y: -0.0 - x, ["negative"]),
    "0 - i": ("subtract_from_zero", SIGNED, lambda x, y: 0 - x, ["negative"]),
    "-(i - j)": ("negative_of_difference", INTEGERS, lambda x, y: ops.negative(x - y), ["subtract"]),
    "-x * -y": ("two_signs", NUMBERS, lambda x, y: ops.negative(x) * ops.negative(y), ["multiply"]),
    "-x / -y": ("two_signs", FLOAT, lambda x, y: ops.negative(x) / ops.negative(y), ["divide"]),
    "-x * 3": ("sign_into_constant", NUMBERS, lambda x, y: ops.negative(x) * 3, ["multiply"]),
    "0.3 * -x": ("sign_into_constant", FLOAT, lambda x, y: 0.3 * -x, ["multiply"]),
    "-x / 0.3": ("sign_into_constant", FLOAT, lambda x, y: -x / 0.3, ["divide"]),
    "0.3 / -x": ("sign_into_constant", FLOAT, lambda x, y: 0.3 / -x, ["divide"]),
    "-(3 * x)": ("negative_of_multiple", NUMBERS, lambda x, y: ops.negative(3 * x), ["multiply"]),
    "(i + 100) + 100": ("integer_constants", INTEGERS, lambda x, y: (x + 100) + 100, ["add"]),
    "3 * (i * 50)": ("integer_constants", INTEGERS, lambda x, y: 3 * (x * 50), ["multiply"]),
    "x * x": ("multiply_by_itself", NUMBERS, lambda x, y: x * x, ["square"]),
    "sum(where(i == 0, 1, ..., x, 0))": (
        "sum_of_one_hot", (*FLOAT, "int64", "uint64"),
        lambda x, y: ops.sum(ops.where(one_of(x.shape[0], 5), x[:, None], 0), 1), None,
    ),
    "sum(where(0, 1, ... == i, x, -0))": (
        "sum_of_one_hot", FLOAT, lambda x, y: ops.sum(ops.where(one_of(x.shape[0], 3), x[:, None], -0.0), -1), None,
    ),
    "|-x|": ("even_function", (*FLOAT, *SIGNED), lambda x, y: abs(-x), ["abs"]),
    "(-x)**2": ("even_function", NUMBERS, lambda x, y: ops.square(ops.negative(x)), ["square"]),
    "|x|**2": ("even_function", (*FLOAT, *SIGNED), lambda x, y: ops.square(abs(x)), ["square"]),
    "|u|": ("identity_of_integers", ("uint8", "uint64"), lambda x, y: abs(x), []),
    "i ** 2": ("power_of_two", INTEGERS, lambda x, y: ops.pow(x, ops.full_like(x, 2)), ["square"]),
    "not (x == y)": ("not_of_comparison", (*NUMBERS, "bool"), lambda x, y: ~(x == y), ["not_equal"]),
    "not (x != y)": ("not_of_comparison", (*NUMBERS, "bool"), lambda x, y: ~(x != y), ["equal"]),
    "not (i < j)": ("not_of_comparison", (*INTEGERS, "bool"), lambda x, y: ~(x < y), ["greater_equal"]),
    "not (i <= j)": ("not_of_comparison", (*INTEGERS, "bool"), lambda x, y: ~(x <= y), ["greater"]),
    "not (i > j)": ("not_of_comparison", (*INTEGERS, "bool"), lambda x, y: ~(x > y), ["less_equal"]),
    "not (i >= j)": ("not_of_comparison", (*INTEGERS, "bool"), lambda x, y: ~(x >= y), ["less"]),
    "where(c, x, x)": ("where_choices_are_one", NUMBERS, lambda x, y: gc.where(x > y, x, x), []),
    "where(True, x, y)": ("where_condition_is_known", NUMBERS, lambda x, y: gc.where(gc.constant(True), x, y), []),
    "where(False, x, y)": ("where_condition_is_known", NUMBERS,
                           lambda x, y: gc.where(gc.constant(np.zeros(1, bool)), x, y), []),
    "where(not c, x, y)": ("where_not", NUMBERS, lambda x, y: gc.where(~gc.logical_and(x > 1, y > 1), x, y),
                           ["greater", "greater", "logical_and", "where"]),
    "where(c, True, False)": ("where_of_bools", NUMBERS, lambda x, y: gc.where(x > y, True, False), ["greater"]),
    "where(c, False, True)": ("where_of_bools", FLOAT, lambda x, y: gc.where(x > y, False, True),
                              ["greater", "logical_not"]),
    "where(c, where(c, x, y), z)": ("where_of_where", NUMBERS,
                                    lambda x, y: _both(x > y, lambda c: gc.where(c, gc.where(c, x, y), y + 1)),
                                    ["greater", "add", "where"]),
    "where(c, x, where(c, y, z))": ("where_of_where", NUMBERS,
                                    lambda x, y: _both(x > y, lambda c: gc.where(c, x, gc.where(c, x + 1, y))),
                                    ["greater", "where"]),
    "stop_gradient": ("stop_gradient_is_done", NUMBERS, lambda x, y: gc.stop_gradient(x), []),
}  # fmt: skip
CASES = [pytest.param(name, dtype, id=f"{name}-{dtype}") for name, case in EXACT.items() for dtype in case[1]]


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_exact(name: str, dtype: str) -> None:
    rule, _, build, left = EXACT[name]
    x, y, feeds = pairs(dtype)
    check(build(x, y), feeds, rule, left)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int64", "uint8", "uint64", "bool"])
def test_compiled(dtype: str) -> None:
    """All rules at once, through every pass and the kernels: every bit as in the reference, which has no passes."""
    x, y, feeds = pairs(dtype)
    built = {name: case[2](x, y) for name, case in EXACT.items() if dtype in case[1]}
    found, expected = (run(list(built.values()), feeds, device) for device in ("cpu", "reference"))
    for name, mine, theirs in zip(built, found, expected, strict=True):
        try:
            same_bits(mine, theirs)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def test_what_is_no_sum_of_a_one_hot_choice() -> None:
    x, i = gc.placeholder((4, 5), name="x"), gc.placeholder((4,), "int64", name="i")
    checked = ops.check_index(i, 5)[:, None]
    same = ops.equal(checked, ops.arange(5))
    bytes_ = ops.equal(ops.astype(checked, "uint8"), ops.arange(5, "uint8"))
    for y in (
        ops.sum(ops.where(same, x, 0), 1),  # x varies
        ops.sum(ops.where(same, x[:, :1], 0), 0),  # along another axis
        ops.sum(ops.where(same, x[:, :1], 1), 1),  # not zeros
        ops.sum(ops.where(ops.equal(i[:, None], ops.arange(5)), x[:, :1], 0), 1),  # perhaps not in range
        ops.sum(ops.where(ops.equal(ops.check_index(i, 7)[:, None], ops.arange(5)), x[:, :1], 0), 1),
        ops.sum(ops.where(bytes_, x[:, :1], 0), 1),  # counts that wrap around might hit twice
    ):
        assert "sum_of_one_hot" not in applied(simplify, y)[1]
    wide = ops.broadcast_to(x[:, :1], (4, 5))
    assert applied(simplify, ops.sum(ops.where(same, wide, 0), 1))[1] == {"sum_of_one_hot": 1}
    kept = ops.sum(ops.where(same, x[:, :1], 0), 1, keepdims=True)
    assert applied(simplify, kept)[1] == {"sum_of_one_hot": 1}


def test_a_square_is_rounded_correctly() -> None:
    """The one rule that may change a last bit: x ** 2 of floats."""
    x = gc.placeholder((1000,), name="x")
    y = ops.pow(x, ops.constant(2.0))
    graph, fired = applied(simplify, y)
    assert fired == {"power_of_two": 1}
    points = np.concatenate([special("float32"), np.random.default_rng(0).normal(size=983)]).astype(np.float32)
    with np.errstate(all="ignore"):
        exact = (points.astype(np.float64) ** 2).astype(np.float32)
    same_bits(evaluated(graph, {x: points})[0], exact)
    np.testing.assert_allclose(evaluated(graph_of(y), {x: points})[0], exact, rtol=2.0**-23)


# What must stay, because some value would change.

REFUSED: dict[str, tuple[Sequence[str], Build]] = {
    "x + 0 turns -0.0 into 0.0": (FLOAT, lambda x, y: x + 0),
    "0 + x turns -0.0 into 0.0": (FLOAT, lambda x, y: 0 + x),
    "x - -0.0 turns -0.0 into 0.0": (FLOAT, lambda x, y: x - (-0.0)),
    "0 - x is 0.0 for 0.0": (FLOAT, lambda x, y: 0 - x),
    "x * 0 keeps NaN": (FLOAT, lambda x, y: x * 0),
    "x - x keeps NaN": (FLOAT, lambda x, y: x - x),
    "x / x keeps NaN": (FLOAT, lambda x, y: x / x),
    "x == x finds NaN": (FLOAT, lambda x, y: x == x),
    "x != x finds NaN": (FLOAT, lambda x, y: x != x),
    "x <= x finds NaN": (FLOAT, lambda x, y: x <= x),
    "not (x < y) with NaN": (FLOAT, lambda x, y: ~(x < y)),
    "not (x >= y) with NaN": (FLOAT, lambda x, y: ~(x >= y)),
    "-(x - y) of equals": (FLOAT, lambda x, y: -(x - y)),
    "-x - y of opposites": (FLOAT, lambda x, y: -x - y),
    "x / 3 is not x * (1 / 3)": (FLOAT, lambda x, y: x / 3),
    "x / 0": (FLOAT, lambda x, y: x / 0),
    "x / -0.0": (FLOAT, lambda x, y: x / -0.0),
    "x / inf": (FLOAT, lambda x, y: x / np.inf),
    "x / nan": (FLOAT, lambda x, y: x / np.nan),
    "x / subnormal": (("float32",), lambda x, y: x / 2.0**-130),
    "x / 2**127 has a subnormal inverse": (("float32",), lambda x, y: x / 2.0**127),
    "(x * 3) * 3 rounds twice": (FLOAT, lambda x, y: (x * 3) * 3),
    "(x + 3) + 3 rounds twice": (FLOAT, lambda x, y: (x + 3) + 3),
    "x ** 0.5 is not sqrt": (FLOAT, lambda x, y: x**0.5),
    "x ** 0.0": (FLOAT, lambda x, y: ops.pow(x, ops.constant(np.zeros((), x.dtype)))),
    "relu(-x)": (FLOAT, lambda x, y: gc.relu(-x)),
    "max(x, 0)": (FLOAT, lambda x, y: gc.maximum(x, 0)),
    "max(x, largest)": (FLOAT, lambda x, y: gc.maximum(x, np.inf)),
    "max(i, 0)": (SIGNED, lambda x, y: gc.maximum(x, 0)),
    "i * 2": (INTEGERS, lambda x, y: x * 2),
    "1 - i": (INTEGERS, lambda x, y: 1 - x),
    "0 - u": (("uint8", "uint64"), lambda x, y: 0 - x),
    "x - y + y": (NUMBERS, lambda x, y: x - y + y),
    "x * y / y": (FLOAT, lambda x, y: x * y / y),
    "where(c, x, y)": (NUMBERS, lambda x, y: gc.where(x > y, x, y)),
    "where(c, where(d, x, y), y)": (FLOAT, lambda x, y: gc.where(x > y, gc.where(y > x, x, y), y)),
    "1 / (1 / x)": (FLOAT, lambda x, y: gc.reciprocal(gc.reciprocal(x))),
    "exp(log(x))": (FLOAT, lambda x, y: gc.exp(gc.log(x))),
    "floor(x + 0.5)": (FLOAT, lambda x, y: gc.floor(x + 0.5)),
}


@pytest.mark.parametrize(
    ("name", "dtype"), [pytest.param(n, d, id=f"{n}-{d}") for n, case in REFUSED.items() for d in case[0]]
)
def test_refused(name: str, dtype: str) -> None:
    x, y, _ = pairs(dtype)
    value = REFUSED[name][1](x, y)
    graph, fired = applied(simplify, value)
    assert fired == {}
    assert graph.outputs[0] is value


def test_every_rule_is_tested() -> None:
    """Here, or beside this file with the conversions and the views."""
    tables = {
        "neutral_operand",
        "absorbing_operand",
        "equal_operands",
        "involution",
        "idempotence",
        "rounding_of_whole_numbers",
    }
    rules = {rule.__name__: rule for rules in RULES.by_op.values() for rule in rules}
    others = {name for name, rule in rules.items() if rule.__module__ != "passes.simplify.views"}
    assert others == tables | {case[0] for case in EXACT.values()} | {"conversion_of_conversion"}
    assert all(rule.__doc__ for rule in rules.values())
