"""One side in a process of its own. Commands are JSON lines on its input, answers JSON lines on its output.

    build   a workload at given sizes; answers digests of what its first steps make
    turn    times calls for a while; answers the seconds of each
    facts   what the library says of the case
    close   lets the case go

An error is an answer, ``{"error": text}``. Parameters are put back before every turn, so that no side trains on until
its numbers are denormal.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.process import settle

WARM = 0.02  # seconds of calls at the start of a turn that are not counted, and at least two
BATCH = 20e-6  # seconds that are timed at once: the clock takes a tenth of a microsecond
LEAST = 3  # timings of a turn


class Worker:
    """Answers commands, with one case at a time."""

    def __init__(self, side: str, threads: int) -> None:
        from benchmarks.sides import SIDES

        self._module = SIDES[side].load()
        self._module.start(threads, SIDES[side].variant)
        self._case: Any = None

    def versions(self) -> dict[str, Any]:
        return {"versions": self._module.versions()}

    def build(self, workload: str, sizes: Mapping[str, int], dtype: str = "float32") -> dict[str, Any]:
        import numpy as np

        from benchmarks.agreement import digest
        from benchmarks.workloads import BY_NAME

        self.close()
        row = BY_NAME[workload]
        arrays = row.arrays(sizes, dtype)
        start = time.perf_counter()
        self._case = case = getattr(self._module, row.case)(arrays, sizes, **row.options)
        steps = [{k: np.array(v) for k, v in case.values(case.call()).items()} for _ in range(row.steps)]
        seconds = time.perf_counter() - start
        found = steps[0] if row.steps == 1 else {k: np.stack([s[k] for s in steps]) for k in steps[0]}
        return {"digests": {name: digest(value) for name, value in found.items()}, "seconds": seconds}

    def turn(self, seconds: float) -> dict[str, Any]:
        call = self._case.call
        self._case.reset()
        gc.collect()
        gc.disable()
        try:
            each = self._warm(call)
            count = max(1, round(BATCH / each))
            times, clock = [], time.perf_counter
            end = clock() + seconds
            while len(times) < LEAST or clock() < end:
                start = clock()
                for _ in range(count):
                    call()
                times.append((clock() - start) / count)
        finally:
            gc.enable()
        return {"times": times}

    def _warm(self, call: Any) -> float:
        """Seconds of the fastest of the first calls."""
        best, end = float("inf"), time.perf_counter() + WARM
        calls = 0
        while calls < 2 or time.perf_counter() < end:
            start = time.perf_counter()
            call()
            best = min(best, time.perf_counter() - start)
            calls += 1
        return max(best, 1e-9)

    def facts(self) -> dict[str, Any]:
        return {"facts": dict(self._case.facts())}

    def close(self) -> dict[str, Any]:
        if self._case is not None:
            self._case.close()
        self._case = None
        gc.collect()
        return {}


def _answer(make: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = make()
        return found
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return {"error": f"{type(error).__name__}: {lines[0]}"[:300]}


def main() -> None:
    side, threads = sys.argv[1], int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints goes with its errors
    settle(threads)
    worker: list[Worker] = []

    def first() -> dict[str, Any]:
        worker.append(Worker(side, threads))
        return worker[0].versions()

    print(json.dumps(_answer(first)), file=answers)
    for line in sys.stdin if worker else ():
        command = json.loads(line)
        do = command.pop("do")
        print(json.dumps(_answer(lambda: getattr(worker[0], do)(**command))), file=answers)  # noqa: B023


if __name__ == "__main__":
    main()
