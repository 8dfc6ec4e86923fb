"""Workers as the run sees them: started with the same threads, asked one at a time, given up on when they hang."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
)  # fmt: skip
SLOW = ("GRAPHC_VERIFY", "GRAPHC_DEBUG", "GRAPHC_DUMP", "GRAPHC_LOG")  # would be timed with the work


def settle(threads: int) -> None:
    """Keep this process to as many cores as threads, for XLA takes what it sees; and be what ends first, not somebody
    else's work, when a library's compiler fills the memory. Both where the system can.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


class SideError(Exception):
    """What a side could not do, in its own words."""


def environment(threads: int, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a process that may use ``threads`` threads."""
    kept = {k: v for k, v in os.environ.items() if k not in SLOW}
    return {**kept, **dict.fromkeys(THREADS, str(threads)), "PYTHONPATH": str(ROOT), **(extra or {})}


def run_once(python: str, arguments: Sequence[str], threads: int, timeout: float, **extra: str) -> dict[str, Any]:
    """Run a module that prints one JSON line last; ``SideError`` with its last line of errors, or after ``timeout``."""
    command = [python, "-m", *arguments]
    with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(threads, extra), stdout=output, stderr=errors, start_new_session=True
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            raise SideError(f"gave no answer within {timeout:.0f} s") from None
        except BaseException:
            _end(process)
            raise
        if code:
            raise SideError(_end_of(code, errors))
        output.seek(0)
        found: dict[str, Any] = json.loads(output.read().strip().splitlines()[-1])
    if "error" in found:
        raise SideError(found["error"])
    return found


class Process:
    """A worker of one side. After a timeout or a crash it is gone, and the next question starts another."""

    def __init__(self, side: str, python: str, threads: int, timeout: float) -> None:
        self.side, self.timeout = side, timeout
        self.versions: dict[str, str] = {}
        self._command = [python, "-m", "benchmarks.worker", side, str(threads)]
        self._environment = environment(threads)
        self._process: Any = None
        self._errors: Any = None

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The worker's answer; ``SideError`` for an error, a crash, or no answer in time."""
        if self._process is None:
            self.start()
        process = self._process
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            process.stdin.flush()
        return self._read()

    def forget(self) -> None:
        """Let the worker's case go; one that has ended has none."""
        if self._process is not None:
            self.ask("close")

    def close(self) -> None:
        """End the worker."""
        if self._process is not None:
            _end(self._process)
            self._process = None
            self._errors.close()

    def start(self) -> None:
        """Start the worker and learn its versions; ``SideError`` when it cannot."""
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, env=self._environment, bufsize=0,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True,
        )  # fmt: skip
        self.versions = self._read()["versions"]

    def _read(self) -> dict[str, Any]:
        process = self._process
        line, end = b"", time.monotonic() + self.timeout
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(end - time.monotonic(), 0))
            if not ready:
                self.close()
                raise SideError(f"gave no answer within {self.timeout:.0f} s")
            part = process.stdout.read(2**16)
            if not part:
                why = _end_of(process.wait(), self._errors)
                self.close()
                raise SideError(why)
            line += part
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise SideError(found["error"])
        return found


def _end_of(code: int, errors: Any) -> str:
    if code == -signal.SIGKILL:
        return "was killed, which the system does when memory runs out"
    errors.seek(0)
    lines = errors.read().strip().splitlines() or ["it said nothing"]
    return f"ended with status {code}: {lines[-1]}"[:300]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that we started, and those that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
