"""The kernel cache: one readable source file per kernel, compiled by Numba once per machine.

A file's name carries the hash of all that the machine code depends on: the source, the versions of graphc, Numba and
llvmlite, and the flags. Numba keeps its machine code beside the source; a checksum file guards it, because a damaged
one would be loaded as it is. Files appear by rename, so that a reader sees all of one or nothing. A folder that
cannot be written costs speed only: kernels are then compiled for this process alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import llvmlite
import numba
import platformdirs
from numba import cfunc, types

from graphc._version import __version__
from runtime.cpu import intrinsics, vmath

log = logging.getLogger("graphc.cache")
KERNEL_TYPE = types.void(types.int64, types.int64, types.int64, types.int64)
SIZE_LIMIT = 512 * 2**20
_FLAGS = "cfunc error_model=numpy"


def cache_folder() -> Path:
    """``GRAPHC_CACHE_DIR``, or the user's cache folder of this platform."""
    chosen = os.environ.get("GRAPHC_CACHE_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("graphc", appauthor=False))


def _support_digest() -> str:
    """Hash of the modules whose code is inlined into kernels."""
    digest = hashlib.sha256()
    for module in (intrinsics, vmath, sys.modules["runtime.cpu._vmath_tables"]):
        digest.update(Path(str(module.__file__)).read_bytes())
    return digest.hexdigest()[:16]


_ENVIRONMENT = "\n".join([__version__, numba.__version__, llvmlite.__version__, _FLAGS, _support_digest()])


def kernel_name(label: str, text: str) -> str:
    """Function and file name: a readable part, and the hash of everything that decides the machine code."""
    digest = hashlib.sha256(f"{_ENVIRONMENT}\n{text}".encode()).hexdigest()[:20]
    readable = "".join(c if c.isalnum() else "_" for c in label)[:40]
    return f"{readable}_{digest}"


@dataclass
class Compiled:
    """A kernel in this process. ``function`` keeps the machine code alive; ``address`` is where it is."""

    name: str
    address: int
    function: Any
    source: str


@dataclass
class Counters:
    """Kernels compiled by LLVM, and loaded from disk, since they were last read."""

    compiled: int = 0
    loaded: int = 0


@dataclass
class KernelCache:
    """All kernels of this process, shared by every session."""

    kernels: dict[str, Compiled] = field(default_factory=dict)
    lock: Any = field(default_factory=threading.RLock)
    trimmed: bool = False  # once per process, and only where a kernel was added

    def get(self, name: str, source: str, counters: Counters) -> Compiled:
        """The kernel of that name: from this process, from disk, or compiled now."""
        with self.lock:
            found = self.kernels.get(name)
            if found is None:
                before = counters.compiled
                found = self.kernels[name] = _compile(name, source, counters)
                if counters.compiled > before and not self.trimmed:
                    self.trimmed = True
                    trim()
            return found


kernel_cache = KernelCache()


def _compile(name: str, source: str, counters: Counters) -> Compiled:
    def build(module: ModuleType, cached: bool) -> tuple[Any, bool]:
        function = cfunc(KERNEL_TYPE, cache=cached, error_model="numpy")(getattr(module, name))
        return function, bool(function.cache_hits)

    function, from_disk = _through_disk(name, source, build)
    if from_disk:
        counters.loaded += 1
    else:
        counters.compiled += 1
    return Compiled(name, function.address, function, source)


def load_module(name: str, source: str) -> ModuleType:
    """A module whose functions cache themselves (the program runner); compiled for this process only where that
    fails.
    """
    found: ModuleType
    found, _ = _through_disk(name, source, lambda module, cached: (module, bool(module.run.stats.cache_hits)))
    return found


def _through_disk(name: str, source: str, build: Callable[[ModuleType, bool], tuple[Any, bool]]) -> tuple[Any, bool]:
    """``build`` on the module of ``source`` in the cache folder; on one in memory when the folder cannot be used.

    ``build`` returns what it made and whether the machine code came from disk.
    """
    folder = cache_folder()
    path = folder / f"{name}.py"
    try:
        _prepare(folder)
        for attempt in range(2):
            _write_once(path, source, replace=bool(attempt))
            _discard_damaged(path)
            try:
                with _machine_code_beside_source():
                    built, from_disk = build(_load(name, path), True)
            except OSError:
                raise
            except Exception as error:
                log.warning("kernel cache entry %s is damaged (%s); compiling it again", name, error)
                _discard(path)
                continue
            if not from_disk:
                _seal(path)
            return built, from_disk
    except OSError as error:
        log.warning("kernel cache %s is not usable (%s); compiling %s for this process only", folder, error, name)
    return build(_load_in_memory(name, source), False)


def _prepare(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chmod(folder, 0o700)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"no permission to write {folder}")
    (folder / "__pycache__").mkdir(exist_ok=True)  # where Numba writes; without it, it would go elsewhere


@contextlib.contextmanager
def _machine_code_beside_source() -> Iterator[None]:
    """Numba's own ``NUMBA_CACHE_DIR`` set aside: machine code that no checksum guards could crash the process."""
    chosen, numba.config.CACHE_DIR = numba.config.CACHE_DIR, ""
    try:
        yield
    finally:
        numba.config.CACHE_DIR = chosen


def _write_once(path: Path, source: str, *, replace: bool = False) -> None:
    """Put ``source`` at ``path`` unless it is there already; another process may do the same at the same time."""
    if not replace:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if path.read_text(encoding="utf-8") == source:
                return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(source)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _load(name: str, path: Path) -> ModuleType:
    """The source as a module; it must be in ``sys.modules`` before it runs, or Numba cannot cache its functions."""
    module_name = f"_graphc_kernels.{name}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
    return module


def _machine_code(path: Path) -> list[str]:
    """Numba's files of one kernel: an index and one file of machine code for each kind of processor."""
    folder, prefix = path.parent / "__pycache__", f"{path.stem}."
    try:
        names = [name for name in os.listdir(folder) if name.startswith(prefix)]
    except OSError:
        return []
    return sorted(str(folder / name) for name in names if name.endswith((".nbi", ".nbc")))


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    for file in _machine_code(path):
        digest.update(os.path.basename(file).encode())
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def _seal(path: Path) -> None:
    """Note the checksum of the machine code just written."""
    with contextlib.suppress(OSError):
        _write_once(path.with_suffix(".sum"), _checksum(path))


def _discard_damaged(path: Path) -> None:
    """Remove machine code that is not what was sealed: it is compiled again."""
    if not _machine_code(path):
        return
    try:
        intact = path.with_suffix(".sum").read_text(encoding="ascii") == _checksum(path)
    except (OSError, UnicodeDecodeError):
        intact = False
    if not intact:
        _discard(path)


def _discard(path: Path) -> None:
    for file in _machine_code(path):
        with contextlib.suppress(OSError):
            os.unlink(file)


def _load_in_memory(name: str, source: str) -> ModuleType:
    module = ModuleType(f"_graphc_kernels.{name}")
    exec(compile(source.replace("cache=True", "cache=False"), f"<graphc kernel {name}>", "exec"), module.__dict__)
    return module


def trim(folder: Path | None = None, limit: int = SIZE_LIMIT) -> None:
    """Delete the least recently used kernels until the cache is below ``limit`` bytes."""
    folder = folder or cache_folder()
    entries: list[tuple[float, int, Path]] = []
    machine_code: dict[str, list[Path]] = {}  # by kernel; the folder is listed once
    for file in (folder / "__pycache__").glob("*.nb[ic]"):
        machine_code.setdefault(file.name.partition(".")[0], []).append(file)
    for path in folder.glob("*.py"):
        files = [path, path.with_suffix(".sum"), *machine_code.get(path.stem, ())]
        with contextlib.suppress(OSError):  # another process may be deleting the same kernels
            stats = [f.stat() for f in files if f == path or f.exists()]
            entries.append((max(max(s.st_mtime, s.st_atime) for s in stats), sum(s.st_size for s in stats), path))
    excess = sum(size for _, size, _ in entries) - limit
    for _, size, path in sorted(entries):
        if excess <= 0:
            break
        _discard(path)
        for file in (path.with_suffix(".sum"), path):
            with contextlib.suppress(OSError):
                file.unlink()
        excess -= size
