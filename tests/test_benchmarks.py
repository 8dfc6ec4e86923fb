"""The benchmark: what it says of a run, and that sides are compared only where they compute the same."""

from __future__ import annotations

import copy
import itertools
import math
import os
import signal
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import agreement, environments, extras, first_step, history, machine, report, rounds, worker
from benchmarks.__main__ import EXTRAS, arguments, main
from benchmarks.process import Process, SideError
from benchmarks.sides import Case, Side
from benchmarks.workloads import WORKLOADS

RATES = {"gemm": 2e11, "copy": [[2**20, 8e10], [2**28, 2e10]]}
CPU = {"model": "AMD EPYC (tm)", "family": "25", "number": "17"}


def a_row(name: str, minima: Mapping[str, float], goal: Mapping[str, Any], **others: Any) -> dict[str, Any]:
    sides = {side: {"min": value, "median": value * 1.1} for side, value in minima.items()}
    return {"workload": name, "text": name, "unit": "s", "sides": sides, "goal": goal, **others}


def a_record(*rows: Mapping[str, Any], date: str = "2026-03-01T10:20:30+00:00", **absent: str) -> dict[str, Any]:
    return {
        "date": date,
        "command": "python -m benchmarks",
        "machine": {"cpu": CPU, "rates": RATES},
        "threads": 2,
        "versions": {"graphc": {"graphc": "0.1", "python": "3.11", "blas": "b"}, "torch eager": {"torch": "2.13"}},
        "absent": absent,
        "rows": list(rows),
    }


def cells(text: str, row: int) -> list[str]:
    """The cells of a row of a Markdown table; row 0 is the first below the header."""
    return [cell.strip() for cell in text.splitlines()[2 + row].strip("|").split("|")]


# Judging.


def test_a_goal_is_about_the_fastest_peer() -> None:
    row = a_row("mlp", {"graphc": 3.0, "numpy": 10.0, "jax": 4.0, "torch eager": 6.0}, {"ratio": 0.75, "against": []})
    verdict = report.judge(row)
    assert verdict.best == "jax"
    assert verdict.ratios == {"numpy": 0.3, "jax": 0.75, "torch eager": 0.5}
    assert (verdict.value, verdict.met) == (0.75, True)
    row["sides"]["graphc"]["min"] = 3.01
    assert report.judge(row).met is False


def test_a_goal_may_name_its_peer() -> None:
    row = a_row("tiny", {"graphc": 1.1, "numpy": 1.0, "jax": 0.1}, {"ratio": 1.2, "against": ["numpy"]})
    verdict = report.judge(row)
    assert (verdict.best, verdict.value, verdict.met) == ("jax", 1.1, True)


def test_the_fastest_of_several_named_peers_counts() -> None:
    row = a_row(
        "memory", {"graphc": 5.0, "torch eager": 9.0, "jax": 4.0}, {"ratio": 1.0, "against": ["torch eager", "jax"]}
    )
    assert report.judge(row).value == 1.25
    assert report.judge(row).met is False


def test_a_limit_needs_no_peer_and_other_conditions_break_it() -> None:
    row = a_row("compile", {"graphc": 1e-3}, {"limit": 2e-3})
    assert report.judge(row).met is True
    assert report.judge({**row, "broken": ["the new batch size compiled 1 kernels"]}).met is False
    assert "compiled 1 kernels" in report.table(a_record({**row, "broken": ["the new batch size compiled 1 kernels"]}))


def test_nothing_is_met_without_a_time_of_ours_and_nothing_judged_without_a_peer() -> None:
    row = a_row("mlp", {"graphc": 1.0, "jax": 2.0}, {"ratio": 0.75, "against": []})
    alone = {**row, "sides": {"graphc": {"min": 1.0}, "jax": {"error": "gave no answer"}}}
    assert report.judge(alone).met is None
    failed = {**row, "sides": {"graphc": {"error": "computes other values"}, "jax": {"min": 2.0}}}
    assert report.judge(failed).met is False
    assert cells(report.table(a_record(failed)), 0)[1] == "error"


