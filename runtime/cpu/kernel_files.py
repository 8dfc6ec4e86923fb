"""The files of the kernel cache: where they are, how they are written, guarded, and let go.

``ab/name_abcd....py`` is a kernel's source, its machine code is beside it in ``ab/__pycache__``, and ``.sum`` holds
the checksum of the latter. Processes lock a sub-folder while they compile into it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import platformdirs

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger("graphc.cache")
HAS_LOCKS = fcntl is not None
SIZE_LIMIT = 512 * 2**20
PATIENCE = 20.0  # seconds to wait for another process, which may be stopped: then a kernel is compiled twice
_ABANDONED = 3600.0  # seconds after which a file half written belongs to a process that was killed
_OWN = re.compile(r"([0-9a-f]{2})/\w+_\1[0-9a-f]{18}(?=[.-])")  # how the names of its files begin


def cache_folder() -> Path:
    """``GRAPHC_CACHE_DIR``, or the user's cache folder of this platform."""
    chosen = os.environ.get("GRAPHC_CACHE_DIR")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("graphc", appauthor=False))


def path_of(name: str) -> Path:
    """Where the source of a kernel is: in a sub-folder named by the first digits of its hash."""
    return cache_folder() / name.rpartition("_")[2][:2] / f"{name}.py"


def kernels(folder: Path) -> list[Path]:
    """The sources of all kernels in a cache."""
    return sorted(path for path in folder.glob("??/*.py") if _OWN.match(f"{path.parent.name}/{path.name}"))


def prepare(path: Path) -> None:
    """Make the folders of a kernel, private to the user. ``OSError`` where they cannot be written."""
    folder = path.parent.parent
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chmod(folder, 0o700)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"no permission to write {folder}")
    (path.parent / "__pycache__").mkdir(parents=True, exist_ok=True)  # without it, Numba would write elsewhere


@contextlib.contextmanager
def locked(path: Path, patience: float | None = None) -> Iterator[bool]:
    """Keep other processes from compiling into the kernel's sub-folder, where the system can; waits for ``patience``
    seconds at most (``PATIENCE`` for None), and yields whether nobody else has it locked.
    """
    with open(path.parent / ".lock", "ab") as file:
        yield _lock(file.fileno(), time.monotonic() + (PATIENCE if patience is None else patience))


def _lock(handle: int, deadline: float) -> bool:
    if not HAS_LOCKS:
        return True
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)
        except OSError:  # a file system without locks
            return True


def write_once(path: Path, text: str, *, replace: bool = False) -> None:
    """Put ``text`` at ``path`` unless it is there already; another process may do the same at the same time."""
    if not replace and _read(path) == text:
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def machine_code(path: Path) -> list[str]:
    """Numba's files of one kernel: an index and one file of machine code for each kind of processor."""
    folder, prefix = path.parent / "__pycache__", f"{path.stem}."
    try:
        names = [name for name in os.listdir(folder) if name.startswith(prefix)]
    except OSError:
        return []
    return sorted(str(folder / name) for name in names if name.endswith((".nbi", ".nbc")))


def _checksum(path: Path) -> str | None:
    files = machine_code(path)
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.path.basename(file).encode())
        digest.update(Path(file).read_bytes())
    return digest.hexdigest() if files else None


def seal(path: Path) -> None:
    """Note the checksum of the machine code just written."""
    with contextlib.suppress(OSError):
        write_once(path.with_suffix(".sum"), _checksum(path) or "")


def is_intact(path: Path, source: str) -> bool:
    """Whether ``source`` is at ``path``, and its machine code is what was sealed."""
    try:
        found = _checksum(path)
    except OSError:
        return False
    return found is not None and found == _read(path.with_suffix(".sum")) and _read(path) == source


def discard_damaged(path: Path) -> None:
    """Remove machine code that is not what was sealed: it is compiled again."""
    sealed = _read(path.with_suffix(".sum"))
    try:
        found = _checksum(path)
    except OSError:
        found = ""
    if found is None or found == sealed:
        return
    level = logging.INFO if sealed is None else logging.WARNING  # without a seal, who wrote it was stopped
    log.log(level, "kernel cache entry %s is unfinished or damaged; compiling it again", path.stem)
    discard(path)


def discard(path: Path) -> None:
    """Remove the machine code of a kernel."""
    _remove(*machine_code(path))


def trim(folder: Path | None = None, limit: int = SIZE_LIMIT) -> None:
    """Delete the least recently used kernels until the cache is below ``limit`` bytes, and what killed processes
    left half written.
    """
    entries: list[tuple[float, int, list[str]]] = []
    for files in _files_by_kernel(folder or cache_folder()).values():
        with contextlib.suppress(OSError):  # another process may be deleting the same kernels
            stats = [file.stat() for file in files]
            last_use = max(max(s.st_mtime, s.st_atime) for s in stats)
            entries.append((last_use, sum(s.st_size for s in stats), [file.path for file in files]))
            _remove(*(f.path for f, s in zip(files, stats, strict=True) if _is_abandoned(f.name, s.st_mtime)))
    excess = sum(size for _, size, _ in entries) - limit
    for _, size, paths in sorted(entries):
        if excess <= 0:
            break
        _remove(*paths)
        excess -= size


def _files_by_kernel(folder: Path) -> dict[str, list[os.DirEntry[str]]]:
    """All files of the cache, machine code first; not what others may keep in the same folder."""
    found: dict[str, list[os.DirEntry[str]]] = {}
    for home in folder.glob("??"):
        for place in (home / "__pycache__", home):
            with contextlib.suppress(OSError), os.scandir(place) as files:
                for file in files:
                    match = _OWN.match(f"{home.name}/{file.name.lstrip('.')}")
                    if match:
                        found.setdefault(match[0], []).append(file)
    return found


def _is_abandoned(name: str, written: float) -> bool:
    return ".tmp" in name and time.time() - written > _ABANDONED


def _remove(*files: str) -> None:
    for file in files:
        with contextlib.suppress(OSError):
            os.unlink(file)
