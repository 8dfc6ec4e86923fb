"""Building, differentiating and compiling long chains: seconds, and microseconds per node, for growing lengths.

    python benchmarks/big_graph.py [nodes ...]

A chain repeats ``tanh(y * a + b) - c``. The time per node stays the same as the chain grows; the number of kernels to
compile does not grow with it at all.
"""

from __future__ import annotations

import sys
import time

import numpy as np

import graphc


def measure(nodes: int) -> None:
    """One chain of about ``nodes`` nodes: value and gradient."""
    start = time.perf_counter()
    x = graphc.placeholder((None, 8), name="x")
    y = x
    for _ in range(nodes // 4):
        y = graphc.tanh(y * 1.5 + 1.0) - 0.5
    loss = y.sum()
    gradient = graphc.gradients(loss, x)
    built = time.perf_counter()
    with graphc.Session() as session:
        step = session.compile([loss, gradient])
        compiled = time.perf_counter()
        step(np.ones((4, 8), np.float32))
        ran = time.perf_counter()
        stats = session.stats()
    kernels = stats["kernels_compiled"] + stats["kernels_loaded"]
    print(
        f"{nodes:>8} nodes: build {built - start:6.2f} s, gradient and compile {compiled - built:6.2f} s "
        f"({(compiled - start) / nodes * 1e6:5.0f} us per node), first run {(ran - compiled) * 1e3:6.1f} ms, "
        f"{len(step.kernels)} kernel calls of {kernels} new kernels"
    )


def main() -> None:
    measure(400)  # starts the compiler and fills the cache
    for nodes in [int(a) for a in sys.argv[1:]] or [25_000, 50_000, 100_000]:
        measure(nodes)


if __name__ == "__main__":
    main()