# Showing.


def test_small_ratios_keep_two_digits() -> None:
    row = a_row("chain", {"graphc": 1.0, "numpy": 400.0, "jax": 3.0}, {"ratio": 0.5, "against": []})
    assert cells(report.table(a_record(row)), 0)[2:5] == ["0.003", "0.33", "0.33"]


def test_table() -> None:
    row = a_row("mlp", {"graphc": 1.234e-3, "torch eager": 2e-3}, {"ratio": 0.75, "against": []}, floor=1e-3)
    row["sides"]["jax"] = {"error": "XlaRuntimeError: no memory"}
    text = report.table(a_record(row, pytensor="cannot be installed: ERROR: No matching distribution"))
    header = [cell.strip() for cell in text.splitlines()[0].strip("|").split("|")]
    found = dict(zip(header, cells(text, 0), strict=True))
    assert found == {
        "workload": "mlp", "graphc": "1.23 ms", "/ torch eager": "0.62", "/ jax": "error", "/ pytensor": "absent",
        "/ best peer": "0.62", "goal": "0.75", "met": "yes", "floor": "1.00 ms", "/ floor": "1.2",
    }  # fmt: skip
    assert "- pytensor: absent, cannot be installed: ERROR: No matching distribution\n" in text
    assert "- mlp, jax: XlaRuntimeError: no memory\n" in text
    assert len({len(line) for line in text.splitlines()[:3]}) == 1


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.5, "s", "1.50 s"), (0.9999, "s", "1.00 s"), (0.99, "s", "990 ms"), (9.999e-2, "s", "100 ms"),
        (2.5e-6, "s", "2.50 µs"),
        (4e-8, "s", "40 ns"), (0.0, "s", "0 ns"), (4800, "B", "4.80 kB"), (12, "B", "12 B"), (1.0349, "1", "1.03"),
    ],
)  # fmt: skip
def test_amounts(value: float, unit: str, text: str) -> None:
    assert report.amount(value, unit) == text


def test_history_keeps_a_file_for_each_run_and_finds_the_latest(tmp_path: Path) -> None:
    row = a_row("mlp", {"graphc": 1.23456e-3, "jax": 2e-3}, {"ratio": 0.75, "against": []})
    for date in ("2026-03-01T10:20:30+00:00", "2026-11-01T08:00:00+00:00"):
        record = a_record(row, date=date)
        history.write(record, history.path_of(record, tmp_path))
    assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.json")) == [
        "amd-epyc-tm-25-17/2026-03-01T10-20-30.json",
        "amd-epyc-tm-25-17/2026-11-01T08-00-00.json",
    ]
    latest = history.latest(CPU, tmp_path)
    assert latest is not None
    assert latest.stem == "2026-11-01T08-00-00"
    kept = history.read(latest)
    assert kept["rows"][0]["sides"]["graphc"]["min"] == 1.235e-3
    assert report.table(kept) == report.table(a_record(row))
    assert history.latest({**CPU, "number": "18"}, tmp_path) is None


def test_table_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = a_record(a_row("mlp", {"graphc": 1e-3}, {}))
    history.write(record, tmp_path / "run.json")
    main(["--table", str(tmp_path / "run.json")])
    assert capsys.readouterr().out == report.table(record) + "\n" + report.caption(record)


# Comparing.


def test_digests_see_what_differs() -> None:
    values = np.linspace(-1, 1, 1000).reshape(20, 50)
    truth = {"g": agreement.digest(values)}
    assert agreement.difference({"g": agreement.digest(values.astype(np.float32))}, truth) < 2**-24
    assert agreement.difference({"g": agreement.digest(values.T)}, truth) == math.inf
    assert agreement.difference({"h": agreement.digest(values)}, truth) == math.inf
    assert agreement.difference({"g": agreement.digest(values * 1.001)}, truth) == pytest.approx(1e-3, rel=0.01)
    assert agreement.difference({"g": agreement.digest(-values)}, truth) == 2.0
    broken = values.copy()
    broken[3, 3] = np.nan
    assert agreement.difference({"g": agreement.digest(broken)}, truth) == math.inf
    zeros = {"g": agreement.digest(np.zeros(4))}
    assert agreement.difference(zeros, zeros) == 0.0
    assert agreement.difference({"g": agreement.digest(np.full(4, 1e-30))}, zeros) == math.inf


