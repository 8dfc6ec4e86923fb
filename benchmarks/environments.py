"""A virtual environment for each peer, made once: PyTensor needs an older Numba than graphc, PyTorch its CPU wheel."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.process import SideError

TORCH_INDEX = "--extra-index-url https://download.pytorch.org/whl/cpu"
REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "torch": ("torch==2.13.0", "numpy"),
    "jax": ("jax==0.10.2", "numpy"),
    "pytensor": ("pytensor==3.0.7", "numpy"),
}


def python_of(
    name: str | None, folder: Path, given: Mapping[str, str], requirements: Sequence[str] | None = None
) -> str:
    """The interpreter that a side runs in: this one for None, the ``given`` one, or that of ``folder / name``, which
    is made if need be. ``SideError`` with the last line of what pip said when it cannot be.
    """
    if name is None:
        return sys.executable
    if name in given:
        return given[name]
    wanted = tuple(requirements or REQUIREMENTS[name])
    home = folder / name
    python, done = home / "bin" / "python", home / ".installed"
    if done.exists() and done.read_text() == "\n".join(wanted):
        return str(python)
    print(f"installing {', '.join(wanted)} in {home}", flush=True)
    _run(sys.executable, "-m", "venv", str(home))
    index = shlex.split(os.environ.get("TORCH_INDEX", TORCH_INDEX)) if name == "torch" else []
    _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *index, *wanted)
    done.write_text("\n".join(wanted))
    return str(python)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        raise SideError(f"cannot be installed: {lines[-1]}"[:300])
