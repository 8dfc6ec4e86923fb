"""Processes that compile beside a session: what they do is counted as its own, what they cannot do is done without."""

from __future__ import annotations

import ctypes
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc.errors import CompilerError, SessionError
from runtime.cpu import backend, cache, kernel_files, workers

Python = Callable[..., str]
pytestmark = pytest.mark.skipif(not kernel_files.HAS_LOCKS, reason="needs locks on files")
LONG = 60.0  # seconds


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, of which this process has nothing yet, on a machine with two idle cores."""
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("GRAPHC_COMPILE_WORKERS", "1")
    monkeypatch.setattr(cache.kernel_cache, "kernels", {})
    monkeypatch.setattr(workers, "_spare_cores", lambda: 2)
    return tmp_path / "cache"


def entries(count: int) -> dict[str, str]:
    """Sources by name, the dearest first; kernel i writes i."""
    found = {}
    for i in range(count):
        text = (
            f"# entry {i} {'.' * 9 * (count - i)}\nfrom numba import int64\nfrom runtime.cpu.intrinsics import *\n"
            f"def {{name}}(args, scratch, lo, hi):\n    ptr_int64(args)[0] = int64({i})\n"
        )
        name = cache.kernel_name(f"entry_{i}", text)
        found[name] = text.replace("{name}", name)
    return found


def compiled(sources: dict[str, str]) -> cache.Counters:
    """Have the kernels, check what they do, and say where they came from."""
    counters = cache.Counters()
    backend._compile_missing(sources, counters)
    for i, name in enumerate(sources):
        kernel = cache.kernel_cache.kernels[name]
        out = np.full(1, -1, np.int64)
        ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(kernel.address)(out.ctypes.data, 0, 0, 1)
        assert out[0] == i
    return counters


def wait(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end, "nothing happens"
        time.sleep(0.01)


def is_sealed(name: str) -> bool:
    return kernel_files.path_of(name).with_suffix(".sum").exists()


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The workers that a test starts."""
    found: list[subprocess.Popen[bytes]] = []
    original = workers._started

    def start(names: list[str]) -> subprocess.Popen[bytes]:
        found.append(original(names))
        return found[-1]

    monkeypatch.setattr(workers, "_started", start)
    return found


