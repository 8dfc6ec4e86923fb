"""The README's first program prints what the README says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def test_first_program(capsys: pytest.CaptureFixture[str]) -> None:
    program = re.search(r"```python\n(.*?)```", README, re.S)
    output = re.search(r"```text\n(.*?)```", README, re.S)
    assert program is not None
    assert output is not None
    exec(compile(program.group(1), "README.md", "exec"), {})
    assert capsys.readouterr().out == output.group(1)
    assert len([line for line in program.group(1).splitlines() if line.strip()]) <= 15