def test_a_wrong_digit_is_no_rounding() -> None:
    """What the tolerance allows for the longest sum of any workload is still less than a wrong operation makes."""
    for row in WORKLOADS.values():
        assert agreement.allowed(0.0, row.terms(row.sizes)) < 5e-3, row.name


class MadeUp:
    """A side that answers as told, and writes down what it is asked."""

    def __init__(self, log: list[tuple[str, str]], name: str, value: float, error: str = "", fails: str = "") -> None:
        self.log, self.name, self.value, self.error, self.fails = log, name, value, error, fails

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        self.log.append((self.name, do))
        if do == self.fails:
            raise SideError(self.error)
        if do == "build":
            return {"digests": {"loss": agreement.digest(self.value)}, "seconds": 1.0}
        return {"times": [2.0, 1.0, 3.0]} if do == "turn" else {"facts": {"temporaries": 7}}


def test_sides_take_turns_and_those_that_disagree_are_not_timed() -> None:
    log: list[tuple[str, str]] = []
    sides = {
        "graphc": MadeUp(log, "graphc", 1.0),
        "torch eager": MadeUp(log, "torch eager", 1.01),
        "torch.compile": MadeUp(log, "torch.compile", 1.0, "InductorError: no compiler", fails="build"),
        "jax": MadeUp(log, "jax", 1.0, "gave no answer within 3 s", fails="turn"),
        "pytensor": MadeUp(log, "pytensor", 1.0 + 1e-7),
    }
    row = WORKLOADS["mlp"]
    found = rounds.compare(row, row.small, sides, MadeUp([], "numpy", 1.0), rounds.Plan(2, 0.1, 0.0), lambda text: None)
    assert found["graphc"] == {
        "built": 1.0, "difference": 0.0, "min": 1.0, "median": 2.0, "q1": 1.25, "q3": 2.75, "calls": 6,
    }  # fmt: skip
    assert "differ by 0.01" in found["torch eager"]["error"]
    assert found["torch.compile"] == {"error": "InductorError: no compiler"}
    assert found["jax"] == {"error": "gave no answer within 3 s"}
    assert "min" in found["pytensor"]
    turns = [name for name, do in log if do == "turn"]
    assert turns == ["graphc", "jax", "pytensor", "graphc", "pytensor"]


# The sides themselves; peers in their own environments are compared by the benchmark before it times them.


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_graphc_and_numpy_agree(name: str) -> None:
    row = WORKLOADS[name]
    ours, numpy = worker.Worker("graphc", 2), worker.Worker("numpy", 2)
    truth = numpy.build(name, row.small, "float64")["digests"]
    plain = agreement.difference(numpy.build(name, row.small)["digests"], truth)
    limit = agreement.allowed(plain, row.terms(row.small))
    try:
        first = ours.build(name, row.small)["digests"]
        assert plain <= limit
        assert agreement.difference(first, truth) <= limit
        for side in (ours, numpy):  # back where it began, parameters and slots
            case = side._case
            case.reset()
            steps = [{k: np.array(v) for k, v in case.values(case.call()).items()} for _ in range(row.steps)]
            again = steps[0] if row.steps == 1 else {k: np.stack([s[k] for s in steps]) for k in steps[0]}
            digests = {k: agreement.digest(v) for k, v in again.items()}
            assert agreement.difference(digests, truth) <= limit
    finally:
        ours.close()


