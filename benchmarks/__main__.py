"""``make bench``: graphc beside its peers, one table and one JSON file.

python -m benchmarks                         every workload, about a quarter of an hour; kept in benchmarks/history
python -m benchmarks --quick                 fewer and shorter turns; kept in out/bench.json
python -m benchmarks seed mlp --peers numpy jax
python -m benchmarks --table                 the latest run of this CPU as Markdown
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import extras, history, machine, report, rounds, vmath
from benchmarks.environments import python_of
from benchmarks.process import ROOT, Process, SideError, run_once
from benchmarks.sides import OURS, SIDES
from benchmarks.workloads import WORKLOADS

EXTRAS = ("vmath", "compile", "big-graph", "memory")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    known = [*WORKLOADS, *EXTRAS]
    peers = [name for name in SIDES if name != OURS]
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workloads", nargs="*", metavar="workload", help=f"of {', '.join(known)}; all without any")
    parser.add_argument("--peers", nargs="*", choices=peers, default=peers, help="the sides beside graphc")
    parser.add_argument("--quick", action="store_true", help="few short turns, and less time for a side to compile")
    parser.add_argument("--rounds", type=int, help="turns of each side")
    parser.add_argument("--seconds", type=float, help="length of a turn")
    parser.add_argument("--timeout", type=float, help="seconds that a side may take to get ready")
    parser.add_argument("--threads", type=int, help="cores and threads of every side; all by default")
    parser.add_argument("--venvs", type=Path, default=ROOT / ".venv-bench", help="folder of the peers' environments")
    parser.add_argument(
        "--python", action="append", default=[], metavar="PEER=PATH", help="an environment that is there already"
    )
    parser.add_argument("--json", type=Path, help="where the record goes")
    parser.add_argument(
        "--table", nargs="?", const=Path(), type=Path, metavar="JSON", help="show a record, run nothing"
    )
    found = parser.parse_args(argv)
    unknown = [name for name in found.workloads if name not in known]
    if unknown:
        parser.error(f"unknown workload {unknown[0]!r}; there are {', '.join(known)}")
    found.workloads = found.workloads or known
    if found.quick and found.workloads == known:
        found.workloads = list(WORKLOADS)
    found.rounds = found.rounds or (3 if found.quick else 12)
    found.seconds = found.seconds or (0.1 if found.quick else 0.3)
    found.timeout = found.timeout or (30 if found.quick else 600)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found.threads = min(found.threads or cores, cores)
    return found


def run(options: argparse.Namespace, command: str) -> dict[str, Any]:
    """The record of a run."""
    pythons, absent = _pythons(options)
    processes = {name: Process(name, python, options.threads, options.timeout) for name, python in pythons.items()}
    truth = processes.get(rounds.TRUTH) or Process(rounds.TRUTH, sys.executable, options.threads, options.timeout)
    try:
        for name in list(processes):
            try:
                processes[name].start()
            except SideError as error:  # what was installed does not start
                absent[name] = str(error)
                del processes[name], pythons[name]
        rates = _rates(options)
        rows, facts = _timed_rows(options, processes, truth)
        rates = machine.better(rates, _rates(options))
    finally:
        for process in (*processes.values(), truth):
            process.close()
    elementwise = vmath.rows(pythons, options.timeout, _say) if "vmath" in options.workloads else []
    if "compile" in options.workloads:
        rows += extras.compile_rows(pythons, options.threads, options.timeout, _say)
    if "big-graph" in options.workloads:
        rows += extras.big_graph_rows(options.threads, options.timeout)
    for workload, known in facts.items():
        rows += extras.memory_rows(workload, known)
    for row in rows:
        if row["workload"] in WORKLOADS:
            workload = WORKLOADS[row["workload"]]
            row["floor"] = machine.floor(*workload.work(workload.sizes), rates)
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command,
        "commit": _commit(),
        "machine": {"cpu": machine.cpu(), "rates": rates},
        "threads": options.threads,
        "versions": {name: process.versions for name, process in processes.items()},
        "absent": absent,
        "rows": rows,
        "vmath": elementwise,
    }


def _pythons(options: argparse.Namespace) -> tuple[dict[str, str], dict[str, str]]:
    """The interpreter of each side, and why others have none."""
    given = dict(pair.split("=", 1) for pair in options.python)
    found, absent = {}, {}
    for name in (OURS, *options.peers):
        try:
            found[name] = python_of(SIDES[name].environment, options.venvs, given)
        except SideError as error:
            absent[name] = str(error)
    return found, absent


def _rates(options: argparse.Namespace) -> dict[str, Any]:
    arguments = ["benchmarks.machine", str(options.threads)]
    return run_once(sys.executable, arguments, options.threads, options.timeout)


def _timed_rows(
    options: argparse.Namespace, processes: dict[str, Process], truth: Process
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of workloads, and the facts of those whose memory is compared."""
    plan = rounds.Plan(options.rounds, options.seconds)
    rows, facts = [], {}
    for name, workload in WORKLOADS.items():
        measured = "memory" in options.workloads and name in extras.MEMORY
        if name not in options.workloads and not measured:
            continue
        shown = name in options.workloads
        sides = rounds.compare(
            workload, workload.sizes, processes, truth, plan if shown else rounds.Plan(0, 0), _say
        )  # fmt: skip
        if shown:
            goal = {"ratio": workload.goal.value, "against": list(workload.goal.against)}
            rows.append({"workload": name, "text": workload.text, "unit": "s", "sides": sides, "goal": goal})
            _say(report.brief(rows[-1]))
        if measured:
            facts[name] = rounds.facts({n: p for n, p in processes.items() if "error" not in sides[n]})
        for process in (*processes.values(), truth):
            process.forget()
    return rows, facts


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    if options.table is not None:
        path = options.table if options.table.suffix else history.latest(machine.cpu())
        if path is None:
            sys.exit("no run of this CPU is kept; run python -m benchmarks first")
        record = history.read(path)
        print(report.table(record), report.caption(record), sep="\n", end="")
        return
    record = run(options, shlex.join(["python", "-m", "benchmarks", *(sys.argv[1:] if argv is None else argv)]))
    whole = not options.quick and set(options.workloads) == {*WORKLOADS, *EXTRAS}
    path = options.json or (history.path_of(record) if whole else ROOT / "out" / "bench.json")
    history.write(record, path)
    print(report.table(record), report.caption(record), sep="\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
