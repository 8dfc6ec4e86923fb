"""``docs/ops.md`` is what ``make docs`` writes today, and says what the registry says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import graphc
from graphc.opdef import OPS

ROOT = Path(__file__).resolve().parent.parent
WRITE = """
import sys
sys.path.insert(0, "tools")
import ops_reference
sys.stdout.reconfigure(encoding="utf-8")
sys.stdout.write(ops_reference.reference())
"""


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "ops.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rows(page: str) -> dict[str, list[str]]:
    """Cells of the table rows, by the op or function that they begin with."""
    cells = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in page.splitlines() if line.startswith("| `")]
    return {re.split(r"[`(]", row[0])[1]: row for row in cells}


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_page_is_up_to_date(page: str, hash_seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONIOENCODING": "utf-8"}
    answer = subprocess.run(
        [sys.executable, "-c", WRITE], cwd=ROOT, env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    assert not answer.returncode, answer.stderr
    assert page.splitlines() == answer.stdout.splitlines(), "run `make docs`"


def test_every_op_has_one_row(page: str) -> None:
    first, _ = page.split("# Functions made of ops")
    listed = re.findall(r"^\| `(\w+)` \|", first, re.M)
    assert sorted(listed) == sorted(OPS)
    assert page.splitlines()[4].startswith(f"{len(OPS)} ops, ")


def test_every_public_function_is_there(page: str) -> None:
    for module in (graphc.nn, graphc.random, graphc.optim):
        for name in set(module.__all__) - {"Pairs", "schedules"}:
            assert f"`{name}(" in page or f"`{module.__name__}.{name}(" in page, f"{module.__name__}.{name}"
    for name in graphc.ops.__all__:
        if name in graphc.__all__:
            assert f"`{name}(" in page or f"`graphc.{name}(" in page, f"graphc.{name}"


def test_rows_say_what_is_so(rows: dict[str, list[str]]) -> None:
    """A row of each form, against what is known of the op."""
    add = ["`add`", "`graphc.add(x, y)`, `a + b`", "`x + y`, broadcast.", "2 of float, int, uint", "yes"]
    assert rows["add"] == [*add, "elementwise", "values, gradient"]
    assert rows["where"][3] == "bool; 2 of any"
    assert rows["floor"][4] == "none: its values are steps: the derivative is zero wherever it exists"
    assert rows["floor"][6] == "values"
    assert r"`a \| b`" in rows["bitwise_or"][1]
    assert rows["max"][5] == "reduction (maximum)"
    assert rows["check_index"][5] == "elementwise, *may fail*"
    assert rows["scatter_add"][1] == "the derivative of gather"
    assert rows["placeholder"][6] == "a leaf: fed in every test; no reference: its value is fed"
    parts = rows["log_softmax"][5].removeprefix("composite (").removesuffix(")").split(", ")
    assert {"max", "exp", "sum", "log"} <= set(parts) <= set(OPS)
    assert rows["mean"][0].endswith("`a.mean(axis=None, *, keepdims=False)`")
    assert rows["Dropout"][1].endswith("JMLR 15, 2014).")  # an initial ends no sentence


def test_the_map_of_files_is_true() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    (plan,) = re.findall(r"## The map\n\n(.*?)\n\n", text, re.S)
    folder = ""
    for line in plan.splitlines():
        folder = line[4:18].strip() or folder
        for name in re.split(r"\s{2,}", line[18:])[0].split(", "):
            path = ROOT / folder / (name if name.endswith("/") else f"{name}.py")
            assert path.exists(), f"{path.relative_to(ROOT)} is on the map, and not there"
