"""``GRAPHC_DEBUG=passes``: passes broken on purpose are found and named; right ones are left in peace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import CompilerError, IndexRangeError, SessionError
from graphc.node import Node, Tensor, attrs_of
from graphc.where import derived_from
from passes import pipeline
from passes.graph import Graph, rebuild
from passes.lower import lower
from runtime.cpu import backend

RNG = np.random.default_rng(0)
SQUARE = RNG.normal(size=(4, 4)).astype(np.float32)


@pytest.fixture(autouse=True)
def debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_DEBUG", "passes")


def put(monkeypatch: pytest.MonkeyPatch, function: Callable[[Graph], Graph], before: str, **marks: bool) -> None:
    """A pass named "sabotage", run before another."""
    place = [p.name for p in pipeline.PASSES].index(before)
    broken = pipeline.Pass("sabotage", function, **marks)
    monkeypatch.setattr(pipeline, "PASSES", (*pipeline.PASSES[:place], broken, *pipeline.PASSES[place:]))


def rewriting(op: str, change: Callable[[Node, tuple[Tensor, ...]], Tensor]) -> Callable[[Graph], Graph]:
    """A pass that replaces every node of one op."""

    def rewrite(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if node.op.name != op:
            return None
        with derived_from(node.where, node.role):
            return (change(node, inputs),)

    return lambda graph: rebuild(graph, rewrite)


def other_axis(node: Node, inputs: tuple[Tensor, ...]) -> Tensor:
    """The same shape where n is 4, which is not known before the run."""
    square = node.attrs["axis"] == (0,) and node.inputs[0].ndim == 2 and not node.attrs["keepdims"]
    return node.rebuilt(inputs, attrs_of(axis=(1,), keepdims=False) if square else None).outputs[0]


def squared_negative(node: Node, inputs: tuple[Tensor, ...]) -> Tensor:
    """Right for what is positive alone."""
    return gc.exp(gc.abs(inputs[0]))


def scaled_constants(factor: float) -> Callable[[Node, tuple[Tensor, ...]], Tensor]:
    def change(node: Node, inputs: tuple[Tensor, ...]) -> Tensor:
        value = node.attrs["value"]
        return gc.constant((value * factor).astype(value.dtype))

    return change


def merged_by_op(graph: Graph) -> Graph:
    """As common subexpressions, but blind for inputs."""
    first: dict[Any, tuple[Tensor, ...]] = {}

    def rewrite(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return first.setdefault(node.results, node.rebuilt(inputs).outputs) if node.op.name == "exp" else None

    return rebuild(graph, rewrite)


BROKEN: dict[str, tuple[str, Callable[[Graph], Graph], str]] = {
    # name: (the pass before which it runs, the pass, the op that the error must name)
    "a constant that is a tenth wrong": ("fold", rewriting("constant", scaled_constants(1.1)), "constant"),
    "a constant that is a thousandth wrong": ("stabilise", rewriting("constant", scaled_constants(1.001)), "constant"),
    "swapped operands": ("cse", rewriting("subtract", lambda n, i: i[1] - i[0]), "subtract"),
    "a negation too many": ("gemm", rewriting("tanh", lambda n, i: gc.tanh(-i[0])), "tanh"),
    "the wrong axis of a square": ("simplify", rewriting("sum", other_axis), "sum"),
    "the wrong extremum": ("simplify-again", rewriting("max", lambda n, i: gc.min(i[0], 0)), "max"),
    "right for some values": ("gradients", rewriting("exp", squared_negative), "exp"),
    "different nodes merged": ("decompose", merged_by_op, "exp"),
    "integers off by one": ("decompose", rewriting("one_hot", lambda n, i: gc.one_hot(3 - i[0], 4)), "one_hot"),
}  # fmt: skip


def model() -> tuple[Tensor, Tensor, Tensor, list[Any]]:
    x, t = gc.placeholder(("n", 4), name="x"), gc.placeholder(("n",), "int64", name="t")
    w = gc.parameter(SQUARE, name="w")
    h = gc.tanh(x @ w) * 0.3
    peaks = gc.exp(h) + gc.exp(x) - gc.max(h, 0)
    loss = gc.mean(gc.sum(gc.square(peaks - gc.one_hot(t, 4)), 0) * gc.constant(np.float32([1, 2, 3, 4])))
    return x, t, w, [loss, gc.optim.SGD(0.1).minimize(loss)]


def refused(error: type[Exception], device: str = "cpu", feed: Any = SQUARE, labels: Any = (0, 1, 2, 3)) -> str:
    """Run the model, see it refused with everything as it was before; what the error says."""
    x, t, w, fetches = model()
    with gc.Session(device) as session:
        with pytest.raises(error) as found:
            session.run(fetches, {x: feed, t: labels})
        np.testing.assert_array_equal(session.get(w), SQUARE)
        assert session.stats()["runs"] == 0
    return str(found.value)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_pass_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, function, op = BROKEN[name]
    put(monkeypatch, function, before)
    text = refused(CompilerError)
    names = [p.name for p in pipeline.PASSES]
    right = ", ".join(names[: names.index("sabotage")]) or "none"
    assert text.startswith(f"pass 'sabotage' is wrong (passes before it, which are right: {right})")
    assert f"first at {op} at " in text
    assert "test_debug.py" in text.splitlines()[1]
    assert " became " in text
    assert "rounding explains" in text
    assert len([line for line in text.splitlines() if line.startswith("  > ")]) == 2  # before and after


def test_a_dropped_update_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, lambda graph: Graph(graph.outputs), "gemm")
    text = refused(CompilerError)
    assert "pass 'sabotage' is wrong" in text
    assert "drops the update of w: parameter float32[4, 4] (" in text


def test_a_pass_that_loses_a_fetch_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, lambda graph: Graph(graph.outputs[:-1], graph.updates), "simplify")
    assert "1 fetched tensors and 1 updates became 0 and 1" in refused(CompilerError)


def test_a_pass_that_keeps_no_account_is_judged_by_its_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing says what stands for what, because the graph was not rebuilt."""
    put(monkeypatch, lambda graph: Graph(tuple(t * 2 for t in graph.outputs), graph.updates), "decompose")
    text = refused(CompilerError)
    assert "pass 'sabotage' is wrong" in text
    assert "first at multiply at " in text  # the mean, which is fetched


