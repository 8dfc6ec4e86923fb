"""The benchmark of elementary functions: an element's time, its rows and their table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import agreement, report, rounds, vmath, worker
from benchmarks.process import SideError
from benchmarks.workloads import BY_NAME, ELEMENTWISE, WORKLOADS

NANOSECONDS = {"graphc": 0.5, "numpy": 1.0, "torch eager": 0.4, "jax": 2.0}


class MadeUp:
    """A process whose calls take 5 microseconds and its side's time for each element; twice that in float64."""

    log: list[tuple[str, str]]

    def __init__(self, side: str, python: str, threads: int, timeout: float) -> None:
        assert threads == 1
        self.side, self.seconds = side, 0.0

    def ask(self, do: str, workload: str = "", sizes: Any = None, dtype: str = "float32", **_: Any) -> dict[str, Any]:
        MadeUp.log.append((self.side, do))
        if self.side == "jax" and workload == "vmath-erf":
            raise SideError("AttributeError: no erf")
        if do == "turn":
            return {"times": [self.seconds * 1.5, self.seconds]}
        each = NANOSECONDS[self.side] * (2 if dtype == "float64" else 1)
        self.seconds = 5e-6 + sizes["n"] * each * 1e-9
        return {"digests": {"y": agreement.digest([1.0, 2.0])}, "seconds": 0.1}

    def close(self) -> None:
        MadeUp.log.append((self.side, "close"))


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The rows of made-up sides."""
    MadeUp.log = []
    monkeypatch.setattr(vmath, "Process", MadeUp)
    pythons = dict.fromkeys((*NANOSECONDS, "torch.compile"), sys.executable)
    return vmath.rows(pythons, 60.0, lambda text: None, rounds.Plan(2, 0.0, 0.0))


def test_what_a_call_costs_by_itself_is_left_out(rows: list[dict[str, Any]]) -> None:
    assert [(row["function"], row["dtype"]) for row in rows] == [(f, d) for f in ELEMENTWISE for d in vmath.DTYPES]
    for row in rows:
        scale = 2 if row["dtype"] == "float64" else 1
        for side, found in row["sides"].items():
            if "error" not in found:
                assert found["min"] == pytest.approx(NANOSECONDS[side] * scale)
                assert found["short"] == pytest.approx(5e-6 + vmath.SHORT * NANOSECONDS[side] * scale * 1e-9)
        assert report.judge(row).value == pytest.approx(1.25)
        assert report.judge(row).met is True
    turns = [side for side, do in MadeUp.log if do == "turn"]
    assert turns[: len(NANOSECONDS) * 2] == list(NANOSECONDS) * 2
    assert {side for side, do in MadeUp.log if do == "close"} == set(NANOSECONDS)


def test_table(rows: list[dict[str, Any]]) -> None:
    assert rows[-1]["function"] == "pow"
    rows[-1]["sides"]["graphc"]["min"] *= 1.1
    record = {"rows": [], "vmath": rows, "absent": {"pytensor": "cannot be installed"}}
    lines = report.table(record).splitlines()
    header, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    peers = ["/ numpy", "/ torch eager", "/ jax"]
    assert header == ["ns for an element, one thread", "float32", *peers, "float64", *peers, "goal", "met"]
    assert [line[0] for line in body] == list(ELEMENTWISE)
    found = {line[0]: line[1:] for line in body}
    assert found["exp"] == ["0.50", "0.50", "1.25", "0.25", "1.00", "0.50", "1.25", "0.25", "1.30 x torch eager", "yes"]
    assert found["erf"][3] == found["erf"][7] == "error"
    assert found["pow"][4:6] == ["1.10", "0.55"]
    assert found["pow"][-1] == "no"
    assert "- pytensor: absent, cannot be installed" in lines
    assert "- vmath-erf float64, jax: AttributeError: no erf" in lines


def test_the_tables_follow_each_other(rows: list[dict[str, Any]]) -> None:
    row = {"workload": "mlp", "unit": "s", "sides": {"graphc": {"min": 1.0}}, "goal": {}}
    alone = report.table({"rows": [row], "absent": {}})
    both = report.table({"rows": [row], "vmath": rows[:2], "absent": {}})
    assert both.startswith(alone.rstrip("\n") + "\n\n| ns for an element")


@pytest.mark.parametrize("dtype", vmath.DTYPES)
@pytest.mark.parametrize("function", ELEMENTWISE)
def test_graphc_and_numpy_agree(function: str, dtype: str) -> None:
    row = ELEMENTWISE[function]
    ours, numpy = worker.Worker("graphc", 1), worker.Worker("numpy", 1)
    truth = numpy.build(row.name, row.small, "float64")["digests"]
    plain = agreement.difference(numpy.build(row.name, row.small, dtype)["digests"], truth)
    try:
        found = ours.build(row.name, row.small, dtype)["digests"]
        case = ours._case
        assert case.values(case.call())["y"].dtype == dtype
        assert agreement.difference(found, truth) <= agreement.allowed(plain, row.terms(row.small), dtype)
        times = ours.turn(0.001)["times"]
        assert min(times) > 0
    finally:
        ours.close()


def test_agreement_in_float64_is_that_of_float64() -> None:
    values = np.linspace(1, 2, 100)
    off = agreement.difference({"y": agreement.digest(values * (1 + 1e-14))}, {"y": agreement.digest(values)})
    assert agreement.allowed(0.0, 1, "float64") < off < agreement.allowed(0.0, 1)


def test_names() -> None:
    assert len(BY_NAME) == len(WORKLOADS) + len(ELEMENTWISE)
