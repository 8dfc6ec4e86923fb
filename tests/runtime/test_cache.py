"""The kernel cache: shared by processes, mended when damaged, done without when it cannot be used."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import graphc
from runtime.cpu import cache, kernel_files, machine_code

Start = Callable[..., "subprocess.Popen[str]"]
Finish = Callable[["subprocess.Popen[str]"], str]
Python = Callable[..., str]

# Trains a small model for two steps, compares with the reference, and prints kernels compiled and loaded.
PROGRAM = """
import graphc, numpy as np
def train(device):
    x, y = graphc.placeholder((None, 3)), graphc.placeholder((None, 2))
    w = graphc.parameter(np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2))
    b = graphc.parameter(np.zeros(2, np.float32))
    loss = graphc.mean(graphc.square(graphc.tanh(x @ w + b) - y))
    train = graphc.optim.SGD(0.1).minimize(loss)
    rng = np.random.default_rng(0)
    feeds = {x: rng.normal(size=(5, 3)), y: rng.normal(size=(5, 2))}
    with graphc.Session(device=device) as s:
        for _ in range(2):
            s.run(train, feeds)
        return s.run(loss, feeds), s.get(w), s.stats()
loss, w, stats = train("cpu")
expected, v, _ = train("reference")
np.testing.assert_allclose(loss, expected, rtol=1e-5)
np.testing.assert_allclose(w, v, rtol=1e-5)
print(stats["kernels_compiled"], stats["kernels_loaded"])
"""

# Entries 0..n-1 of one process: kernel i writes i. Prints for each what it wrote and where its code came from.
ENTRIES = """
import ctypes, os
import numpy as np
from runtime.cpu import cache
fresh = cache.KernelCache()
for i in range(int(os.environ["ENTRIES"])):
    text = f"# entry {i}\\nfrom numba import int64\\nfrom runtime.cpu.intrinsics import *\\n" \\
        f"def {{name}}(args, scratch, lo, hi):\\n    ptr_int64(args)[0] = int64({i})\\n"
    name = cache.kernel_name(f"entry_{i:02d}", text)
    counters = cache.Counters()
    kernel = fresh.get(name, lambda: text.replace("{name}", name), counters)
    out = np.full(1, -1, np.int64)
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(kernel.address)(out.ctypes.data, 0, 0, 1)
    print(out[0], "compiled" if counters.compiled else "loaded")
"""


def sources(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.py"))


def code(folder: Path, pattern: str = "*.nb[ic]") -> list[Path]:
    return sorted(folder.glob(f"*/__pycache__/{pattern}"))


def temporaries(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if ".tmp" in file.name]


def counts(out: str) -> tuple[int, int]:
    compiled, loaded = map(int, out.split())
    return compiled, loaded


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that one process has filled with PROGRAM. Copy it; do not change it."""
    folder = tmp_path_factory.mktemp("warm") / "cache"
    environment = {**os.environ, "GRAPHC_CACHE_DIR": str(folder)}
    subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True, capture_output=True, cwd=folder.parent)
    return folder


@pytest.fixture
def copied(warm: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(warm, tmp_path / "cache"))


# Sharing.


def test_second_process_loads_everything(copied: Path, python: Python) -> None:
    """Even from a copy of the folder in another place."""
    compiled, loaded = counts(python(PROGRAM, GRAPHC_CACHE_DIR=str(copied)))
    assert compiled == 0
    assert loaded > 3


@pytest.mark.parametrize("processes", [2, 8])
def test_processes_fill_one_empty_cache_at_once(processes: int, tmp_path: Path, start: Start, finish: Finish) -> None:
    """One of them compiles each kernel, the others wait for it; nothing is left half done."""
    folder = tmp_path / "cache"
    running = [start(PROGRAM, GRAPHC_CACHE_DIR=str(folder)) for _ in range(processes)]
    found = [counts(finish(process)) for process in running]
    (total,) = {sum(both) for both in found}
    if sys.platform != "win32":
        assert sum(compiled for compiled, _ in found) == total
    assert counts(finish(start(PROGRAM, GRAPHC_CACHE_DIR=str(folder)))) == (0, total)
    assert not temporaries(folder)


def test_processes_mend_one_damaged_cache_at_once(copied: Path, start: Start, finish: Finish) -> None:
    for file in code(copied, "*.nbc"):
        file.write_bytes(file.read_bytes()[:100])
    for process in [start(PROGRAM, GRAPHC_CACHE_DIR=str(copied)) for _ in range(2)]:
        finish(process)