def test_a_graph_that_cannot_be_evaluated_has_a_culprit(monkeypatch: pytest.MonkeyPatch) -> None:
    def widen(node: Node, inputs: tuple[Tensor, ...]) -> Tensor:
        return gc.sum(gc.reshape(inputs[0], (-1, 7, 4)), 0)  # no rows of 4 come in sevens

    put(monkeypatch, rewriting("max", lambda n, i: gc.sum(widen(n, i), 0)), "simplify")
    text = refused(CompilerError)
    assert "pass 'sabotage' is wrong" in text
    assert "cannot be evaluated" in text


def test_a_broken_expansion_of_gradients_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    (place,) = [i for i, p in enumerate(pipeline.PASSES) if p.name == "gradients"]
    true = pipeline.PASSES[place].function

    def doubled(graph: Graph) -> Graph:
        expanded = true(graph)
        (update,) = expanded.updates
        start, change = update.inputs[1].node.inputs
        return Graph(expanded.outputs, tuple(gc.assign(update.inputs[0], start - 2 * change)))

    broken = pipeline.Pass("gradients", doubled)
    monkeypatch.setattr(pipeline, "PASSES", (*pipeline.PASSES[:place], broken, *pipeline.PASSES[place + 1 :]))
    text = refused(CompilerError)
    assert "pass 'gradients' is wrong" in text
    assert "first at subtract at " in text


def test_a_pass_that_raises_an_error_of_ours_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(graph: Graph) -> Graph:
        raise CompilerError("no such axis")

    put(monkeypatch, fail, "simplify")
    with pytest.raises(CompilerError, match="no such axis") as error:
        pipeline.optimize(Graph((gc.placeholder((3,), name="x") + 1,)))
    assert error.value.__notes__ == ["pass 'sabotage' failed (passes done: stabilise, gradients)"]


# Values that are not finite.


def finite_log(graph: Graph) -> Graph:
    def change(node: Node, inputs: tuple[Tensor, ...]) -> Tensor:
        return gc.where(inputs[0] > 0, node.rebuilt(inputs).outputs[0], 7.0)

    return rewriting("log", change)(graph)


@pytest.mark.parametrize("stabilises", [False, True])
def test_only_a_stabilising_pass_may_make_values_finite(stabilises: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, finite_log, "decompose", stabilises=stabilises)
    x = gc.placeholder((3,), name="x")
    y = gc.sum(gc.log(x) * 2)
    with gc.Session() as session, np.errstate(all="ignore"):
        assert abs(session.run(y, {x: [1, 2, 3]}) - 2 * np.log(6)) < 1e-5
    with gc.Session() as session, np.errstate(all="ignore"):
        if stabilises:
            assert session.run(y, {x: [0, 1, 1]}) == 14
        else:
            with pytest.raises(CompilerError, match=r"(?s)sabotage.*first at log.*-inf became 7.0"):
                session.run(y, {x: [0, 1, 1]})


def test_a_stabilising_pass_may_not_change_what_is_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, rewriting("exp", squared_negative), "decompose", stabilises=True)
    assert "first at exp at " in refused(CompilerError)