def test_graphc_tells_its_memory_and_compiles_nothing_for_another_batch() -> None:
    row = WORKLOADS["mlp"]
    ours = worker.Worker("graphc", 2)
    ours.build("mlp", row.small)
    try:
        before = ours.facts()["facts"]
        assert before["temporaries"] >= before["least"] > 0
        loss, _ = ours._case.again(row.arrays({**row.small, "batch": 7}))
        assert np.isfinite(loss)
        assert ours.facts()["facts"]["compiled"] == before["compiled"]
    finally:
        ours.close()


def test_every_side_gets_the_same_aligned_arrays() -> None:
    row = WORKLOADS["attn"]
    single, double = row.arrays(row.small), row.arrays(row.small, "float64")
    for name, array in single.items():
        assert array.ctypes.data % 64 == 0
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, double[name])
    labels = WORKLOADS["softmax"].arrays(WORKLOADS["softmax"].small, "float64")["labels"]
    assert labels.dtype == np.int64


# Processes and environments.


def test_a_turn_counts_batches_of_short_calls() -> None:
    side = worker.Worker("numpy", 1)
    side.build("tiny-step", WORKLOADS["tiny-step"].small)
    times = side.turn(0.01)["times"]
    assert len(times) >= worker.LEAST
    assert all(t > 0 for t in times)


def test_a_worker_answers_errors_and_goes_on_after_an_end_or_a_timeout() -> None:
    process = Process("numpy", sys.executable, 1, timeout=60)
    sizes = dict(WORKLOADS["seed"].small)
    try:
        with pytest.raises(SideError, match="KeyError: 'no such workload'"):
            process.ask("build", workload="no such workload", sizes=sizes)
        answer = process.ask("build", workload="seed", sizes=sizes)
        assert list(answer["digests"]) == ["loss"]
        assert process.versions["numpy"] == np.__version__
        os.kill(process._process.pid, signal.SIGKILL)
        with pytest.raises(SideError, match="was killed"):
            process.ask("turn", seconds=0.1)
        process.ask("build", workload="seed", sizes=sizes)
        process.timeout = 0.0
        with pytest.raises(SideError, match="gave no answer within 0 s"):
            process.ask("turn", seconds=0.5)
        process.timeout = 60
        assert process.ask("build", workload="seed", sizes=sizes)["digests"] == answer["digests"]
    finally:
        process.close()


def test_a_peer_that_cannot_be_installed_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setitem(environments.REQUIREMENTS, "jax", ("graphc-bench-no-such-package==1",))
    with pytest.raises(SideError, match=r"cannot be installed: .*graphc-bench-no-such-package"):
        environments.python_of("jax", tmp_path, {})
    assert environments.python_of("jax", tmp_path, {"jax": "/usr/bin/python3"}) == "/usr/bin/python3"
    assert environments.python_of(None, tmp_path, {}) == sys.executable


def test_a_peer_that_does_not_start_says_why() -> None:
    process = Process("jax", sys.executable, 1, timeout=60)  # graphc's own environment has no JAX
    with pytest.raises(SideError, match="ModuleNotFoundError: No module named 'jax'"):
        process.start()
    process.close()


# The rest of the record.


def test_floor_takes_the_rate_of_copies_of_about_that_size() -> None:
    assert machine.floor(2e9, 2**20, RATES) == pytest.approx(1e-2 + 2**20 / 8e10)
    assert machine.floor(0, 2**28, RATES) == pytest.approx(2**28 / 2e10)
    assert machine.floor(2e9, 0, RATES) == pytest.approx(1e-2)
    assert machine.floor(0, 0, RATES) is None
    faster = {"gemm": 1e11, "copy": [[2**20, 9e10], [2**28, 1e10]]}
    assert machine.better(RATES, faster) == {"gemm": 2e11, "copy": [[2**20, 9e10], [2**28, 2e10]]}


