"""``step.profile()``: how long each kernel takes, measured inside the native call, and a trace of it for a viewer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from passes.explain import Explanation, KernelNote, Traffic
from passes.reporting import named, places, values_text

Array = np.ndarray[Any, Any]
_HEAD = f"{'share':>7} {'median':>10} {'fastest':>10} {'threads':>7} {'GB/s':>7} {'GFLOP/s':>8}  kernel"


@dataclass(frozen=True)
class Timings:
    """What a program measured. ``marks``: nanoseconds at the start of each run and after each of its calls, a row for
    each run. ``threads``: among how many each call was shared.
    """

    marks: Array
    threads: tuple[int, ...]


@dataclass(frozen=True)
class KernelTime:
    """One kernel: what ``explain`` says of it, and the ``seconds`` it took in each run, waking threads included."""

    kernel: KernelNote
    threads: int
    seconds: Array
    share: float

    @property
    def calls(self) -> int:
        return len(self.seconds)

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def fastest(self) -> float:
        return float(self.seconds.min())

    @property
    def bytes(self) -> int | None:
        """Bytes read and written, each buffer counted whole and once."""
        moved = self.kernel.bytes_read + self.kernel.bytes_written
        return moved if isinstance(moved, int) else None

    @property
    def bytes_per_second(self) -> float | None:
        return _rate(self.bytes, self.median)

    @property
    def flops(self) -> int | None:
        return self.kernel.flops if isinstance(self.kernel.flops, int) else None

    @property
    def flops_per_second(self) -> float | None:
        return _rate(self.flops, self.median)

    def __str__(self) -> str:
        note = self.kernel
        return (
            f"{100 * self.share:>5.1f} % {_time(self.median):>10} {_time(self.fastest):>10} {self.threads:>7} "
            f"{_giga(self.bytes_per_second):>7} {_giga(self.flops_per_second):>8}  "
            f"{note.number} {note.label} ({places(note.lines)})"
        )


@dataclass(frozen=True)
class Profile:
    """The times of a step's kernels, in the order in which they run; ``str()`` of it is a table, slowest first.

    ``seconds`` are those of whole runs. Times are read from the monotonic clock after every kernel, which adds some
    tens of nanoseconds to each.
    """

    explanation: Explanation
    kernels: tuple[KernelTime, ...]
    seconds: Array
    marks: Array

    def __str__(self) -> str:
        extents = self.explanation.extents
        at = f" at {values_text(extents)}" if extents else ""
        runs, median, fastest = len(self.seconds), float(np.median(self.seconds)), float(self.seconds.min())
        first = f"{runs} run{'s' if runs != 1 else ''}{at}: median {_time(median)}, fastest {_time(fastest)}"
        ordered = sorted(self.kernels, key=lambda k: (-k.share, k.kernel.number))
        return "\n".join([first, _HEAD, *map(str, ordered)])

    def save_trace(self, path: str | os.PathLike[str]) -> None:
        """Write the runs as a Chrome trace (JSON), which Perfetto and chrome://tracing show."""
        events = [_named("process_name", "graphc"), _named("thread_name", "runner"), *self._events()]
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"traceEvents": events, "displayTimeUnit": "ns"}, file, indent=0)

    def _events(self) -> Iterator[dict[str, Any]]:
        since_start = (self.marks - self.marks[0, 0]) / 1e3  # microseconds
        about = [_arguments(k) for k in self.kernels]
        for number, marks in enumerate(since_start.tolist()):
            yield _event(f"run {number}", "run", marks[0], marks[-1], {})
            for k, start, end in zip(self.kernels, marks, marks[1:], strict=False):
                yield _event(k.kernel.label, k.kernel.role, start, end, about[k.kernel.number])


def profile_of(explanation: Explanation, timings: Timings) -> Profile:
    """The profile of the kernels of ``explanation``."""
    marks = timings.marks
    seconds = np.diff(marks, axis=1) / 1e9
    medians = np.median(seconds, axis=0)
    shares = medians / max(float(medians.sum()), 1e-12)
    kernels = zip(explanation.kernels, timings.threads, seconds.T, shares.tolist(), strict=True)
    return Profile(explanation, tuple(KernelTime(*k) for k in kernels), (marks[:, -1] - marks[:, 0]) / 1e9, marks)


def _named(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "ph": "M", "pid": 1, "tid": 1, "args": {"name": value}}


def _event(name: str, category: str, start: float, end: float, about: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name, "cat": category, "ph": "X", "ts": start, "dur": end - start, "pid": 1, "tid": 1, "args": about,
    }  # fmt: skip


def _arguments(time: KernelTime) -> dict[str, Any]:
    note = time.kernel
    return {
        "kernel": note.number, "lines": places(note.lines), "ops": named(note.ops), "reads": _listed(note.reads),
        "writes": _listed(note.writes), "bytes": time.bytes, "flops": time.flops, "threads": time.threads,
    }  # fmt: skip


def _listed(items: Sequence[Traffic]) -> list[str]:
    return [f"{item.name} {item.type}" for item in items]


def _rate(amount: int | None, seconds: float) -> float | None:
    return amount / seconds if amount is not None and seconds > 0 else None


def _giga(rate: float | None) -> str:
    return "-" if rate is None else f"{rate / 1e9:.3g}"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
