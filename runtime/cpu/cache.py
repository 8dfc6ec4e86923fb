"""The kernel cache: one readable source file per kernel, compiled by Numba once per machine.

A file's name carries the hash of all that the machine code depends on: the source, the versions of graphc, Numba and
llvmlite, and the flags. Files are spread over sub-folders by that hash, so that a folder stays short to list. Numba
keeps its machine code beside the source; a checksum file guards it, because a damaged one would be loaded as it is.
Files appear by rename, so that a reader sees all of one or nothing; processes that want one kernel at the same time
wait for the first of them to compile it. A folder that cannot be written costs speed only: kernels are then compiled
for this process alone.

Machine code stays in a process until it ends, because LLVM does not give it back: a distinct kernel costs some 50 KB
loaded, and 0.5 to 1 MB compiled. Kernels that are equal but for shapes, strides and numbers are one kernel.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import linecache
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import llvmlite
import numba
from numba import cfunc, types

from graphc._version import __version__
from graphc.errors import CompilerError
from runtime.cpu import kernel_files

log = logging.getLogger("graphc.cache")
KERNEL_TYPE = types.void(types.int64, types.int64, types.int64, types.int64)
_FLAGS = "cfunc error_model=numpy"


def _support_digest() -> str:
    """Hash of the modules whose code is inlined into kernels."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in (folder / "arithmetic.py", folder / "intrinsics.py", *sorted(folder.glob("*vmath*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


_ENVIRONMENT = "\n".join([__version__, numba.__version__, llvmlite.__version__, _FLAGS, _support_digest()])


def kernel_name(label: str, text: str) -> str:
    """Function and file name: a readable part, and the hash of everything that decides the machine code."""
    digest = hashlib.sha256(f"{_ENVIRONMENT}\n{text}".encode()).hexdigest()[:20]
    readable = "".join(c if c.isalnum() else "_" for c in label)[:40]
    return f"{readable}_{digest}"


@dataclass(frozen=True, slots=True)
class Compiled:
    """A kernel in this process. ``function`` keeps the machine code alive; ``address`` is where it is."""

    name: str
    address: int
    function: Any


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

    def get(self, name: str, source: Callable[[], str], counters: Counters) -> Compiled:
        """The kernel of that name: from this process, from disk, or compiled now."""
        with self.lock:
            found = self.kernels.get(name)
            if found is None:
                before = counters.compiled
                found = self.kernels[name] = _compile(name, source(), counters)
                if counters.compiled > before and not self.trimmed:
                    self.trimmed = True
                    kernel_files.trim()
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
    return Compiled(name, function.address, function)


Build = Callable[[ModuleType, bool], tuple[Any, bool]]


def load_function(label: str, file: str, build: Callable[[ModuleType, bool], Any]) -> Any:
    """A jitted function, which ``build`` makes of the module in ``file`` and of whether it may cache itself."""
    source = Path(file).read_text(encoding="utf-8")

    def counted(module: ModuleType, cached: bool) -> tuple[Any, bool]:
        function = build(module, cached)
        return function, bool(function.stats.cache_hits)

    function, _ = _through_disk(kernel_name(label, source), source, counted)
    return function


def _through_disk(name: str, source: str, build: Build) -> tuple[Any, bool]:
    """``build`` on the module of ``source`` in the cache folder; on one in memory when the folder cannot be used.

    ``build`` is told whether Numba may cache, and returns what it made and whether the machine code came from disk.
    """
    path = kernel_files.path_of(name)
    found = None
    try:
        kernel_files.prepare(path)
        if kernel_files.is_intact(path, source):
            found = _built(name, path, build)
        if found is None:
            found = _mended(name, path, source, build)
    except OSError as error:
        _warn_once(path.parent.parent, error)
    if found is None:
        module = ModuleType(_module_name(name))
        try:
            exec(compile(source, f"<graphc kernel {name}>", "exec"), module.__dict__)
            found = build(module, False)
        except Exception as error:
            raise _refused(name, "nowhere: the cache cannot be used", error) from error
    return found


def _mended(name: str, path: Path, source: str, build: Build) -> tuple[Any, bool] | None:
    """``build`` where files are missing, damaged, or being written by another process, which is waited for."""
    with kernel_files.locked(path):
        for again in (False, True):
            kernel_files.write_once(path, source, replace=again)
            kernel_files.discard_damaged(path)
            found = _built(name, path, build, last=again)
            if found is not None:
                return found
    return None


def _built(name: str, path: Path, build: Build, *, last: bool = False) -> tuple[Any, bool] | None:
    """``build`` on the module at ``path``, sealed if it compiled; None where Numba's files prove damaged. Without any,
    the source is at fault: ``CompilerError``, but at the ``last`` attempt only, because a signal in the middle of
    compiling may surface as any error.
    """
    fresh = not kernel_files.machine_code(path)
    try:
        with _machine_code_beside_source(), _loaded(name, path) as module:
            found, from_disk = build(module, True)
    except OSError:
        raise
    except Exception as error:
        if fresh and last:
            raise _refused(name, str(path), error) from error
        if not fresh:
            log.warning("kernel cache entry %s is damaged (%s); compiling it again", name, error)
        kernel_files.discard(path)
        return None
    if not from_disk:
        kernel_files.seal(path)
    return found, from_disk


def _refused(name: str, place: str, error: Exception) -> CompilerError:
    return CompilerError(f"kernel {name} does not compile ({type(error).__name__}: {error})\n  its source: {place}")


_warned: set[tuple[Path, int | None]] = set()


def _warn_once(folder: Path, error: OSError) -> None:
    if (folder, error.errno) not in _warned:
        _warned.add((folder, error.errno))
        log.warning("kernel cache %s is not usable (%s); compiling for this process only", folder, error)


@contextlib.contextmanager
def _machine_code_beside_source() -> Iterator[None]:
    """Numba's own ``NUMBA_CACHE_DIR`` set aside: machine code that no checksum guards could crash the process."""
    chosen, numba.config.CACHE_DIR = numba.config.CACHE_DIR, ""
    try:
        yield
    finally:
        numba.config.CACHE_DIR = chosen


def _module_name(name: str) -> str:
    return f"_graphc_kernels.{name}"


@contextlib.contextmanager
def _loaded(name: str, path: Path) -> Iterator[ModuleType]:
    """The source as a module. It must be in ``sys.modules`` while Numba compiles, or its functions are not cached;
    nothing of it is kept there, nor in the line cache that Numba fills.
    """
    module_name = _module_name(name)
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    try:
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
        yield module
    finally:
        del sys.modules[module_name]
        for file in [f for f in linecache.cache if f.endswith(path.name)]:  # under a relative path, too
            linecache.cache.pop(file, None)
