"""The runs that are kept: one JSON file each, in a folder for each CPU model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import slug

FOLDER = Path(__file__).resolve().parent / "history"


def path_of(record: Mapping[str, Any], folder: Path = FOLDER) -> Path:
    """Where a record is kept: by CPU, then by date and time."""
    return folder / slug(record["machine"]["cpu"]) / f"{record['date'][:19].replace(':', '-')}.json"


def write(record: Mapping[str, Any], path: Path) -> None:
    """Write a record, numbers to four digits, which is more than they are worth."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_short(record), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def latest(cpu: Mapping[str, str], folder: Path = FOLDER) -> Path | None:
    """The newest record of a CPU."""
    return max((folder / slug(cpu)).glob("*.json"), default=None, key=lambda p: p.name)


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, Mapping):
        return {k: _short(v) for k, v in value.items()}
    return [_short(v) for v in value] if isinstance(value, (list, tuple)) else value
