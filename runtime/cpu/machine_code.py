"""Machine code from a kernel's source: from disk where it is there and sound, compiled by Numba and kept there where
it is not, and compiled for this process alone where the disk cannot be used.

Nothing here needs the language, whose import would cost the processes of compile_worker.py a fifth of a second.
"""

from __future__ import annotations

import contextlib
import importlib.util
import linecache
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

import numba
from numba import cfunc, types

from runtime.cpu import kernel_files

if TYPE_CHECKING:
    from graphc.errors import CompilerError

log = logging.getLogger("graphc.cache")
KERNEL_TYPE = types.void(types.int64, types.int64, types.int64, types.int64)
# Rewrites find array expressions, of which kernels have none, and cost a tenth of the time.
FLAGS: dict[str, Any] = {"error_model": "numpy", "no_rewrites": True}

# Makes a function of a module, told whether Numba may cache it; and says whether its machine code came from disk.
Build = Callable[[ModuleType, bool], tuple[Any, bool]]


def build_kernel(module: ModuleType, cached: bool) -> tuple[Any, bool]:
    """The kernel of a module, which has the name of its function."""
    function = cfunc(KERNEL_TYPE, cache=cached, **FLAGS)(getattr(module, module.__name__.rpartition(".")[2]))
    return function, bool(function.cache_hits)


def through_disk(name: str, source: str, build: Build) -> tuple[Any, bool]:
    """``build`` on the module of ``source`` in the cache folder; on one in memory when the folder cannot be used."""
    path = kernel_files.path_of(name)
    found = None
    try:
        kernel_files.prepare(path)
        if kernel_files.is_intact(path, source):
            found = built(name, path, build)
        if found is None:
            found = _mended(name, path, source, build)
    except OSError as error:
        _warn_once(path.parent.parent, error)
    if found is None:
        module = ModuleType(_module_name(name))
        try:
            exec(compile(source, f"<graphc kernel {name}>", "exec"), module.__dict__)
            with _interrupts_wait():
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
            found = built(name, path, build, last=again)
            if found is not None:
                return found
    return None


def built(name: str, path: Path, build: Build, *, last: bool = False) -> tuple[Any, bool] | None:
    """``build`` on the module at ``path``, sealed if it compiled; None where Numba's files prove damaged. Without any,
    the source is at fault: ``CompilerError``, but at the ``last`` attempt only, because another signal's handler in
    the middle of compiling may surface as any error. Ctrl-C waits until the kernel is there.
    """
    with _interrupts_wait():
        return _built(name, path, build, last)


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Ctrl-C is handled afterwards: Numba, interrupted at some places, compiles nothing any more in this process."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    pressed: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: pressed.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if pressed:
            handler(*pressed[0])


def _built(name: str, path: Path, build: Build, last: bool) -> tuple[Any, bool] | None:
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
    from graphc.errors import CompilerError

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
