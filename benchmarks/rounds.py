"""One workload on all sides: the same values first, then turns, one side at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from benchmarks import agreement
from benchmarks.process import SideError
from benchmarks.workloads import Sizes, Workload

REST = 0.05  # seconds between turns: threads of the side before that still spin have gone to sleep
TRUTH = "numpy"


class Asked(Protocol):
    """What answers commands: a process, or something made up in tests."""

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Plan:
    """``rounds`` turns of ``seconds`` for each side."""

    rounds: int
    seconds: float
    rest: float = REST


def summary(times: list[float]) -> dict[str, float]:
    """Minimum, median and quartiles of seconds."""
    q1, median, q3 = np.percentile(times, [25, 50, 75]).tolist()
    return {"min": min(times), "median": median, "q1": q1, "q3": q3, "calls": len(times)}


def compare(
    row: Workload, sizes: Sizes, sides: Mapping[str, Asked], truth: Asked, plan: Plan, say: Callable[[str], None],
    dtype: str = "float32",
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Times of each side, or its error. A side whose values differ from those of ``truth``, NumPy in float64, is not
    timed. The sides keep the case, so that they can be asked for facts.
    """
    found: dict[str, dict[str, Any]] = {}
    wanted = truth.ask("build", workload=row.name, sizes=dict(sizes), dtype="float64")["digests"]
    plain = truth.ask("build", workload=row.name, sizes=dict(sizes), dtype=dtype)["digests"]
    limit = agreement.allowed(agreement.difference(plain, wanted), row.terms(sizes), dtype)
    times: dict[str, list[float]] = {}
    for name, side in sides.items():
        try:
            built = side.ask("build", workload=row.name, sizes=dict(sizes), dtype=dtype)
            off = agreement.difference(built["digests"], wanted)
            if off > limit:
                raise SideError(
                    f"computes other values: they differ by {off:.2g} of their size, allowed is {limit:.2g}"
                )
        except SideError as error:
            found[name] = {"error": str(error)}
        else:
            times[name] = []
            found[name] = {"built": built["seconds"], "difference": off}
        say(f"{row.name}: {name} {found[name].get('error', 'agrees')}")
    for _ in range(plan.rounds):
        for name in list(times):
            time.sleep(plan.rest)
            try:
                times[name] += sides[name].ask("turn", seconds=plan.seconds)["times"]
            except SideError as error:
                found[name] = {"error": str(error)}
                del times[name]
    for name, taken in times.items():
        found[name].update(summary(taken))
    return found


def facts(sides: Mapping[str, Asked]) -> dict[str, dict[str, Any]]:
    """What each side says of the case it has, or its error."""
    found = {}
    for name, side in sides.items():
        try:
            found[name] = side.ask("facts")["facts"]
        except SideError as error:
            found[name] = {"error": str(error)}
    return found