def test_work_of_a_workload() -> None:
    """The operations of the tour's network, counted by hand; an Adam step moves six words a parameter."""
    seed, mlp = WORKLOADS["seed"], WORKLOADS["mlp"]
    assert seed.work(seed.sizes)[0] == 2 * 32 * (2 * 1000 * 100 + 3 * 100 * 2)
    parameters = 784 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10
    assert mlp.work(mlp.sizes) == (
        2 * 256 * (2 * 784 * 512 + 3 * 512 * 512 + 3 * 512 * 10),
        24 * parameters + 4 * 256 * 784 + 8 * 256,
    )


def test_memory_rows() -> None:
    facts = {
        "graphc": {"temporaries": 110, "least": 100, "compiled": 3},
        "numpy": {},
        "torch eager": {"temporaries": 200},
        "jax": {"error": "AttributeError: no memory_analysis"},
    }
    memory, arena = extras.memory_rows("mlp", copy.deepcopy(facts))
    assert memory["sides"] == {
        "graphc": {"min": 110}, "torch eager": {"min": 200}, "jax": {"error": "AttributeError: no memory_analysis"},
    }  # fmt: skip
    assert report.judge(memory).value == 0.55
    assert report.judge(memory).met is True
    assert report.judge(arena).value == pytest.approx(1.1)
    assert [report.judge(row).met for row in extras.memory_rows("mlp", {"graphc": {"temporaries": 3, "least": 2}})] == [
        None,
        False,
    ]


def test_compile_rows_have_the_imports_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds, repeated = itertools.cycle([9e-3, 5e-3, 8e-3, 6e-3]), itertools.cycle([4.5e-3, 4.6e-3, 4e-3, 5.5e-3])

    def answer(python: str, arguments: list[str], *_: Any, **variables: str) -> dict[str, float]:
        folder = Path(variables["GRAPHC_CACHE_DIR"])
        first = not folder.exists()
        folder.mkdir(exist_ok=True)
        if arguments[1] == "jax":
            raise SideError("ended with status 1")
        steps = {"first": 2.0 if first else 0.5, "second": next(seconds), "repeated": next(repeated)}
        return {"imported": 0.5 if first else 0.25, **steps, "compiled": 1}

    monkeypatch.setattr(extras, "run_once", answer)
    pythons = {"graphc": sys.executable, "numpy": sys.executable, "jax": sys.executable}
    rows = extras.compile_rows(pythons, 2, 60.0, lambda _: None)
    assert [row["sides"]["graphc"]["min"] for row in rows] == [0.25, 2.0, 0.5, 5e-3, pytest.approx(4e-4)]
    assert [report.judge(row).met for row in rows] == [None, True, True, None, False]
    assert all(row["sides"]["jax"] == {"error": "ended with status 1"} for row in rows)
    assert rows[-1]["broken"] == ["the new batch size compiled 1 kernels"]
    assert cells(report.table(a_record(*rows)), 0)[:2] == ["compile, imports", "250 ms"]


def test_a_new_batch_size_is_timed_whole_and_beyond_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a side whose clock goes with its calls: 40 s for the first step, 9 for a new size, then 5, 3, 4, 6, 7."""
    now = [100.0]
    times = iter([9, 5, 3, 4, 6, 7])

    def pass_(seconds: float) -> None:
        now[0] += seconds

    case = Case(lambda: pass_(40), lambda found: {}, again=lambda others: pass_(next(times)))
    module = types.SimpleNamespace(start=lambda threads, variant: pass_(2), classifier=lambda *a, **k: case)
    monkeypatch.setattr(first_step.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(Side, "load", lambda self: module)
    found = first_step.measure("jax", 2)
    assert found == {"imported": 2, "first": 40, "second": 9, "repeated": 3, "compiled": 0}


def test_what_is_asked_for() -> None:
    assert set(arguments([]).workloads) == {*WORKLOADS, *EXTRAS}
    assert arguments(["--quick"]).workloads == list(WORKLOADS)
    assert arguments(["big-graph", "--quick"]).workloads == ["big-graph"]
    assert arguments(["mlp", "--peers", "numpy"]).peers == ["numpy"]
    with pytest.raises(SystemExit):
        arguments(["no such workload"])
