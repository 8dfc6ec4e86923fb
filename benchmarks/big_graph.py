"""Differentiating and lowering long chains: seconds, and microseconds per node, for growing lengths.

    python -m benchmarks.big_graph [nodes ...]

A chain repeats ``tanh(y * a + b) - c``. Timed are the gradient and every pass up to the program of kernel calls;
writing the chain down, checks between passes and the compilation of kernels are left out. The time per node stays the
same as the chain grows; the number of kernels to compile does not grow with it at all.
"""

from __future__ import annotations

import gc
import json
import sys
import time

import graphc
from passes.lower import lower
from passes.options import CompileOptions
from passes.pipeline import optimize
from runtime.fetches import flatten
from runtime.session import unify_constraints

NODES = (10_000, 100_000)


def measure(nodes: int) -> dict[str, float]:
    """One chain of about ``nodes`` nodes: seconds for writing it, for its gradient and all passes, and kernel calls."""
    gc.collect()
    gc.disable()  # as the CPU backend does while it compiles
    try:
        start = time.perf_counter()
        x = graphc.placeholder((None, 8), name="x")
        y = x
        for _ in range(nodes // 4):
            y = graphc.tanh(y * 1.5 + 1.0) - 0.5
        loss = y.sum()
        written = time.perf_counter()
        gradient = graphc.gradients(loss, x)
        graph = flatten([loss, gradient]).graph
        unifier = unify_constraints(graph.nodes)
        program = lower(optimize(graph, CompileOptions(), unifier, None), unifier)
        lowered = time.perf_counter()
    finally:
        gc.enable()
    return {
        "nodes": nodes,
        "written": written - start,
        "lowered": lowered - written,
        "calls": len(program.calls),
        "kernels": len({c.kernel.text for c in program.calls if hasattr(c, "kernel")}),
    }


def main() -> None:
    arguments = sys.argv[1:]
    as_json = "--json" in arguments
    found = []
    measure(400)  # imports what is imported on first use
    for nodes in [int(a) for a in arguments if a != "--json"] or NODES:
        found.append(one := measure(nodes))
        if not as_json:
            print(
                f"{nodes:>8} nodes: written in {one['written']:6.2f} s, gradient and passes {one['lowered']:6.2f} s "
                f"({one['lowered'] / nodes * 1e6:5.0f} us per node), {one['calls']} calls of {one['kernels']} kernels"
            )
    if as_json:
        print(json.dumps({"chains": found}))


if __name__ == "__main__":
    main()
