"""What is computed again rather than kept: which values, that they are the same bits, and that memory is never more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc import nn
from graphc.node import Tensor
from passes import lower as lower_module
from passes.explain import explain
from passes.graph import Graph
from passes.lower import lower, lowered
from passes.pipeline import optimize
from passes.program import Buffer, Call, CopyCall, GemmCall, Program
from passes.recompute import Again, calls_of, recomputed
from passes.schedule import ASSUMED, assumed_bytes, assumed_peak
from runtime.fetches import flatten
from runtime.session import unify_constraints

Activation = Callable[[Tensor], Tensor]
WIDE, NARROW = 2048, 256  # columns; the wide ones, times the assumed number of rows, are more than a cache


def compiled(fetches: Any) -> Program:
    graph = flatten(fetches).graph
    unifier = unify_constraints(graph.nodes)
    return lower(optimize(graph, unifier=unifier), unifier=unifier)


def keeping(fetches: Any, monkeypatch: pytest.MonkeyPatch) -> Program:
    """The program that computes nothing again."""
    with monkeypatch.context() as patch:
        patch.setattr(lower_module, "rematerialised", lambda graph, program: None)
        return compiled(fetches)


def again(program: Program) -> set[str]:
    return {node.op.name for node in program.again}


def holders(program: Program, op: str) -> list[Buffer]:
    """Temporaries that hold what an op made."""
    found = dict.fromkeys(b for c in program.calls for b in c.writes if b.kind == "temp" and b.tensor is not None)
    return [b for b in found if b.tensor is not None and b.tensor.node.op.name == op]


def weights(*shape: int, name: str) -> Tensor:
    value = np.random.default_rng(len(name) + sum(shape)).normal(size=shape) / np.sqrt(shape[0])
    return gc.parameter(value.astype(np.float32), name=name)


def gated(layers: int, act: Activation, width: int = WIDE) -> tuple[list[Any], Tensor]:
    """Narrow inputs, a wide activation in between."""
    x = gc.placeholder(("n", NARROW), name="x")
    h = x
    for i in range(layers):
        up, down = weights(NARROW, width, name=f"up{i}"), weights(width, NARROW, name=f"down{i}")
        h = h + act(h @ up + gc.parameter(np.zeros(width, np.float32), name=f"b{i}")) @ down
    loss = gc.mean(gc.square(h))
    return [loss, gc.optim.SGD(0.01).minimize(loss)], x


def normed(layers: int, act: Activation = nn.relu, width: int = 256) -> tuple[list[Any], Tensor]:
    x = gc.placeholder(("n", width), name="x")
    h = x
    for i in range(layers):
        scale = gc.parameter(np.linspace(0.5, 1.5, width, dtype=np.float32), name=f"scale{i}")
        bias = gc.parameter(np.linspace(-0.1, 0.1, width, dtype=np.float32), name=f"bias{i}")
        h = h + act(nn.layer_norm(h, -1, scale, bias) @ weights(width, width, name=f"w{i}"))
    loss = gc.mean(gc.square(h))
    return [loss, gc.optim.Adam(1e-3).minimize(loss)], x


def attention(layers: int) -> tuple[list[Any], Tensor]:
    x = gc.placeholder(("n", 32, 64), name="x")
    h = x
    for i in range(layers):
        one, zero = (gc.parameter(np.full(64, v, np.float32), name=f"{v}{i}") for v in (1, 0))
        q, k, v = (nn.layer_norm(h, -1, one, zero) @ weights(64, 64, name=f"{n}{i}") for n in "qkv")
        h = h + gc.softmax(q @ k.mT, axis=-1) @ v
        up, down = weights(64, 256, name=f"up{i}"), weights(256, 64, name=f"down{i}")
        h = h + nn.gelu(nn.layer_norm(h, -1, one, zero) @ up, approximate="tanh") @ down
    loss = gc.mean(gc.square(h))
    return [loss, gc.optim.Adam(1e-3).minimize(loss)], x


def tanh_gelu(x: Tensor) -> Tensor:
    return nn.gelu(x, approximate="tanh")


def half_gate(x: Tensor) -> Tensor:
    """Its forward and its backward pass read the gate through the same cheap node, which both of them compute."""
    return x * (gc.sigmoid(x) * 0.5)


NETS: dict[str, Callable[[], tuple[list[Any], Tensor]]] = {
    "silu": lambda: gated(3, nn.silu),
    "tanh gelu": lambda: gated(2, tanh_gelu),
    "half gate": lambda: gated(2, half_gate),
    "elu": lambda: gated(2, nn.elu),
    "leaky relu": lambda: gated(3, nn.leaky_relu),
    "layer norm": lambda: normed(3),
    "layer norm, hardswish": lambda: normed(3, nn.hardswish),
    "attention": lambda: attention(2),
}


@pytest.mark.parametrize("net", NETS)
def test_less_memory_lives_at_the_peak(net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fetches, _ = NETS[net]()
    kept, made_again = keeping(fetches, monkeypatch), compiled(fetches)
    assert made_again.again
    assert assumed_peak(made_again.calls) <= 15 / 16 * assumed_peak(kept.calls)
    for rows in (ASSUMED // 8, ASSUMED * 8):
        assert assumed_peak(made_again.calls, rows) <= 65 / 64 * assumed_peak(kept.calls, rows)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("net", [name for name in NETS if name != "attention"])
def test_the_bits_are_those_of_a_program_that_keeps_everything(
    net: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(In an attention block other kernels sum up the rows of three products, and so in other blocks.)"""
    fetches, x = NETS[net]()
    value = np.random.default_rng(1).normal(size=(7, *x.shape[1:])).astype(np.float32)
    parameters = [n.outputs[0] for n in flatten(fetches).graph.nodes if n.op.name == "parameter"]
    found = []
    for on in (True, False):
        with monkeypatch.context() as patch, gc.Session(threads=threads) as session:
            if not on:
                patch.setattr(lower_module, "rematerialised", lambda graph, program: None)
            losses = [session.run(fetches, {x: value})[0] for _ in range(3)]
            found.append([*losses, *(session.get(p) for p in parameters)])
    for mine, expected in zip(*found, strict=True):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("net", NETS)
