"""Times of this machine: the hand-made MLP's step against NumPy, and what compiling the digits MLP costs.

    python benchmarks/step.py

Both sides of a comparison take turns in one process; the minimum is the time without the machine's other work.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))
sys.path.insert(0, str(ROOT / "examples" / "tour"))

COMPILE = """
import json, sys, time
sys.path.insert(0, {examples!r})
import numpy as np, scipy.linalg.cython_blas, graphc, train_mlp
from runtime.cpu import backend
model = train_mlp.build(64, 10, 256)
start = time.perf_counter()
session = graphc.Session()
step = session.compile([model.loss, model.train], feeds=[model.x, model.y])
step(np.zeros((64, 64), np.float32), np.zeros(64, np.int64))
seconds = time.perf_counter() - start
start = time.perf_counter()
step(np.zeros((48, 64), np.float32), np.zeros(48, np.int64))
second = time.perf_counter() - start
print(json.dumps(dict(seconds=seconds, second=second, kernels=len(step.kernels), **session.stats())))
"""


def alternate(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side's calls, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def hand_made_step() -> None:
    """TOUR T5: batch 32, 1000-100-2, float32."""
    import t5_hand_made_mlp as t5

    import graphc

    values = t5.data("float32")
    x, y, loss, train = t5.build(*values[2:])
    with graphc.Session() as session:
        step = session.compile([loss, train], feeds=[x, y])
        times = alternate(
            {"graphc": lambda: step(values[0], values[1]), "numpy": lambda: t5.numpy_step(*values)}, rounds=2000
        )
    for name, seconds in times.items():
        print(f"  {name:<7} min {min(seconds) * 1e6:6.0f} us   median {statistics.median(seconds) * 1e6:6.0f} us")
    print(f"  ratio of minima {min(times['graphc']) / min(times['numpy']):.2f}")


def compile_times() -> None:
    """The digits MLP with Adam: from an empty cache, in a new process with a full one, and at a second batch size."""
    with tempfile.TemporaryDirectory() as folder:
        for label in ("empty cache", "warm cache"):
            code = COMPILE.format(examples=str(ROOT / "examples"))
            environment = {**os.environ, "GRAPHC_CACHE_DIR": folder}
            command = [sys.executable, "-c", code]
            answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            found = json.loads(answer.stdout)
            print(
                f"  {label}: first step {found['seconds']:.2f} s ({found['kernels']} kernels, "
                f"{found['kernels_compiled']} compiled, {found['kernels_loaded']} loaded), "
                f"second batch size {found['second'] * 1e3:.1f} ms"
            )


def main() -> None:
    print("hand-made MLP, one training step")
    hand_made_step()
    print("digits MLP, from graph to first step, imports left out")
    compile_times()


if __name__ == "__main__":
    main()