def test_sources_do_not_depend_on_the_hash_seed(tmp_path: Path, start: Start, finish: Finish) -> None:
    found = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        finish(start(PROGRAM, GRAPHC_CACHE_DIR=str(folder), PYTHONHASHSEED=seed))
        found.append({file.name: file.read_bytes() for file in sources(folder)})
    assert found[0] == found[1]
    assert len(found[0]) > 3


def test_numba_cache_dir_of_the_user_changes_nothing(copied: Path, tmp_path: Path, python: Python) -> None:
    """Users set NUMBA_CACHE_DIR for kernels of their own; answers stay right."""
    python(PROGRAM, GRAPHC_CACHE_DIR=str(copied), NUMBA_CACHE_DIR=str(tmp_path / "numba"))


# Damage.


def damage(kind: str, entry: Path) -> None:
    """Damage the cache entry whose source file is ``entry``."""
    folder, stem = entry.parent / "__pycache__", entry.stem
    (index,) = folder.glob(f"{stem}.*.nbi")
    (code,) = folder.glob(f"{stem}.*.nbc")
    chosen = {"nbi": index, "nbc": code, "py": entry, "sum": entry.with_suffix(".sum")}
    what, _, how = kind.partition(" ")
    file = chosen[what]
    data = bytearray(file.read_bytes())
    if how == "truncated":
        file.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "garbage":
        file.write_bytes(bytes(range(256)) * 8)
    elif how == "missing":
        file.unlink()
    elif how == "folder":
        file.unlink()
        file.mkdir()
    else:
        place = {"flipped": len(data) // 2, "flipped-first": 0, "flipped-last": len(data) - 1}[how]
        data[place] ^= 1 << (place % 8)
        file.write_bytes(data)


def entries(folder: Path) -> list[Path]:
    """The sources of ENTRIES, by number."""
    return sorted(folder.glob("*/entry_*.py"), key=lambda path: path.name)


DAMAGES = [
    *(f"{what} {how}" for what in ("nbi", "nbc", "py", "sum") for how in ("truncated", "empty", "garbage", "missing")),
    "nbc flipped", "nbc flipped-first", "nbc flipped-last", "nbi flipped", "sum folder", "py folder",
]  # fmt: skip


def test_every_kind_of_damage_is_noticed_and_mended(tmp_path: Path, python: Python) -> None:
    """A damaged entry gives the right answer by compiling again, and the next process loads it."""
    environment = {"GRAPHC_CACHE_DIR": str(tmp_path / "cache"), "ENTRIES": str(len(DAMAGES))}
    numbers = [str(i) for i in range(len(DAMAGES))]

    def run() -> list[str]:
        lines = [line.split() for line in python(ENTRIES, **environment).splitlines()]
        assert [number for number, _ in lines] == numbers
        return [source for _, source in lines]

    assert set(run()) == {"compiled"}
    assert set(run()) == {"loaded"}
    for kind, entry in zip(DAMAGES, entries(tmp_path / "cache"), strict=True):
        damage(kind, entry)
    mended = dict(zip(DAMAGES, run(), strict=True))
    only_source = {kind for kind in DAMAGES if kind.startswith("py ")}  # written again beside sound machine code
    assert {kind for kind, source in mended.items() if source == "loaded"} <= only_source
    after = dict(zip(DAMAGES, run(), strict=True))
    beyond_repair = {"sum folder", "py folder"}  # a folder where a file belongs stays: compiled for each process
    assert {kind for kind, source in after.items() if source == "compiled"} <= beyond_repair
    files = [file for file in entries(tmp_path / "cache") if file.is_file()]
    assert all(file.read_text().startswith("# entry") for file in files)


def test_a_stale_machine_code_of_another_kernel_is_not_run(tmp_path: Path, python: Python) -> None:
    """Machine code put under another kernel's name fails its checksum."""
    environment = {"GRAPHC_CACHE_DIR": str(tmp_path / "cache"), "ENTRIES": "2"}
    python(ENTRIES, **environment)
    first, second = sorted(code(tmp_path / "cache", "entry_*.nbc"), key=lambda path: path.name)
    shutil.copy(first, second)
    assert python(ENTRIES, **environment).split() == ["0", "loaded", "1", "compiled"]


def test_damaged_runner_is_mended(copied: Path, python: Python) -> None:
    (file,) = code(copied, "runner*.nbc")
    file.write_bytes(file.read_bytes()[:-50])
    assert counts(python(PROGRAM, GRAPHC_CACHE_DIR=str(copied)))[0] == 0


# Folders that cannot be used.


def test_unusable_folder_costs_speed_only(tmp_path: Path, python: Python) -> None:
    """The folder's parent is a regular file: it cannot be made, by root neither."""
    (tmp_path / "file").write_text("")
    compiled, loaded = counts(python(PROGRAM, GRAPHC_CACHE_DIR=str(tmp_path / "file" / "cache")))
    assert compiled > 3
    assert loaded == 0


def test_pycache_that_is_a_file_costs_speed_only(tmp_path: Path, python: Python) -> None:
    for first in range(256):
        (tmp_path / "cache" / f"{first:02x}").mkdir(parents=True)
        (tmp_path / "cache" / f"{first:02x}" / "__pycache__").write_text("")
    python(PROGRAM, GRAPHC_CACHE_DIR=str(tmp_path / "cache"), HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()  # Numba did not put its files elsewhere, unguarded


@pytest.mark.parametrize("usable", [True, False])
def test_ctrl_c_waits_for_the_kernel(usable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a folder for it or without: Numba may be of no more use where it is interrupted."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / ("cache" if usable else "file/cache")))
    went_on = []

    def build(module: ModuleType, cached: bool) -> tuple[str, bool]:
        signal.raise_signal(signal.SIGINT)
        went_on.append(cached)
        return module.__name__, False

    with pytest.raises(KeyboardInterrupt):
        machine_code.through_disk("k_interrupted", "def k_interrupted(): pass\n", build)
    assert went_on == [usable]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)  # it is handled as before


def test_folder_without_permission_costs_speed_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GRAPHC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(cache.kernel_cache, "kernels", {})
    monkeypatch.setattr(machine_code, "_warned", set())
    x = graphc.placeholder((None,), name="x")
    with caplog.at_level(logging.WARNING, "graphc.cache"), graphc.Session() as session:
        assert session.run(graphc.square(x) * 3.0, {x: [1, 2]}).tolist() == [3, 12]
    (record,) = caplog.records  # one line, not one for each kernel
    assert "no permission" in record.message
    assert list((tmp_path / "cache").iterdir()) == []


def test_folder_is_private(copied: Path, warm: Path) -> None:
    assert stat.S_IMODE(warm.stat().st_mode) == 0o700


# Size.


def test_trim_keeps_what_was_used_last(copied: Path) -> None:
    def size() -> int:
        return sum(file.stat().st_size for file in copied.rglob("*") if file.is_file())

    kernels = sources(copied)
    for age, entry in enumerate(kernels):
        for file in (entry, entry.with_suffix(".sum"), *code(copied, f"{entry.stem}.*")):
            os.utime(file, (1e9 - age, 1e9 - age))
    limit = size() // 2
    kernel_files.trim(copied, limit)
    assert 0 < size() <= limit
    left = sources(copied)
    assert left == kernels[: len(left)]
    for file in code(copied):
        assert any(file.name.startswith(f"{entry.stem}.") for entry in left)
    kernel_files.trim(copied, 0)
    assert size() == 0


def test_trimmed_cache_still_works(copied: Path, python: Python) -> None:
    kernel_files.trim(copied, sum(f.stat().st_size for f in copied.rglob("*") if f.is_file()) // 2)
    assert counts(python(PROGRAM, GRAPHC_CACHE_DIR=str(copied)))[0] > 0


def test_trim_survives_another_process_that_trims(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the kernels vanish between the listing and the look at them, and the others before they are deleted."""
    listing, removing = kernel_files._files_by_kernel, kernel_files._remove

    def vanishing(folder: Path) -> dict[str, list[os.DirEntry[str]]]:
        found = listing(folder)
        for files in list(found.values())[::2]:
            for file in files[::2]:
                os.unlink(file.path)
        return found

    def too_late(*files: str) -> None:
        removing(*files)
        removing(*files)

    monkeypatch.setattr(kernel_files, "_files_by_kernel", vanishing)
    monkeypatch.setattr(kernel_files, "_remove", too_late)
    kernel_files.trim(copied, 0)
    monkeypatch.undo()
    kernel_files.trim(copied, 0)
    assert not sources(copied)
    assert not code(copied)


def test_trim_of_a_missing_folder_does_nothing(tmp_path: Path) -> None:
    kernel_files.trim(tmp_path / "missing", 0)


def test_kernels_are_shared_by_sessions_of_a_process() -> None:
    x = graphc.placeholder((None,), name="x")
    y = graphc.sqrt(x + 1.5)
    with graphc.Session() as first:
        first.run(y, {x: np.ones(3)})
    with graphc.Session() as second:
        second.run(y, {x: np.ones(3)})
        assert second.stats()["kernels_compiled"] == second.stats()["kernels_loaded"] == 0
