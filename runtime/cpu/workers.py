"""Processes that compile kernels while this one compiles others: in one process, Numba compiles on one thread only.

They are started where much is missing on disk, and end with the compilation that they help. All sides go through one
list, the dearest kernel first, and pass over what another has locked; machine code comes back through the cache on
disk. So nothing depends on them: what they do not compile, for whatever reason, is compiled here.

``GRAPHC_COMPILE_WORKERS`` is the most there may be; 0 for none.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from graphc.errors import SessionError
from runtime.cpu import kernel_files
from runtime.cpu.threads import available_threads

MOST = 4
SHARE = 6  # kernels for each process: with three, it has hardly begun when the work is done
NAMES = 200  # that a process is told of, which any pipe takes; programs with more kernels are rare
_CODE = "import sys; sys.path[:] = {path}; from runtime.cpu.compile_worker import main; main()"


class Team:
    """Whoever compiles ``sources``, by name: this process, and workers if that is worth it. ``besides`` is what else
    this process has to compile, in kernels.

    A context manager. After its end ``claimed`` has the names of kernels that workers have begun.
    """

    def __init__(self, sources: Mapping[str, str], besides: int) -> None:
        self._sources = sources
        self._names = sorted(sources, key=lambda name: -len(sources[name]))
        self._besides = besides
        self._processes: list[subprocess.Popen[bytes]] = []
        self.claimed: set[str] = set()

    def turns(self) -> Iterator[str]:
        """The names in the order in which this process should ask for kernels: later what another compiles already."""
        waiting = []
        for name in self._names:
            if self._processes and _is_busy(name):
                waiting.append(name)
            else:
                yield name
        yield from waiting

    def __enter__(self) -> Team:
        count = _count(len(self._names) + self._besides) if self._names else 0
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            for name in self._names if count else ():
                path = kernel_files.path_of(name)
                kernel_files.prepare(path)
                kernel_files.write_once(path, self._sources[name])
            for _ in range(count):
                self._processes.append(_started(self._names[:NAMES]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            self.claimed.update(_ended(process).split())


def _count(kernels: int) -> int:
    """How many processes are worth it for so much work."""
    asked = os.environ.get("GRAPHC_COMPILE_WORKERS") or str(MOST)
    if not asked.isdecimal():
        raise SessionError(f"GRAPHC_COMPILE_WORKERS={asked} is not a number of processes; use 0 for none")
    frozen = getattr(sys, "frozen", False) or not Path(sys.executable or "").name.lower().startswith("python")
    if frozen or not kernel_files.HAS_LOCKS:  # an application's own executable would start the application
        return 0
    return max(min(int(asked), _spare_cores(), kernels // SHARE), 0)


def _spare_cores() -> int:
    """Cores that this process may use beside its own, on which nothing runs at the moment, if the system tells. Where
    all are busy, workers would take more time than they give.
    """
    spare = available_threads() - 1
    with contextlib.suppress(OSError, ValueError, IndexError):
        running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])  # on all cores; with this one
        spare = min(spare, (os.cpu_count() or 1) - running)
    return spare


def _started(names: list[str]) -> subprocess.Popen[bytes]:
    """A process that imports what this one does, from the same places, and nothing of the user's."""
    path = [str(Path(__file__).parents[2]), *(entry for entry in sys.path if isinstance(entry, str))]
    flags = {"P": True, "B": sys.dont_write_bytecode, "E": sys.flags.ignore_environment, "s": sys.flags.no_user_site}
    process = subprocess.Popen(
        [sys.executable, *(f"-{flag}" for flag, on in flags.items() if on), "-c", _CODE.format(path=path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it may have ended
        process.stdin.write(f"{' '.join(names)}\n".encode())
    return process


def _ended(process: subprocess.Popen[bytes]) -> str:
    """What a process has written until it was killed; whoever else may hold its output is not waited for."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.wait()
    os.set_blocking(process.stdout.fileno(), False)
    written = process.stdout.read()
    process.stdout.close()
    with contextlib.suppress(OSError):
        process.stdin.close()
    return (written or b"").decode(errors="replace")


def _is_busy(name: str) -> bool:
    try:
        with kernel_files.locked(kernel_files.path_of(name), patience=0.0) as free:
            return not free
    except OSError:
        return False
