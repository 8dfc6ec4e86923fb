"""Tests of the runtime that need processes of their own. ``vmath_checks``, beside this file, is imported by name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
TIMEOUT = 240  # seconds after which a process counts as hung


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """``start(code, NAME=value)``: a Python process running ``code``, with changed environment variables."""

    def run(code: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, **environment}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return run


@pytest.fixture
def finish() -> Callable[[subprocess.Popen[str]], str]:
    """Wait for a process to end well; what it printed."""

    def wait(process: subprocess.Popen[str]) -> str:
        try:
            out, err = process.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"the process hung:\n{out}\n{err}")
        assert process.returncode == 0, f"exit status {process.returncode}\n{out}\n{err}"
        return out

    return wait


@pytest.fixture
def python(
    start: Callable[..., subprocess.Popen[str]], finish: Callable[[subprocess.Popen[str]], str]
) -> Callable[..., str]:
    """``python(code, NAME=value)``: run ``code`` in a process of its own and return what it printed."""
    return lambda code, **environment: finish(start(code, **environment))
