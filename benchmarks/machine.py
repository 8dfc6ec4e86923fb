"""What this machine is, and how fast it multiplies and copies: a rate of float32 products and rates of copying.

python -m benchmarks.machine THREADS
"""

from __future__ import annotations

import functools
import json
import math
import platform
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import graphc
from benchmarks.process import settle

Array = np.ndarray[Any, Any]
GEMM_SIZES = (512, 768, 1024, 1536, 2048)
COPY_BYTES = tuple(2**p for p in (20, 22, 24, 26, 28))  # read and written together
SECONDS, CALLS = 0.25, 5  # for each size, at least


def cpu() -> dict[str, str]:
    """Model, family and stepping, as the system names them."""
    found = {"model": platform.processor() or platform.machine(), "family": "", "number": ""}
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = {"model name": "model", "cpu family": "family", "model": "number"}
        for line in info.read_text().splitlines():
            key, _, value = (part.strip() for part in line.partition(":"))
            if key in names:
                found[names.pop(key)] = value
    return found


def slug(found: Mapping[str, str]) -> str:
    """The name of a CPU's folder; family and number tell apart what a hypervisor calls by one name."""
    text = "-".join(part for part in (found["model"], found["family"], found["number"]) if part)
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def measure(threads: int) -> dict[str, Any]:
    """The highest rate of products over square sizes, by SciPy's sgemm or by graphc, in operations a second, and
    [bytes, bytes a second] of copies, where bytes are those read and those written.
    """
    from scipy.linalg.blas import sgemm

    def by_scipy(a: Array, b: Array, c: Array) -> object:
        return sgemm(1.0, a, b, c=c, overwrite_c=True)

    gemm = _rate(by_scipy)
    x, y = graphc.placeholder((None, None), name="x"), graphc.placeholder((None, None), name="y")
    with graphc.Session(threads=threads) as session:  # which has BLAS use one thread
        product = session.compile(x @ y, feeds=[x, y])
        gemm = max(gemm, _rate(lambda a, b, c: product(a.T, b.T)))
    with ThreadPoolExecutor(threads) as pool:
        copies = [[size, size / _fastest(_copier(size, threads, pool))] for size in COPY_BYTES]
    return {"gemm": gemm, "copy": copies}


def _rate(multiply: Callable[[Array, Array, Array], object]) -> float:
    """The highest rate of ``multiply(a, b, c)``, square matrices of GEMM_SIZES in Fortran's order."""
    rng, found = np.random.default_rng(0), 0.0
    for n in GEMM_SIZES:
        a, b = (np.asfortranarray(rng.standard_normal((n, n), dtype=np.float32)) for _ in range(2))
        c = np.zeros((n, n), np.float32, order="F")
        found = max(found, 2 * n**3 / _fastest(functools.partial(multiply, a, b, c)))
    return found


def _copier(size: int, threads: int, pool: ThreadPoolExecutor) -> Callable[[], object]:
    """Copies half of ``size`` bytes over to the other half, each thread its part; NumPy lets go of the GIL."""
    source, target = np.ones(size // 8, np.float32), np.zeros(size // 8, np.float32)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    if threads == 1 or size < 2**22:  # starting a thread would take longer than copying
        return lambda: np.copyto(target, source)
    return lambda: list(pool.map(lambda part: np.copyto(*part), parts))


def _fastest(call: Callable[[], object]) -> float:
    call()  # touches every page
    best, end, calls = math.inf, time.perf_counter() + SECONDS, 0
    while calls < CALLS or time.perf_counter() < end:
        calls += 1
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def better(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The higher rates of two measurements."""
    copies = [[size, max(first, second)] for (size, first), (_, second) in zip(one["copy"], other["copy"], strict=True)]
    return {"gemm": max(one["gemm"], other["gemm"]), "copy": copies}


def floor(operations: float, size: float, rates: Mapping[str, Any]) -> float | None:
    """Seconds that ``operations`` and ``size`` bytes must take; bytes at the rate of copies of about that size, for
    what fits a cache moves faster. None where there is nothing to count.
    """
    if not operations and not size:
        return None
    copies: Sequence[tuple[float, float]] = rates["copy"]
    _, rate = min(copies, key=lambda pair: abs(math.log(pair[0] / size))) if size else (0.0, math.inf)
    return float(operations / rates["gemm"] + size / rate)


def main() -> None:
    threads = int(sys.argv[1])
    settle(threads)
    print(json.dumps(measure(threads)))


if __name__ == "__main__":
    main()
