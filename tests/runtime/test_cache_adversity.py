"""The kernel cache where things go wrong: full and read-only disks, killed and stopped processes, foreign files."""

from __future__ import annotations

import contextlib
import ctypes
import linecache
import logging
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import graphc
from graphc.errors import CompilerError
from runtime.cpu import cache, kernel_files, machine_code

Python = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty kernel cache, which this process uses during the test."""
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(machine_code, "_warned", set())
    return tmp_path / "cache"


def entry(number: int) -> tuple[str, Callable[[], str]]:
    """Name and source of a kernel that writes its number."""
    text = (
        f"# entry {number}\nfrom numba import int64\nfrom runtime.cpu.intrinsics import *\n"
        f"def {{name}}(args, scratch, lo, hi):\n    ptr_int64(args)[0] = int64({number})\n"
    )
    name = cache.kernel_name(f"entry_{number}", text)
    return name, lambda: text.replace("{name}", name)


def works(number: int) -> str:
    """Ask for a kernel as a fresh process would, check what it does, and say where it came from."""
    counters = cache.Counters()
    kernel = cache.KernelCache().get(*entry(number), counters)
    out = np.full(1, -1, np.int64)
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(kernel.address)(out.ctypes.data, 0, 0, 1)
    assert out[0] == number
    return "compiled" if counters.compiled else "loaded"


# Foreign files.


def test_machine_code_of_another_numba_is_compiled_again(folder: Path) -> None:
    """Sealed as it should be, and made by another version."""
    assert works(1) == "compiled"
    path = kernel_files.path_of(entry(1)[0])
    (index,) = (f for f in kernel_files.machine_code(path) if f.endswith(".nbi"))
    data = Path(index).read_bytes()
    version = pickle.dumps(pickle.loads(data), protocol=-1)
    assert data.startswith(version)
    Path(index).write_bytes(pickle.dumps("0.0.1", protocol=-1) + data[len(version) :])
    kernel_files.seal(path)
    assert [works(1), works(1)] == ["compiled", "loaded"]


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_sealed_rubbish_is_replaced_with_a_warning(suffix: str, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    works(1)
    path = kernel_files.path_of(entry(1)[0])
    (file,) = (f for f in kernel_files.machine_code(path) if f.endswith(suffix))
    data = Path(file).read_bytes()
    keep = len(pickle.dumps(pickle.loads(data), protocol=-1)) if suffix == ".nbi" else 0
    Path(file).write_bytes(data[:keep] + b"rubbish" * 40)
    kernel_files.seal(path)
    assert [works(1), works(1)] == ["compiled", "loaded"]
    (record,) = caplog.records
    assert re.search("entry_1_.* is damaged", record.message)


def test_damage_is_told_in_one_line(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    works(1)
    for file in kernel_files.machine_code(kernel_files.path_of(entry(1)[0])):
        Path(file).write_bytes(b"")
    assert works(1) == "compiled"
    (record,) = caplog.records
    assert "\n" not in record.message
    assert "unfinished or damaged; compiling it again" in record.message


def test_trim_leaves_what_is_not_its_own(folder: Path) -> None:
    """Somebody may have set GRAPHC_CACHE_DIR to a folder with other things in it."""
    works(1)
    digest = "ab" + "0" * 18
    foreign = [
        "notes.txt", "model.py", "ab/model.py", f"ac/kernel_{digest}.py", f"abc/kernel_{digest}.py", "ab/.draft.txt",
        f"ab/deep/kernel_{digest}.py", "ab/__pycache__/model.cpython-311.pyc",
    ]  # fmt: skip
    for name in foreign:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
        os.utime(folder / name, (1e9, 1e9))
    kernel_files.trim(folder, 0)
    assert not kernel_files.machine_code(kernel_files.path_of(entry(1)[0]))
    assert all((folder / name).read_text() == "mine" for name in foreign)


def test_trim_sweeps_what_killed_processes_left(folder: Path) -> None:
    works(1)
    path = kernel_files.path_of(entry(1)[0])
    left = [path.parent / f".{path.stem}-x.tmp", path.parent / "__pycache__" / f"{path.stem}.nbi.tmp.0123"]
    for age, expected in ((60, True), (7200, False)):
        for file in left:
            file.write_text("half")
            os.utime(file, (file.stat().st_mtime - age,) * 2)
        kernel_files.trim(folder)
        assert [file.exists() for file in left] == [expected] * 2
    assert works(1) == "loaded"


# Sources that do not compile.


@pytest.mark.parametrize("usable", [True, False])
def test_a_kernel_that_does_not_compile(usable: bool, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No file is damaged, so none is blamed; Numba's own words are the cause."""
    if not usable:
        folder.write_text("a file where the folder should be")
    name = cache.kernel_name("broken", "broken")
    source = f"def {name}(args, scratch, lo, hi):\n    return args + nothing\n"
    for _ in range(2):
        with pytest.raises(CompilerError, match=rf"^kernel {name} does not compile \(\w+: ") as error:
            cache.KernelCache().get(name, lambda: source, cache.Counters())
        assert type(error.value.__cause__).__module__.startswith("numba")
    assert not [record for record in caplog.records if "damaged" in record.message]


# Full and read-only disks.


@contextlib.contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no mount command: {error}")
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def compiles_for_itself(caplog: pytest.LogCaptureFixture, *words: str) -> None:
    """All kernels are compiled, and one line says why."""
    caplog.clear()
    assert {works(number) for number in range(4)} == {"compiled"}
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert all(word in record.message for word in ("not usable", "for this process only", *words))
    machine_code._warned.clear()


