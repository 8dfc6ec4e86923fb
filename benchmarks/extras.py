"""The rows that are no turns of calls: what compiling costs, big graphs, memory."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import big_graph, first_step
from benchmarks.process import SideError, run_once
from benchmarks.rounds import summary
from benchmarks.sides import OURS

Row = dict[str, Any]
MEMORY = ("mlp", "attn")  # workloads
COMPILE = (
    ("compile, imports", "importing the library that runs the step, in a new process", None),
    ("compile, empty cache", "mlp's first step when all is imported", 2.5),
    ("compile, warm cache", "the same in a new process", 0.6),
    ("compile, new batch", f"then a step of batch {first_step.OTHER_BATCH}", None),
    ("new batch, beyond a step", "what that took more than the fastest of the steps after it", 2e-3),
)
BIG = {10_000: 3.0, 100_000: 30.0}
REPEATS = 3  # of the first steps of graphc, each time with a new cache
LINEAR = 1.25  # caches make large graphs a little slower, whatever is done


def compile_rows(pythons: Mapping[str, str], threads: int, timeout: float, say: Callable[[str], None]) -> list[Row]:
    """Seconds of the first steps of each side, in two new processes over one new cache folder."""
    rows: list[Row] = [
        {
            "workload": name,
            "text": text,
            "unit": "s",
            "sides": {},
            "goal": {"limit": limit} if limit else {},
            "broken": [],
        }
        for name, text, limit in COMPILE
    ]
    for side, python in pythons.items():
        if side == "numpy":
            continue  # compiles nothing
        try:
            found = [_first_steps(side, python, threads, timeout) for _ in range(REPEATS if side == OURS else 1)]
        except SideError as error:
            for row in rows:
                row["sides"][side] = {"error": str(error)}
        else:
            *columns, new, repeated = zip(*(seconds for seconds, _ in found), strict=True)
            more = max(0.0, min(new) - min(repeated))
            for row, times in zip(rows, [*columns, new, [more]], strict=True):
                row["sides"][side] = summary(list(times))
            if compiled := max(compiled for _, compiled in found):
                rows[-1]["broken"].append(f"the new batch size compiled {compiled} kernels")
        say(f"compile: {side}")
    return rows


def _first_steps(side: str, python: str, threads: int, timeout: float) -> tuple[tuple[float, ...], int]:
    """Seconds of the imports, over an empty cache, over that cache in another process, and there of another batch size,
    first and again; and kernels that it had compiled.
    """
    with tempfile.TemporaryDirectory(prefix="graphc-bench-cache-") as folder:
        arguments, variables = ["benchmarks.first_step", side, str(threads)], first_step.cache_variables(folder)
        empty, warm = (run_once(python, arguments, threads, timeout, **variables) for _ in range(2))
    return (warm["imported"], empty["first"], warm["first"], warm["second"], warm["repeated"]), warm["compiled"]


def big_graph_rows(threads: int, timeout: float) -> list[Row]:
    """Seconds for the gradient and all passes of long chains, and how the time per node grows."""
    try:
        chains = run_once(sys.executable, ["benchmarks.big_graph", "--json", *map(str, BIG)], threads, timeout)[
            "chains"
        ]
        cells = [{"min": c["lowered"]} for c in chains]
        each = [c["lowered"] / c["nodes"] for c in chains]
        growth: dict[str, Any] = {"min": each[-1] / each[0]}
    except SideError as error:
        cells, growth = [{"error": str(error)} for _ in BIG], {"error": str(error)}
    rows = [
        {
            "workload": f"big graph, {nodes:,} nodes",
            "text": "gradient and all passes",
            "unit": "s",
            "sides": {OURS: cell},
            "goal": {"limit": limit},
        }
        for (nodes, limit), cell in zip(BIG.items(), cells, strict=True)
    ]
    text = f"time per node of {max(big_graph.NODES):,} nodes to that of {min(big_graph.NODES):,}"
    return [
        *rows,
        {
            "workload": "big graph, growth",
            "text": text,
            "unit": "1",
            "sides": {OURS: growth},
            "goal": {"limit": LINEAR},
        },
    ]


def memory_rows(workload: str, facts: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """Temporaries of a step beside those of the peers that account for theirs, and the arena beside the largest live
    set.
    """
    sides: dict[str, dict[str, Any]] = {}
    for name, known in facts.items():
        if "error" in known:
            sides[name] = {"error": known["error"]}
        elif "temporaries" in known:
            sides[name] = {"min": known["temporaries"]}
    rows = [
        {
            "workload": f"memory, {workload}",
            "text": "bytes a step holds at its peak beyond inputs, parameters and slots",
            "unit": "B",
            "sides": sides,
            "goal": {"ratio": 1.0, "against": ["torch eager", "jax"]},
        }
    ]
    ours = facts.get(OURS, {})
    if "least" in ours:
        growth = {OURS: {"min": ours["temporaries"] / ours["least"]}}
        text = "arena divided by the largest live set"
        rows.append(
            {"workload": f"arena, {workload}", "text": text, "unit": "1", "sides": growth, "goal": {"limit": 1.15}}
        )
    return rows