def test_the_values_are_those_of_the_reference(net: str) -> None:
    fetches, x = NETS[net]()
    value = np.random.default_rng(2).normal(size=(5, *x.shape[1:])).astype(np.float32)
    with gc.Session() as session, gc.Session("reference") as reference:
        for _ in range(2):
            mine, expected = (s.run(fetches, {x: value})[0] for s in (session, reference))
            np.testing.assert_allclose(mine, expected, rtol=1e-4)


def test_of_an_activation_only_its_argument_and_its_result_are_kept() -> None:
    """The result is what the weights' gradient reads, and the gate is made again where its derivative is taken: but for
    the last one, which comes next.
    """
    for act in (nn.silu, half_gate, tanh_gelu):
        program = compiled(gated(3, act)[0])
        assert [n.op.name for n in program.again].count("sigmoid") >= 2
        assert len(holders(program, "sigmoid")) <= 1


def test_what_a_product_reads_late_is_stored_again_after_the_peak() -> None:
    """The normalised rows, times scale plus bias: stored for the product, and again for the gradient of its weights."""
    program = compiled(normed(3)[0])
    late = [b for b in holders(program, "add") if b.tensor is not None and b.tensor.node in program.again]
    assert late
    for buffer in late:
        touched = [i for i, c in enumerate(program.calls) if buffer in (*c.reads, *c.writes)]
        assert touched[0] > peak_of(program.calls)
        reader = program.calls[touched[-1]]
        assert isinstance(reader, GemmCall)
        assert reader.trans_a
        assert reader.a.buffer is buffer


def peak_of(calls: Sequence[Call]) -> int:
    touched: dict[Buffer, list[int]] = {}
    for i, call in enumerate(calls):
        for buffer in {b for b in (*call.reads, *call.writes) if b.kind in ("temp", "partial")}:
            touched.setdefault(buffer, []).append(i)
    live = [
        sum(assumed_bytes(b) for b, steps in touched.items() if steps[0] <= i <= steps[-1]) for i in range(len(calls))
    ]
    return live.index(max(live))


def test_parameters_are_still_updated_in_place() -> None:
    for make in NETS.values():
        fetches, _ = make()
        assert not [c for c in compiled(fetches).calls if isinstance(c, CopyCall)]


@pytest.mark.parametrize(
    "act", [nn.gelu, nn.mish, lambda t: t * gc.pow(gc.abs(t) + 1, 1.3)], ids=["gelu", "mish", "pow"]
)
def test_what_is_dear_is_kept(act: Activation) -> None:
    fetches, _ = gated(3, act)
    assert again(compiled(fetches)).isdisjoint({"erfc", "log1p", "logaddexp", "pow"})


def test_what_a_product_or_a_random_stream_made_is_kept() -> None:
    def dropped(x: Tensor) -> Tensor:
        return gc.where(gc.random.uniform(x.shape) > 0.5, gc.relu(x) * 2, 0)

    program = compiled(gated(3, dropped)[0])
    assert again(program).isdisjoint({"matmul", "random_bits"})
    assert "random_bits" not in again(compiled(gated(3, lambda x: nn.silu(dropped(x)))[0]))


def test_small_values_are_kept() -> None:
    """They stay in the cache; and what is a little larger is made again where that is only a few operations."""
    fetches, _ = gated(6, nn.silu, width=64)
    assert not compiled(fetches).again
    fetches, _ = gated(6, nn.silu, width=256)
    assert "sigmoid" not in again(compiled(fetches))