STABLE: dict[str, tuple[Callable[[Tensor], Tensor], list[float]]] = {
    "log of softmax": (lambda x: gc.log(gc.softmax(x)), [0, 1000, -1000]),
    "log of sum of exp": (lambda x: gc.log(gc.sum(gc.exp(x), 0)), [0, 1000, 80]),
    "log of 1 + x": (lambda x: gc.log(1 + x), [1e-12, 1e-30, 3]),
    "exp(x) - 1": (lambda x: gc.exp(x) - 1, [1e-12, -1e-30, 3]),
    "log of sigmoid": (lambda x: gc.log(gc.sigmoid(x)), [-200, -90, 5]),
    "softplus of what overflows, and its reciprocal": (lambda x: 1 / gc.log(gc.sum(gc.exp(x), 0)), [1000, 1, 2]),
}


@pytest.mark.parametrize("name", STABLE)
def test_stable_forms_are_not_faults(name: str) -> None:
    build, values = STABLE[name]
    x = gc.placeholder((3,), name="x")
    y = gc.sum(build(x) * gc.constant(np.float32([1, 2, 3])))
    with gc.Session() as session, np.errstate(all="ignore"):
        session.run([y, gc.gradients(y, x)], {x: values})


# Lowering.


def test_a_wrong_kernel_is_told_from_a_wrong_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = rewriting("tanh", lambda n, i: gc.tanh(-i[0]))
    monkeypatch.setattr(backend, "lower", lambda graph, unifier: lower(broken(graph), unifier))
    text = refused(CompilerError)
    assert text.startswith("lowering is wrong (every pass is right): ")
    assert "written by kernel" in text
    assert "test_debug.py" in text


def test_a_wrong_update_in_place_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(graph: Graph, unifier: Any) -> Any:
        (update,) = graph.updates
        return lower(Graph(graph.outputs, tuple(gc.assign(update.inputs[0], update.inputs[1] * 1.01))), unifier)

    monkeypatch.setattr(backend, "lower", late)
    assert "lowering is wrong (every pass is right): gemm_add" in refused(CompilerError)


# What is right stays in peace.


def test_a_right_program_runs_and_is_checked_once_for_each_set_of_extents(monkeypatch: pytest.MonkeyPatch) -> None:
    from runtime import debug

    seen = []
    monkeypatch.setattr(debug, "measure", lambda g, v, *rest, true=debug.measure: seen.append(v) or true(g, v, *rest))
    x, t, w, fetches = model()
    with gc.Session() as session, gc.Session("reference") as reference:
        for rows in (4, 3, 4, 4, 1):
            feeds = {x: SQUARE[:rows], t: np.arange(rows)}
            before = len(seen)
            np.testing.assert_allclose(session.run(fetches, feeds)[0], reference.run(fetches, feeds)[0], rtol=1e-5)
            assert (len(seen) > before) is ({tuple(v.values()) for v in seen[:before]} == set() or rows in (3, 1))
        np.testing.assert_allclose(session.get(w), reference.get(w), rtol=1e-4, atol=1e-5)
        assert session.stats()["runs"] == 5


def test_special_values_are_not_faults() -> None:
    x, t, _, fetches = model()
    odd = SQUARE.copy()
    odd[0] = [np.nan, np.inf, -0.0, 1e-40]
    odd[1] = [-np.inf, 3e38, -3e38, 1e38]
    with gc.Session() as session, np.errstate(all="ignore"):
        session.run(fetches, {x: odd, t: [0, 1, 2, 3]})


ORDER: dict[str, tuple[Callable[[Tensor], Tensor], list[float]]] = {
    "a product that overflows in one order and not in another": (gc.prod, [0, *[1e6] * 30, *[1e-6] * 30]),
    "a sum that overflows in one order and not in another": (gc.sum, [3e38, -3e38] * 40),
    "the sign of a zero that was chosen": (lambda x: gc.signbit(gc.max(x, 0) * 1), [0.0, -0.0] * 20),
    "the sign of a NaN": (lambda x: gc.signbit(x - x), [np.inf, -np.inf, np.nan] * 7),
    "a mean of equal numbers": (lambda x: gc.mean(x) - 0.1, [0.1] * 20000),
}


@pytest.mark.parametrize("name", ORDER)
def test_what_the_order_decides_is_no_fault(name: str) -> None:
    build, values = ORDER[name]
    x = gc.placeholder(("n",), name="x")
    y = gc.tanh(gc.astype(build(x), "float32"))
    with gc.Session() as session, np.errstate(all="ignore"):
        session.run([y, gc.sum(y)], {x: np.float32(values)})


def test_errors_of_the_user_stay_what_they_are() -> None:
    text = refused(IndexRangeError, labels=[0, 1, 2, 9])
    assert "found 0 to 9" in text


def test_the_variable_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_DEBUG", "kernels")
    with pytest.raises(SessionError, match="GRAPHC_DEBUG=kernels is not known; use GRAPHC_DEBUG=passes"):
        gc.Session()
