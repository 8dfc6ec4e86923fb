"""What the README shows is what its programs print."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PRINTED: list[str] = re.findall(r"```text\n(.*?)```", README, re.S)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The program of the section "See what it did"."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.chdir(ROOT)  # reports name files relative to where Python runs
    yield importlib.import_module("see_what_it_did")
    for name in ("see_what_it_did", "train_mlp", "digits"):
        sys.modules.pop(name, None)


def test_first_program(capsys: pytest.CaptureFixture[str]) -> None:
    program = re.search(r"```python\n(.*?)```", README, re.S)
    assert program is not None
    exec(compile(program.group(1), "README.md", "exec"), {})
    assert capsys.readouterr().out == PRINTED[0]
    assert len([line for line in program.group(1).splitlines() if line.strip()]) <= 15


def test_see_what_it_did(example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each excerpt is in what the example prints, where "..." stands for lines left out; and the trace is one."""
    trace = tmp_path / "made" / "trace.json"
    example.main(["--runs", "3", "--trace", str(trace)])
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines()) + "\n"
    start = 0
    for excerpt in PRINTED[1:]:
        for part in excerpt.split("...\n"):
            found = printed.find(part, start)
            assert found >= 0, f"the example does not print\n{part}\n  it prints\n{printed[start:]}"
            start = found + len(part)
    kernels = int(printed.split()[0])
    assert f"{kernels} kernels at batch = 64\n" in PRINTED[1]

    events = json.loads(trace.read_text())["traceEvents"]
    runs = [e for e in events if e.get("cat") == "run"]
    inside = [e for e in events if e["ph"] == "X" and e.get("cat") != "run"]
    assert len(runs) == 3
    assert len(inside) == 3 * kernels
    for number, event in enumerate(inside):
        run = runs[number // kernels]
        assert run["ts"] <= event["ts"]
        assert event["ts"] + event["dur"] <= run["ts"] + run["dur"] + 1e-3  # microseconds, in doubles
