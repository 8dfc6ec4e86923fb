"""What autotuning has found, in one JSON file of the cache folder: for each processor, number of threads and set of
BLAS libraries, the split of each product.

The file is replaced as a whole by renaming, under a lock and with what other processes have added meanwhile. Whatever
is wrong with it, or with one of its entries, costs a new measurement and nothing else; so does deleting it.
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import llvmlite.binding
import numba

from graphc._version import __version__
from runtime.cpu import blas, kernel_files
from runtime.cpu.blas import Library
from runtime.cpu.products import Product, Split

log = logging.getLogger("graphc.autotune")
FILE = "autotune.json"
FORMAT = 1
MOST = 4096  # products of one machine; the oldest are forgotten
LARGEST = 2**23  # bytes of a file that is read
PATIENCE = 1.0  # seconds to wait for another process that writes


def path() -> Path:
    """Where the file is."""
    return kernel_files.cache_folder() / FILE


class SplitRecords:
    """The splits found with these libraries and so many threads."""

    def __init__(self, libraries: Sequence[Library], threads: int) -> None:
        versions = " + ".join(blas.version(library) for library in libraries)
        self._machine = (
            f"{processor()}; {threads} of {numba.config.NUMBA_NUM_THREADS} threads; {versions}; {__version__}"
        )
        self._splits: dict[str, Split] = _splits(_read().get(self._machine))
        self._warned = False

    def find(self, product: Product) -> Split | None:
        """What was found for a product, by this session or one before."""
        return self._splits.get(_key(product))

    def add(self, product: Product, split: Split) -> None:
        """Remember a split, here and on disk."""
        self._splits[_key(product)] = split
        file = path()
        try:
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with kernel_files.locked(file, PATIENCE):
                found = _read()
                merged = {**_splits(found.get(self._machine)), _key(product): split}
                entries = {key: asdict(split) for key, split in list(merged.items())[-MOST:]}
                text = json.dumps({"format": FORMAT, "splits": {**found, self._machine: entries}}, indent=1)
                kernel_files.write_once(file, text, replace=True)
        except OSError as error:
            if not self._warned:
                self._warned = True
                log.warning("%s cannot be written (%s): products are measured again by the next session", file, error)


def processor() -> str:
    """The model of this machine's processor."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return f"{model} ({llvmlite.binding.get_host_cpu_name()})"


def _key(product: Product) -> str:
    """All that a product's speed depends on; the cost of its epilogue is not measured."""
    return ", ".join(f"{name} {value}" for name, value in asdict(product).items() if name != "cost")


def _read() -> dict[str, Any]:
    """The machines of the file, unchecked; none if there is no file, or it is no such file."""
    file = path()
    try:
        if not file.exists():
            return {}
        if not file.is_file() or file.stat().st_size > LARGEST:
            raise ValueError("not a file of that size and kind")
        content = json.loads(file.read_text(encoding="utf-8"))
        if type(content) is not dict or content.get("format") != FORMAT or type(content.get("splits")) is not dict:
            raise ValueError("not what graphc writes")
    except (OSError, ValueError, RecursionError) as error:
        log.warning("%s cannot be used (%s): products are measured again", file, error)
        return {}
    found: dict[str, Any] = content["splits"]
    return found


def _splits(entries: Any) -> dict[str, Split]:
    """The entries of a machine that are splits."""
    found = {}
    if type(entries) is dict:
        for key, entry in entries.items():
            if type(entry) is dict and {n: type(v) for n, v in entry.items()} == _FIELDS:
                found[key] = Split(**entry)
    return found


_FIELDS = {"library": str, "by_columns": bool, "parts": int, "along_k": bool}