def test_a_chain_of_functions_keeps_them() -> None:
    """Nothing but dear functions: to compute half of them again would take half as long again."""
    x = gc.placeholder(("n", WIDE), name="x")
    y = x
    for _ in range(60):
        y = gc.tanh(y * 1.5 + 1.0) - 0.5
    assert not compiled([gc.sum(y), gc.gradients(gc.sum(y), x)]).again


def test_what_is_fetched_is_there_and_not_computed_again() -> None:
    gates: list[Tensor] = []

    def act(x: Tensor) -> Tensor:
        gates.append(gc.sigmoid(x))
        return x * gates[-1]

    fetches, _ = gated(3, act)
    assert "sigmoid" in again(compiled(fetches))
    assert "sigmoid" not in again(compiled([*fetches, *gates]))


def test_indices_are_checked_once() -> None:
    """What can fail is not computed a second time, however cheap it is."""
    table = weights(32, WIDE, name="table")
    index = gc.placeholder(("n",), dtype="int64", name="index")
    h = gc.take(table, index, axis=0)
    loss = gc.mean(gc.square(nn.silu(h) @ weights(WIDE, NARROW, name="v")))
    program = compiled([loss, gc.optim.SGD(0.1).minimize(loss)])
    assert "check_index" not in again(program)


def test_lowering_twice_gives_the_same_program() -> None:
    fetches, _ = attention(2)
    graph = flatten(fetches).graph
    unifier = unify_constraints(graph.nodes)
    optimized = optimize(graph, unifier=unifier)
    first, second = (lower(optimized, unifier) for _ in range(2))
    assert first.again
    assert [(c.label, [b.id for b in c.writes]) for c in first.calls] == [
        (c.label, [b.id for b in c.writes]) for c in second.calls
    ]


def test_the_graph_that_comes_with_the_program_is_the_one_it_computes() -> None:
    fetches, _ = gated(2, nn.silu)
    graph = flatten(fetches).graph
    unifier = unify_constraints(graph.nodes)
    optimized = optimize(graph, unifier=unifier)
    final, program = lowered(optimized, unifier)
    inside = set(final.nodes)
    assert final is not optimized
    assert all(node in inside for call in program.calls for node in call.nodes)
    assert program.again == {t.node for t in final.after}
    small = Graph((gc.placeholder((3,), name="y") * 2,))
    assert lowered(small)[0] is small


def test_second_nodes_come_behind_what_their_readers_wait_for() -> None:
    fetches, _ = normed(3)
    graph = flatten(fetches).graph
    unifier = unify_constraints(graph.nodes)
    final, program = lowered(optimize(graph, unifier=unifier), unifier)
    made = {b.tensor: i for i, c in enumerate(program.calls) for b in c.writes if b.tensor is not None}
    pairs = [(made[t], made[behind]) for t, behind in final.after.items() if t in made and behind in made]
    assert pairs
    assert all(second >= first for second, first in pairs)


def test_waiting_in_a_circle_is_not_waiting() -> None:
    """A demand that the order cannot meet is dropped: it is about memory alone."""
    x = gc.placeholder((4, 4), name="x")
    first = x @ x
    second = first @ x
    graph = Graph((second,), (), {first: second})
    assert len(lower(graph).calls) == 2


def test_a_node_that_early_and_late_calls_compute_is_split() -> None:
    """``half`` is in both: the first reads the first gate, the second the second one."""
    x = gc.placeholder((8, 8), name="x")
    gate = gc.sigmoid(x)
    half = gate * 0.5
    early, late = half + 1, half - 1
    graph = Graph((early, late))
    where = {gate.node: {0}, half.node: {0, 5}, early.node: {0}, late.node: {5}}
    given_up = Again(gate, 5, frozenset({0, 5}), (gate,), x)
    found = recomputed(graph, [given_up], where)
    assert found.outputs[0] is early
    (mine,) = (t for t in found.outputs[1].node.inputs if t.node.op is half.node.op)
    assert mine is not half
    assert any(t in found.after and t is not gate and t.node.op is gate.node.op for t in mine.node.inputs)


def test_views_in_front_of_a_product_belong_to_its_call() -> None:
    a = gc.placeholder((4, 6), name="a")
    product = a.T @ a
    program = lower(Graph((product,)))
    assert calls_of(program.calls) == {product.node: {0}, product.node.inputs[0].node: {0}}


def test_explain_says_what_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    fetches, _ = gated(2, nn.silu)
    program = compiled(fetches)
    notes = explain(program, {}, {}).kernels
    assert sorted(n for note in notes for n in note.again) == sorted(n.op.name for n in program.again)
    assert any("computed again rather than kept: sigmoid" in str(note) for note in notes)
    assert "computed again" not in str(explain(keeping(fetches, monkeypatch), {}, {}))


def test_pictures_show_the_second_nodes() -> None:
    fetches, _ = gated(2, nn.silu)
    shown = gc.export.json(fetches, stage="kernels")
    assert str(shown).count("sigmoid") >= 4  # two in the forward pass, two again