def waits_for_workers(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Have this process compile nothing before these kernels are there."""
    monkeypatch.setattr(backend, "program_runner", lambda: [wait(lambda name=n: is_sealed(name)) for n in names])


# What they do.


@pytest.mark.parametrize("asked", ["1", "2"])
def test_what_workers_compile_counts_as_compiled(
    asked: str, monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen[bytes]]
) -> None:
    sources = entries(24)
    monkeypatch.setenv("GRAPHC_COMPILE_WORKERS", asked)
    waits_for_workers(monkeypatch, *list(sources)[:20])
    assert compiled(sources) == cache.Counters(compiled=24, loaded=0)
    assert len(started) == int(asked)
    assert all(process.returncode is not None for process in started)
    monkeypatch.setattr(cache.kernel_cache, "kernels", {})
    assert compiled(sources) == cache.Counters(compiled=0, loaded=24)


def test_the_dearest_come_first_and_what_is_locked_last(started: list[subprocess.Popen[bytes]]) -> None:
    sources = entries(10)
    names = list(sources)
    with workers.Team(sources, besides=0) as team:
        started[0].send_signal(signal.SIGSTOP)
        path = kernel_files.path_of(names[0])
        with kernel_files.locked(path, patience=0.0) as free:
            assert free
            turns = list(team.turns())
        assert turns[-1] == names[0] or path.parent == kernel_files.path_of(turns[-1]).parent
        assert sorted(turns) == sorted(names)


def test_another_process_compiles_what_it_has_locked(started: list[subprocess.Popen[bytes]]) -> None:
    """A worker passes over what somebody else has begun, and goes on."""
    sources = entries(10)
    names = list(sources)
    with kernel_files.locked(_prepared(names[0])), workers.Team(sources, besides=0) as team:
        folders = {kernel_files.path_of(n).parent for n in names[:1]}
        others = [n for n in names if kernel_files.path_of(n).parent not in folders]
        wait(lambda: all(is_sealed(n) for n in others))
    assert team.claimed == set(others)


def _prepared(name: str) -> Path:
    path = kernel_files.path_of(name)
    kernel_files.prepare(path)
    return path


def test_a_script_without_a_guard_runs_once(folder: Path, tmp_path: Path) -> None:
    """A worker imports nothing of the user's, not even what has the name of a module of the library's own."""
    (tmp_path / "queue.py").write_text("open('imported', 'w').close()\n")
    (tmp_path / "script.py").write_text(
        "import sys; sys.path.pop(0)\n"
        "import graphc, numpy as np\n"
        "from runtime.cpu import workers\n"
        "print('begins')\n"
        "workers._spare_cores, workers.SHARE = (lambda: 1), 1\n"
        "end = workers.Team.__exit__\n"
        "def ended(team, *error):\n"
        "    end(team, *error)\n"
        "    print('workers', len(team._processes))\n"
        "workers.Team.__exit__ = ended\n"
        "x = graphc.placeholder((None, 3))\n"
        "with graphc.Session() as s:\n"
        "    print(s.run(graphc.sum(x * 2.0), {x: np.ones((2, 3))}))\n"
    )
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=True)
    assert done.stdout.split() == ["begins", "workers", "1", "12.0"]
    assert not done.stderr
    assert not (tmp_path / "imported").exists()


# What can go wrong with them.


def executable(tmp_path: Path, text: str) -> str:
    path = tmp_path / "python3"
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize(
    "script",
    [None, "no program", "#!/bin/sh\nexit 3\n", "#!/bin/sh\nsleep 20\n", "#!/bin/sh\necho nonsense; exec cat\n"],
)
def test_workers_that_do_not_work_cost_nothing_but_speed(
    script: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen[bytes]]
) -> None:
    path = str(tmp_path / "python-is-gone") if script is None else executable(tmp_path, script)
    monkeypatch.setattr(sys, "executable", path)
    assert compiled(entries(10)) == cache.Counters(compiled=10, loaded=0)
    assert all(process.returncode is not None for process in started)


def test_a_killed_worker_leaves_the_rest_to_us(
    monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen[bytes]]
) -> None:
    sources = entries(12)

    def killed() -> None:
        wait(lambda: is_sealed(next(iter(sources))))
        started[0].kill()

    monkeypatch.setattr(backend, "program_runner", killed)
    assert compiled(sources) == cache.Counters(compiled=12, loaded=0)


def test_a_stopped_worker_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen[bytes]]
) -> None:
    sources = entries(12)
    monkeypatch.setattr(kernel_files, "PATIENCE", 0.1)

    def stopped() -> None:
        wait(lambda: is_sealed(next(iter(sources))))
        started[0].send_signal(signal.SIGSTOP)

    monkeypatch.setattr(backend, "program_runner", stopped)
    assert compiled(sources) == cache.Counters(compiled=12, loaded=0)
    assert started[0].returncode == -signal.SIGKILL


def test_a_kernel_that_does_not_compile_is_told_here(
    monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen[bytes]]
) -> None:
    sources = entries(10)
    name = cache.kernel_name("broken", "broken")
    broken = f"# {'.' * 500}\ndef {name}(args, scratch, lo, hi):\n    return args + nothing\n"
    waits_for_workers(monkeypatch, *sources)
    with pytest.raises(CompilerError, match=rf"^kernel {name} does not compile \(\w+: ") as error:
        compiled({name: broken, **sources})
    assert type(error.value.__cause__).__module__.startswith("numba")
    assert started[0].returncode is not None


def test_an_interrupt_ends_them(started: list[subprocess.Popen[bytes]]) -> None:
    with pytest.raises(KeyboardInterrupt), workers.Team(entries(10), besides=0):
        raise KeyboardInterrupt
    assert [process.returncode for process in started] == [-signal.SIGKILL]


ORPHAN = """
import sys, time
sys.path.insert(0, HERE)
import test_workers
from runtime.cpu import workers
workers._spare_cores = lambda: 1
with workers.Team(test_workers.entries(200), besides=0) as team:
    print(team._processes[0].pid, flush=True)
    time.sleep(1000)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
@pytest.mark.parametrize("delay", [0.0, 2.0])  # while it imports, while it compiles
def test_a_worker_does_not_outlive_its_parent(delay: float, start: Callable[..., Any]) -> None:
    parent = start(f"HERE = {str(Path(__file__).parent)!r}\n" + ORPHAN)
    pid = int(parent.stdout.readline())
    time.sleep(delay)
    assert not is_gone(pid)
    parent.kill()
    parent.communicate()
    wait(lambda: is_gone(pid))


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


# When there are any.


def test_no_more_than_is_asked_for_and_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_spare_cores", lambda: 63)
    monkeypatch.delenv("GRAPHC_COMPILE_WORKERS")
    share = workers.SHARE
    assert [workers._count(n) for n in (0, share - 1, share, 2 * share, 1000)] == [0, 0, 1, 2, workers.MOST]
    monkeypatch.setenv("GRAPHC_COMPILE_WORKERS", "2")
    assert workers._count(1000) == 2
    monkeypatch.setenv("GRAPHC_COMPILE_WORKERS", "0")
    assert workers._count(1000) == 0
    monkeypatch.setenv("GRAPHC_COMPILE_WORKERS", "many")
    with pytest.raises(SessionError, match="GRAPHC_COMPILE_WORKERS=many is not a number"):
        workers._count(1000)


SPARE = workers._spare_cores


@pytest.mark.parametrize(
    ("available", "cores", "load", "spare"),
    [
        (1, 8, "0.10 0.20 0.30 1/200 12", 0),
        (4, 4, "9.00 9.00 9.00 1/200 12", 3),  # busy until now
        (4, 4, "0.10 0.20 0.30 3/200 12", 1),
        (2, 64, "30.0 30.0 30.0 30/200 12", 1),
        (4, 4, "0.10 0.20 0.30 9/200 12", -5),
        (4, 4, "what is this", 3),
    ],
)
def test_cores_that_are_busy_are_none_to_spare(
    available: int, cores: int, load: str, spare: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "available_threads", lambda: available)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(Path, "read_text", lambda _: load)
    assert SPARE() == spare
    monkeypatch.setattr(workers, "_spare_cores", SPARE)
    assert workers._count(1000) == min(max(spare, 0), 1)


@pytest.mark.parametrize("case", ["no core", "frozen", "an application", "no executable", "no locks"])
def test_none_where_they_cannot_help(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers._count(1000) == 1
    if case == "no core":
        monkeypatch.setattr(workers, "_spare_cores", lambda: 0)
    elif case == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    elif case == "no locks":
        monkeypatch.setattr(kernel_files, "HAS_LOCKS", False)
    else:
        monkeypatch.setattr(sys, "executable", "/usr/bin/blender" if case == "an application" else None)
    assert workers._count(1000) == 0


def test_none_for_a_folder_that_cannot_be_used(
    folder: Path, monkeypatch: pytest.MonkeyPatch, started: list[subprocess.Popen[bytes]]
) -> None:
    folder.write_text("a file where the folder should be")
    assert compiled(entries(10)) == cache.Counters(compiled=10, loaded=0)
    assert not started


def test_a_process_is_told_what_fits_into_a_pipe(started: list[subprocess.Popen[bytes]]) -> None:
    """Thousands of kernels: whoever writes more than a pipe takes would wait for the worker to import Numba."""
    sources = {f"{'k' * 40}_{i:020x}": "" for i in range(1000)}
    begin = time.monotonic()
    with workers.Team(sources, besides=0):
        assert time.monotonic() - begin < LONG
    assert len(started) == 1
