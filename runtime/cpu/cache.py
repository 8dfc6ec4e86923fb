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

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import llvmlite
import numba

from graphc._version import __version__
from runtime.cpu import kernel_files, machine_code


def _support_digest() -> str:
    """Hash of the modules whose code is inlined into kernels and the runner."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    names = ("arithmetic.py", "host.py", "intrinsics.py", "lanes.py", "microkernel.py", "objects.py")
    for path in (*(folder / name for name in names), *sorted(folder.glob("*vmath*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


_ENVIRONMENT = "\n".join(
    [__version__, numba.__version__, llvmlite.__version__, f"cfunc {machine_code.FLAGS}", _support_digest()]
)


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
    function, from_disk = machine_code.through_disk(name, source, machine_code.build_kernel)
    if from_disk:
        counters.loaded += 1
    else:
        counters.compiled += 1
    return Compiled(name, function.address, function)


def load_function(label: str, file: str, build: Callable[[ModuleType, bool], Any]) -> Any:
    """A jitted function, which ``build`` makes of the module in ``file`` and of whether it may cache itself."""
    source = Path(file).read_text(encoding="utf-8")

    def counted(module: ModuleType, cached: bool) -> tuple[Any, bool]:
        function = build(module, cached)
        return function, bool(function.stats.cache_hits)

    function, _ = machine_code.through_disk(kernel_name(label, source), source, counted)
    return function
