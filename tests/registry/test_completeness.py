"""Every op of the registry states all that its kind demands. What it may leave out is listed here, with the reason."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from op_checks import allowance, difference
from op_samples import Sample, dtype_sets, samples

import graphc
from graphc import ops
from graphc.dims import dim, evaluate
from graphc.node import Tensor
from graphc.opdef import OPS, Kind, NotDifferentiable, OpDef, Strided, register

ALL = [pytest.param(op, id=op.name) for op in OPS.values()]

NO_REFERENCE = {
    "placeholder": "its value is fed",
    "parameter": "its value is the session's",
    "assign": "an update has no result",
    "gradient": "it is expanded before anything is evaluated",
    "custom_gradient": "its values are left of it before anything is evaluated",
    "rule_argument": "a sweep puts another tensor in its place",
    "random_key": "its value is the session's",
    "run_counter": "its value is the session's",
}
NO_SAMPLES = {
    "placeholder": "a leaf: fed in every test",
    "parameter": "a leaf: tested with sessions",
    "constant": "a leaf: tested in tests/graphc/test_dtypes.py",
    "extent": "a leaf: tested in tests/registry/test_completeness.py",
    "assign": "an update: tested with sessions",
    "gradient": "tested on every other op",
    "custom_gradient": "tested in tests/graphc/test_custom_gradient.py",
    "rule_argument": "tested in tests/graphc/test_custom_gradient.py",
    "random_key": "a leaf: tested in tests/runtime/test_random_state.py",
    "run_counter": "a leaf: tested in tests/runtime/test_random_state.py",
}
OTHER_PUBLIC_NAME = {
    "extent": "extent_value", "gradient": "gradients", "rule_argument": "custom_gradient", "slice": "sliced",
}  # fmt: skip
NOT_IN_GRAPHC = {
    "extent": "made where an extent meets a tensor",
    "check_index": "made by ops that take indices",
    "gemm_add": "made by the compiler",
    "slice": "made by x[...]",
    "gather": "made by x[...], take and take_along_axis",
    "scatter_add": "the derivative of gather",
    "linear_recurrence": "made by cumulative_prod, and the derivative of prod",
    "random_bits": "made by graphc.random",
    "random_key": "made by graphc.random",
    "run_counter": "made by graphc.random",
    "permutation": "made by graphc.random",
}
RULE_OF_KIND = {
    Kind.SCALAR: "emit", Kind.GATHER: "emit", Kind.VIEW: "index_map", Kind.COMPOSITE: "decompose",
    Kind.REDUCE: "reduce", Kind.ROUTINE: "routine",
}  # fmt: skip
COMBINE = {
    "add": np.add, "mul": np.multiply, "maximum": np.maximum, "minimum": np.minimum, "or_": np.logical_or,
    "and_": np.logical_and,
}  # fmt: skip


def test_exceptions_exist() -> None:
    listed = {*NO_REFERENCE, *NO_SAMPLES, *OTHER_PUBLIC_NAME, *NOT_IN_GRAPHC}
    assert listed <= set(OPS), f"listed here, and no ops any more: {listed - set(OPS)}"


@pytest.mark.parametrize("op", ALL)
def test_states_everything(op: OpDef) -> None:
    assert isinstance(op.kind, Kind)
    assert callable(op.infer)
    assert (op.reference is None) == (op.name in NO_REFERENCE)
    assert op.doc.endswith("."), "doc is a sentence"
    assert op.cost >= 0


@pytest.mark.parametrize("op", ALL)
def test_has_derivative_or_says_why_not(op: OpDef) -> None:
    if isinstance(op.vjp, NotDifferentiable):
        assert len(op.vjp.why.split()) > 2
    else:
        assert list(inspect.signature(op.vjp).parameters) == ["node", "g"]


@pytest.mark.parametrize("op", ALL)
def test_has_the_rule_of_its_kind_and_no_other(op: OpDef) -> None:
    stated = {rule for rule in RULE_OF_KIND.values() if getattr(op, rule) is not None}
    wanted = RULE_OF_KIND.get(op.kind)
    assert stated == ({wanted} if wanted else set())
    if op.reduce is not None:
        assert op.reduce in COMBINE


@pytest.mark.parametrize("op", ALL)
def test_states_its_domain(op: OpDef) -> None:
    domain = op.domain
    if op.name in NO_SAMPLES:
        assert not domain.kinds
        assert not op.samples
        return
    assert domain.kinds or op.samples
    assert all(kinds and set(kinds) <= set("fiub") for kinds in domain.kinds)
    assert domain.low < domain.high
    assert all(len(shapes) == len(domain.kinds) for shapes in domain.shapes)
    for build in op.samples:
        assert len(inspect.signature(build).parameters) == len(domain.kinds)


@pytest.mark.parametrize("op", ALL)
def test_has_a_public_function(op: OpDef) -> None:
    name = OTHER_PUBLIC_NAME.get(op.name, op.name)
    home = graphc if op.name not in NOT_IN_GRAPHC else ops
    function = getattr(home, name)
    assert inspect.getdoc(function), f"{name} has no docstring"
    assert name in home.__all__
    if op.name in NOT_IN_GRAPHC:
        assert name not in graphc.__all__


def test_a_name_is_registered_once() -> None:
    with pytest.raises(graphc.errors.CompilerError, match="op 'add' is registered twice"):
        register(OPS["add"])


# What the compiler takes the other rules for.


@pytest.fixture(scope="module")
def reference() -> Iterator[graphc.Session]:
    with graphc.Session(device="reference") as session:
        yield session


def of_kind(kind: Kind) -> list[object]:
    return [pytest.param(op, id=op.name) for op in OPS.values() if op.kind is kind]


def some_samples(op: OpDef) -> Iterator[Sample]:
    wanted = dtype_sets(op)
    for dtypes in [d for d in wanted if str(d[-1]) in ("float32", "int64")] or wanted[:1]:
        yield from samples(op, dtypes)


@pytest.mark.parametrize("op", of_kind(Kind.VIEW))
def test_index_map_says_what_the_reference_does(op: OpDef, reference: graphc.Session) -> None:
    for sample in some_samples(op):
        assert op.index_map is not None
        node, array = sample.result.node, sample.arrays[0]
        array = np.asarray(reference.run(node.inputs[0], sample.feeds))
        expected = np.asarray(reference.run(sample.result, sample.feeds))
        index_map = op.index_map(node)
        assert len(index_map) == array.ndim
        grid = np.indices(expected.shape)
        places = tuple(np.asarray(_walked(place, grid, sample)) for place in index_map)
        if expected.size:
            assert all(p.min() >= 0 and p.max() < e for p, e in zip(places, array.shape, strict=True))
        found = np.broadcast_to(array[places], expected.shape) if array.size else np.empty(expected.shape, array.dtype)
        assert difference(sample.label, "index_map", found, expected, 0.0) is None


def _walked(place: int | Strided | None, grid: np.ndarray[Any, Any], sample: Sample) -> Any:
    if isinstance(place, Strided):
        return evaluate(place.start, sample.values) + place.step * grid[place.axis]
    return 0 if place is None else grid[place]


@pytest.mark.parametrize("op", of_kind(Kind.COMPOSITE))
def test_decompose_says_what_the_reference_does(op: OpDef, reference: graphc.Session) -> None:
    for sample in some_samples(op):
        assert op.decompose is not None
        node = sample.result.node
        parts = op.decompose(node)
        assert parts.dtype == sample.result.dtype
        assert parts.ndim == sample.result.ndim
        expected = np.asarray(reference.run(sample.result, sample.feeds))
        allowed = allowance(op, node, sample.arrays, expected, [])
        found = reference.run(parts, sample.feeds)
        assert difference(sample.label, "decompose", found, expected, allowed) is None


@pytest.mark.parametrize("op", of_kind(Kind.REDUCE))
def test_reduce_names_the_primitive_of_the_reference(op: OpDef, reference: graphc.Session) -> None:
    combine: Any = COMBINE[op.reduce or ""]
    x = np.arange(24, dtype=np.int64).reshape(2, 3, 4) % 7 - 3
    if op.domain.kinds == ("b",):
        x = x > 1
    p = graphc.placeholder((2, 3, 4), dtype=x.dtype)
    for axis in (0, 1, -1, (0, 2), None):
        found = reference.run(getattr(graphc, op.name)(p, axis=axis), {p: x})
        assert np.array_equal(found, combine.reduce(x, axis=axis))


@pytest.mark.parametrize("op", [pytest.param(op, id=op.name) for op in OPS.values() if op.commutative])
def test_commutative_ops_commute(op: OpDef, reference: graphc.Session) -> None:
    for sample in some_samples(op):
        turned = getattr(graphc, op.name)(*sample.inputs[::-1])
        expected = np.asarray(reference.run(sample.result, sample.feeds))
        found = reference.run(turned, sample.feeds)
        assert difference(sample.label, "turned", found, expected, 0.0, signed_zeros=False) is None


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_leaves_of_symbolic_extents(device: str, n: int) -> None:
    rows = dim("rows")
    x = graphc.placeholder((rows,), name="x")
    leaves: list[Tensor] = [
        graphc.arange(rows), graphc.arange(2 * rows + 1, "float32"), ops.extent_value(rows * rows, np.dtype("int64")),
        ops.extent_value(3, np.dtype("float64")), graphc.zeros_like(x), graphc.one_hot(graphc.arange(rows), rows),
    ]  # fmt: skip
    with graphc.Session(device=device) as session:
        *found, _ = session.run([*leaves, x], {x: np.zeros(n, np.float32)})
    expected = [
        np.arange(n), np.arange(2 * n + 1, dtype=np.float32), np.int64(n * n), np.float64(3), np.zeros(n, np.float32),
        np.eye(n, dtype=np.float32),
    ]  # fmt: skip
    for leaf, value, wanted in zip(leaves, found, expected, strict=True):
        assert np.asarray(value).dtype == wanted.dtype == leaf.dtype
        assert np.array_equal(value, wanted)
        assert np.shape(value) == tuple(evaluate(e, {next(iter(graphc.dims.symbols(rows))): n}) for e in leaf.shape)


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("make", [graphc.one_hot, ops.check_index])
@pytest.mark.parametrize("bad", [-1, 3, 100])
def test_an_index_out_of_range_fails_the_run(device: str, make: object, bad: int) -> None:
    x = graphc.placeholder((3,), dtype="int32", name="x")
    with graphc.Session(device=device) as session, pytest.raises(graphc.errors.IndexRangeError) as error:
        session.run(make(x, 3), {x: np.array([0, bad, 1], np.int32)})  # type: ignore[operator]
    assert f"indices must be 0 to 2, found {min(bad, 0)} to {max(bad, 1)}" in str(error.value)
    assert "test_completeness.py" in str(error.value)