@pytest.mark.parametrize("limit", [0, 100, 1000, 4000])
def test_files_that_cannot_grow_cost_speed_only(limit: int, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A limit on the size of files stops the source, the index, or the machine code, as a full disk would."""
    with files_limited_to(limit):
        compiles_for_itself(caplog, "File too large")
    assert [works(0), works(0)] == ["compiled", "loaded"]


@pytest.mark.parametrize("size", ["4k", "16k", "20k"])
def test_a_full_disk_costs_speed_only(
    size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also for the next process, which finds what the first could write."""
    with mounted(tmp_path / "disk", f"size={size}"):
        monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "disk" / "cache"))
        for number in range(8):  # fills the disk
            works(number + 10)
        machine_code._warned.clear()
        for _ in range(2):
            compiles_for_itself(caplog, "No space left")


def test_a_read_only_disk_costs_speed_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with mounted(tmp_path / "disk", "size=20m"):
        monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "disk"))
        assert [works(0), works(0)] == ["compiled", "loaded"]
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        compiles_for_itself(caplog, "no permission")
        monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "disk" / "new"))
        compiles_for_itself(caplog, "Read-only")


# Killed and stopped processes.

# Forks children that fill the cache and are killed: at each rename of a file, before and after it, and at random
# moments. Then every kernel must work; those of whole entries are loaded.
KILLED = """
import os, random, signal, sys, time
sys.path.insert(0, HERE)
from test_cache_adversity import works
replace = os.replace
def child(work):
    pid = os.fork()
    if not pid:
        work()
        os._exit(0)
    return pid
def dies(at, after):
    count = 0
    def replacing(source, target):
        nonlocal count
        count += 1
        if count == at and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
    os.replace = replacing
    works(0)
killed = 0
for at in range(1, 6):
    for after in (False, True):
        _, status = os.waitpid(child(lambda: dies(at, after)), 0)
        killed += os.WIFSIGNALED(status)
        works(0)
        assert works(0) == "loaded"
        for file in os.popen(f"find {os.environ['GRAPHC_CACHE_DIR']} -name '*entry_0*'").read().split():
            os.unlink(file)
assert killed >= 8, killed  # source, index, machine code, checksum
random.seed(0)
for round in range(12):
    pid = child(lambda: [works(i) for i in range(1 + 4 * round, 50)])
    time.sleep(random.uniform(0.0, 0.6))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    works(1 + 4 * round)
found = [works(i) for i in range(1, 50)]
assert "loaded" in found, found
assert {works(i) for i in range(1, 50)} == {"loaded"}
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_at_any_moment_of_a_write(tmp_path: Path, python: Python) -> None:
    code = f"HERE = {str(Path(__file__).parent)!r}\n" + KILLED
    assert python(code, GRAPHC_CACHE_DIR=str(tmp_path / "cache"), PYTHONDONTWRITEBYTECODE="1").strip() == "done"


def test_a_stopped_process_is_not_waited_for_long(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process holds the lock and does not move: the kernel is compiled here."""
    fcntl = pytest.importorskip("fcntl")
    path = kernel_files.path_of(entry(1)[0])
    kernel_files.prepare(path)
    monkeypatch.setattr(kernel_files, "PATIENCE", 0.1)
    with open(path.parent / ".lock", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert [works(1), works(1)] == ["compiled", "loaded"]


def test_file_systems_without_locks_are_fine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refused(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refused)
    assert [works(1), works(1)] == ["compiled", "loaded"]


# Large caches, and what is told.


def test_a_look_up_lists_only_its_own_sub_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of kernels in one folder would cost milliseconds for each that is looked up."""
    works(1)
    names = [entry(i)[0] for i in range(10, 2010)]
    for path in map(kernel_files.path_of, names):
        (path.parent / "__pycache__").mkdir(parents=True, exist_ok=True)
        (path.parent / "__pycache__" / f"{path.stem}.nbi").touch()
    listed: list[str] = []
    listdir = os.listdir

    def listing(path: str) -> list[str]:
        found = listdir(path)
        listed.extend(found)
        return found

    monkeypatch.setattr(os, "listdir", listing)
    assert works(1) == "loaded"
    assert 0 < len(listed) < 200


def test_the_log_counts_kernels_to_compile(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    x = graphc.placeholder((None, None), name="x")
    fetches = [graphc.sum(graphc.exp(x), axis=0), graphc.sum(x * 3.0, axis=1), x @ x]

    def lines() -> list[str]:
        caplog.clear()
        monkeypatch.setattr(cache.kernel_cache, "kernels", {})
        with caplog.at_level(logging.INFO, "graphc.cache"), graphc.Session() as session:
            session.run(fetches, {x: np.ones((2, 2))})
        return [record.message for record in caplog.records]

    cold = [re.fullmatch(r"compiling kernel (\d+) of (\d+): \w+", line) for line in lines()]
    assert len(cold) >= 3
    assert [match and match.groups() for match in cold] == [(str(i + 1), str(len(cold))) for i in range(len(cold))]
    assert lines() == []  # all are loaded


def test_nothing_of_a_kernel_stays_in_the_interpreter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules and lines of source would add up where many graphs are compiled."""
    monkeypatch.setattr(cache.kernel_cache, "kernels", {})
    x = graphc.placeholder((None,), name="x")
    with graphc.Session() as session:
        session.run([graphc.sum(graphc.exp(x)), x / 3.0], {x: np.ones(3)})
    assert session.stats()["kernels_compiled"] >= 2
    names = [path.stem for path in kernel_files.kernels(folder)]
    assert len(names) >= 2
    assert not [name for name in sys.modules if name.rpartition(".")[2] in names]
    assert not [file for file in linecache.cache if Path(file).stem in names]
