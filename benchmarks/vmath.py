"""Elementary functions: nanoseconds for an element, on one thread, in float32 and float64.

An element's time is what a longer call takes more than a shorter one, divided by the elements that it has more: what a
call costs by itself, different for every library, is left out, in the same way for all. Input and result of the longer
fit into a second-level cache of half a megabyte. Every side writes its results where it likes best. The same functions
compiled by torch.compile and by PyTensor are not timed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import rounds
from benchmarks.process import Process
from benchmarks.sides import OURS
from benchmarks.workloads import ELEMENTWISE, Workload

Row = dict[str, Any]
SIDES = (OURS, "numpy", "torch eager", "jax")
DTYPES = ("float32", "float64")
SHORT = 4096  # elements of the shorter call; a workload's own size is that of the longer
PLAN = rounds.Plan(rounds=3, seconds=0.03, rest=0.0)


def rows(pythons: Mapping[str, str], timeout: float, say: Callable[[str], None], plan: rounds.Plan = PLAN) -> list[Row]:
    """A row for each function and dtype."""
    sides = {name: Process(name, pythons[name], 1, timeout) for name in SIDES if name in pythons}
    truth = sides.get(rounds.TRUTH) or Process(rounds.TRUTH, sys.executable, 1, timeout)
    try:
        found = []
        for function, workload in ELEMENTWISE.items():
            goal = {"ratio": workload.goal.value, "against": list(workload.goal.against)}
            for dtype in DTYPES:
                times = _times(workload, dtype, sides, truth, plan)
                row = {"workload": workload.name, "text": workload.text, "function": function, "dtype": dtype}
                found.append({**row, "unit": "ns", "sides": times, "goal": goal})
                say(f"{workload.name} {dtype}: " + ", ".join(f"{n} {_said(one)}" for n, one in times.items()))
        return found
    finally:
        for process in (*sides.values(), truth):
            process.close()


def _times(
    workload: Workload, dtype: str, sides: Mapping[str, Process], truth: Process, plan: rounds.Plan
) -> dict[str, dict[str, Any]]:
    """What each side takes for an element, or its error."""
    sizes = workload.sizes
    long, short = (
        rounds.compare(workload, {**sizes, "n": n}, sides, truth, plan, lambda text: None, dtype)
        for n in (sizes["n"], SHORT)
    )
    return {name: per_element(long[name], short[name], sizes["n"] - SHORT) for name in sides}


def per_element(long: Mapping[str, Any], short: Mapping[str, Any], more: int) -> dict[str, Any]:
    """Nanoseconds for each of the ``more`` elements, and the seconds that the shorter call took."""
    for one in (long, short):
        if "error" in one:
            return {"error": one["error"]}
    return {"min": (long["min"] - short["min"]) / more * 1e9, "short": short["min"]}


def _said(one: Mapping[str, Any]) -> str:
    return str(one.get("error") or f"{one['min']:.2f} ns")
