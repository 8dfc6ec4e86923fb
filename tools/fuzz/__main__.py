"""``make fuzz``: random programs for a stated time.

    make fuzz ARGS="--minutes 60"              for an hour
    make fuzz ARGS="--seed 7 --first 123 --programs 1"      program 123 of seed 7 again

Programs are checked in processes of their own. A process that crashes or hangs is replaced, and the program that it
was at is made small by running scripts. Every failure is printed, and written to a file that runs by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from fuzz.case import Case
from fuzz.catalogue import entries
from fuzz.check import Failure
from fuzz.drawing import draw
from fuzz.script import script
from fuzz.shrink import Shrinker
from graphc.opdef import OPS, Kind

HANG = 300.0  # seconds without a word
SHOWN = 8000  # characters of a script
PER_PROCESS = 150  # programs, so that compiled kernels do not fill the memory
TOOLS = Path(__file__).resolve().parent.parent


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="how long to go on (default 5)")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is printed")
    parser.add_argument("--first", type=int, default=0, help="number of the first program")
    parser.add_argument("--programs", type=int, default=10**9, help="stop after so many")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time")
    parser.add_argument("--only", nargs="*", default=[], help="draw these ops and functions alone")
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"), help="folder for scripts of failures")
    return parser.parse_args()


class Report:
    """What has been done and found so far."""

    def __init__(self, seed: int, out: Path) -> None:
        self.seed, self.out = seed, out
        self.counts: Counter[str] = Counter()
        self.ops: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.start = time.monotonic()

    def done(self, message: dict[str, Any]) -> None:
        with self.lock:
            self.counts["programs"] += 1
            self.counts["nodes"] += len(message["ops"])
            self.ops.update(set(message["ops"]))
            for key in ("runs", "refused", "doubtful", "kernels", "compared", "skipped"):
                self.counts[key] += message[key]

    def failure(self, number: int, kind: str, message: str, signature: str, text: str) -> None:
        """Print a failure, and keep its script."""
        with self.lock:
            seen = self.failures[signature]
            self.failures[signature] += 1
            head = f"seed {self.seed}, program {number}: {kind}"
            print(f"\n=== {head}\n{message.strip()[:2000]}", flush=True)
            if not text:
                print("(of a kind that was made small before)", flush=True)
                return
            self.out.mkdir(parents=True, exist_ok=True)
            path = self.out / f"{self.seed}-{number}.py"
            path.write_text(f"# {head}\n{text}", encoding="utf-8")
            print(f"--- {path}, {confirmed(path)}", flush=True)
            shown = text if len(text) < SHOWN else f"{text[:SHOWN]}\n... (the rest is in the file)"
            print(f"(as before: {signature})" if seen else shown, flush=True)

    def print(self) -> None:
        """The summary."""
        c = self.counts
        wanted = reachable()
        found = [n for n in wanted if self.ops[n]]
        minutes = (time.monotonic() - self.start) / 60
        print(
            f"\nseed {self.seed}: {c['programs']} programs, {c['nodes']} nodes, {c['runs']} runs in {minutes:.1f} min"
        )
        print(f"kernels: {c['kernels']}; elements compared: {c['compared']}, too inexact to compare: {c['skipped']}")
        print(f"runs that both devices refused: {c['refused']}; doubts that more trials settled: {c['doubtful']}")
        print(f"ops drawn: {len(found)} of {len(wanted)} ({100 * len(found) / len(wanted):.0f} %)")
        print(f"never drawn: {', '.join(n for n in wanted if not self.ops[n]) or 'none'}")
        print(f"failures: {sum(self.failures.values())}")
        for signature, count in self.failures.most_common():
            print(f"    {count} x {signature}")


def reachable() -> list[str]:
    """The ops of the registry that a program can have before it is compiled."""
    return sorted(name for name, op in OPS.items() if op.kind is not Kind.TRANSFORM or name == "gradient")


def confirmed(path: Path) -> str:
    """Whether the script fails when it is run by itself."""
    ended = run_script(path.read_text(encoding="utf-8"), HANG)
    return "which fails when run" if ended is not None else "which does NOT fail when run by itself"


def run_script(text: str, seconds: float) -> Failure | None:
    """How a script ends: None for well, a crash by its signal, a hang, or the error on its last line."""
    with tempfile.NamedTemporaryFile("w", suffix=".py", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        try:
            ended = subprocess.run([sys.executable, file.name], capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return Failure("hang", f"no end after {seconds:.0f} seconds")
    if ended.returncode < 0:
        return Failure("crash", f"signal {-ended.returncode}")
    return Failure("error", ended.stderr.strip().rsplit("\n", 1)[-1]) if ended.returncode else None


class Handler:
    """Keeps one worker process going."""

    def __init__(self, report: Report, given: argparse.Namespace, place: int) -> None:
        self.report, self.given = report, given
        self.next = given.first + place
        self.left = (given.programs - place + given.jobs - 1) // given.jobs
        self.end = time.monotonic() + given.minutes * 60

    def run(self) -> None:
        while self.left > 0 and time.monotonic() < self.end:
            self.one_process()

    def one_process(self) -> None:
        count = min(PER_PROCESS, self.left)
        seconds = self.end - time.monotonic()
        numbers = {"seed": self.report.seed, "first": self.next, "step": self.given.jobs, "count": count}
        command = [sys.executable, "-X", "faulthandler", "-m", "fuzz.worker", f"--seconds={seconds}"]
        command += [f"--{k}={v}" for k, v in numbers.items()]
        command += ["--only", *self.given.only] if self.given.only else []
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment())
            at = self.listen(process)
            code = process.wait()
            if at is not None:
                errors.seek(0)
                self.lost(at, code, errors.read()[-3000:])

    def listen(self, process: subprocess.Popen[str]) -> int | None:
        """Follow a process to its end; the number of the program that it did not finish."""
        lines: queue.Queue[str | None] = queue.Queue()
        assert process.stdout is not None
        threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
        at = None
        while True:
            try:
                line = lines.get(timeout=HANG)
            except queue.Empty:
                process.kill()
                return at
            if line is None:
                return at
            message = json.loads(line)
            if message["event"] == "start":
                at = message["number"]
                self.next, self.left = at + self.given.jobs, self.left - 1
            elif message["event"] == "failure":
                self.report.failure(
                    message["number"], message["kind"], message["message"], message["signature"], message["script"]
                )
            elif message["event"] == "done":
                self.report.done(message)
                at = None
            elif message["event"] == "end":
                at = None

    def lost(self, number: int, code: int, errors: str) -> None:
        """A process has died at a program: make it small by running scripts, and report it."""
        kind = "hang" if code == -9 else "crash"
        failure = Failure(kind, f"exit status {code}\n{errors}")
        text = ""
        if self.report.failures[kind] < 3:
            case, _ = draw(self.report.seed, number, entries(self.given.only))
            case, how = by_scripts(case, failure)
            text = script(case, how, how.message)
        self.report.failure(number, kind, failure.message, kind, text)


def _pump(stream: Any, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def by_scripts(case: Case, failure: Failure) -> tuple[Case, Failure]:
    """A smaller case that ends its process in the same way."""
    limit = 30.0 if failure.kind == "crash" else 45.0

    def fails(candidate: Case) -> Failure | None:
        found = run_script(script(candidate, failure), limit)
        return found if found is not None and found.kind == failure.kind else None

    found = fails(case)
    if found is None:
        return case, failure
    return Shrinker(case, Failure(found.kind, found.message), fails, 240.0).shrink()


def environment() -> dict[str, str]:
    paths = [str(TOOLS), str(TOOLS.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p), "GRAPHC_VERIFY": "1"}


def main() -> int:
    given = arguments()
    seed = secrets.randbelow(2**31) if given.seed is None else given.seed
    print(f"seed {seed}; {len(entries())} ops and functions to draw; {given.minutes:g} minutes", flush=True)
    own = None if os.environ.get("GRAPHC_CACHE_DIR") else tempfile.mkdtemp(prefix="graphc-fuzz-")
    os.environ.setdefault("GRAPHC_CACHE_DIR", str(own))
    report = Report(seed, given.out)
    try:
        threads = [threading.Thread(target=Handler(report, given, i).run) for i in range(given.jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        report.print()
        if own is not None:
            shutil.rmtree(own, ignore_errors=True)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
