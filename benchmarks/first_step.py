"""What compiling costs: the first step of a workload in a new process, and one of another batch size after it.

    python -m benchmarks.first_step SIDE THREADS

The time begins when the arrays are there and the library is imported, with what it would import by itself in the first
step, and ends with that step. The imports, all but NumPy's, are timed apart.

A step of another batch size is timed whole, and so are the ``REPEATED`` that follow it. What it takes more than the
fastest of these is the price of a size that is new, without the step that every size takes.
"""

from __future__ import annotations

import json
import os
import sys
import time

from benchmarks.process import settle

WORKLOAD = "mlp"
OTHER_BATCH = 192
REPEATED = 5
CACHES = {
    "GRAPHC_CACHE_DIR": "graphc", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton",
    "JAX_COMPILATION_CACHE_DIR": "jax",
}  # fmt: skip  # folders under the one given, by variable


def cache_variables(folder: str) -> dict[str, str]:
    """The environment in which every side keeps what it compiles under ``folder``."""
    kept = {variable: os.path.join(folder, name) for variable, name in CACHES.items()}
    kept["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    kept["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    kept["PYTENSOR_FLAGS"] = f"base_compiledir={os.path.join(folder, 'pytensor')}"
    return kept


def measure(side: str, threads: int) -> dict[str, float]:
    """Seconds of imports, of the first step, of one of another batch size, and of the fastest after it; and kernels
    that the new batch size had compiled.
    """
    from benchmarks.sides import OURS, SIDES
    from benchmarks.workloads import WORKLOADS

    row = WORKLOADS[WORKLOAD]
    arrays = row.arrays(row.sizes)
    others = row.arrays({**row.sizes, "batch": OTHER_BATCH})
    start = time.perf_counter()
    module = SIDES[side].load()
    module.start(threads, SIDES[side].variant)
    imported = time.perf_counter() - start
    start = time.perf_counter()
    case = getattr(module, row.case)(arrays, row.sizes, **row.options)
    case.call()
    first = time.perf_counter() - start
    compiled = case.facts().get("compiled", 0) if side == OURS else 0  # the facts of others compile once more
    assert case.again is not None
    times = []
    for _ in range(1 + REPEATED):
        start = time.perf_counter()
        case.again(others)
        times.append(time.perf_counter() - start)
    second, *repeated = times
    compiled = case.facts().get("compiled", 0) - compiled if side == OURS else 0
    return {"imported": imported, "first": first, "second": second, "repeated": min(repeated), "compiled": compiled}


def main() -> None:
    threads = int(sys.argv[2])
    settle(threads)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    print(json.dumps(measure(sys.argv[1], threads)), file=answers)


if __name__ == "__main__":
    main()
