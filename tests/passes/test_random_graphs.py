"""Random programs on the CPU and in the reference: the same numbers, up to what rounding can do to each of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from drawn_programs import programs
from hypothesis import HealthCheck, Phase, given, note, settings
from noise_model import Tally, differences, measure
from random_programs import Program

import graphc as gc
from graphc.dims import Symbol
from graphc.node import Tensor
from graphc.state import PARAMETER
from passes.gradient import expand_gradients
from passes.graph import Graph
from passes.stabilise import stabilise
from runtime.fetches import flatten

EXAMPLES = int(os.environ.get("GRAPHC_FUZZ_EXAMPLES", "70"))
TALLY = Tally()


def extents(sizes: tuple[int, int]) -> dict[Symbol, int]:
    return {Symbol("n"): sizes[0], Symbol("m"): sizes[1]}


def run(session: gc.Session, program: Program, number: int, parameters: Sequence[Tensor]) -> list[Any]:
    """Fetched arrays, and then the parameters' new values."""
    with np.errstate(all="ignore"):
        results = session.run(program.fetched, program.arrays(number))
    return [*results[: len(program.fetches)], *(session.get(p) for p in parameters)]


def check(program: Program) -> None:
    """Two runs with different extents; both sessions start each of them from the reference's parameters."""
    graph = flatten(program.fetched).graph
    written = [a.inputs[0] for a in graph.updates]
    used = [n.outputs[0] for n in graph.nodes if n.op is PARAMETER]
    expanded, stable = expand_gradients(graph), expand_gradients(stabilise(graph))
    with gc.Session("reference") as reference, gc.Session("cpu") as cpu:
        for number in range(len(program.sizes)):
            known = {t: np.asarray(a) for t, a in program.arrays(number).items()}
            if number:
                for p in used:
                    cpu.set(p, reference.get(p))
                known |= {p: np.asarray(reference.get(p)) for p in used}
            else:
                known |= {p: p.node.attrs["initial"] for p in used}
            expected = run(reference, program, number, written)
            found = run(cpu, program, number, written)
            wrong = compare(found, expected, (expanded, stable), known, program.sizes[number])
            assert not wrong, f"run {number}, sizes {program.sizes[number]}:\n" + "\n".join(wrong)
            for p in set(used) - set(written):
                np.testing.assert_array_equal(cpu.get(p), reference.get(p))


def compare(
    found: list[Any], expected: list[Any], graphs: tuple[Graph, Graph], known: dict[Tensor, Any], sizes: tuple[int, int]
) -> list[str]:
    """What differs from the graph as written, and from the graph in its stable forms as well."""
    plain, stable = graphs
    trials = measure(plain, extents(sizes), known, seed=1)
    for mine, session in zip(trials.plain, expected, strict=True):
        np.testing.assert_array_equal(mine, session)
    wrong = differences(found, trials, TALLY)
    if wrong and len(stable.nodes) != len(plain.nodes):
        return wrong and differences(found, measure(stable, extents(sizes), known, seed=1), TALLY) and wrong
    return wrong


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    print_blob=True,
)
@given(programs())
def test_random_program(program: Program) -> None:
    note("\n".join(program.script(1 if len(program.sizes) > 1 else 0).splitlines()))
    check(program)


def test_most_elements_were_compared() -> None:
    """Not everything may be excused as ill-conditioned."""
    if not TALLY.compared:
        pytest.skip("the random programs did not run in this process")
    assert TALLY.skipped < 0.25 * (TALLY.compared + TALLY.skipped), TALLY


@pytest.mark.parametrize(("factor", "wrong"), [(1 + 2**-23, False), (1 + 2**-14, True), (np.nan, True)])
def test_the_tolerance_tells_rounding_from_mistakes(factor: float, wrong: bool) -> None:
    """One unit in the last place is rounding; a thousand are not, except where a subtraction has cancelled."""
    x = gc.placeholder((50,), name="x")
    graph = flatten([gc.tanh(x) * 3, gc.exp(x) - gc.exp(x + 1e-5)]).graph
    known = {x: np.linspace(0.5, 2, 50, dtype=np.float32)}
    trials = measure(graph, {}, known, seed=0)
    first = (trials.plain[0] * factor).astype(np.float32)
    assert bool(differences([first, trials.plain[1]], trials, Tally())) is wrong
    cancelled = trials.plain[1] * np.float32(1 + 2**-14)
    assert not differences([trials.plain[0], cancelled], trials, Tally())
    assert differences([trials.plain[0].astype(np.float64), cancelled], trials, Tally())
