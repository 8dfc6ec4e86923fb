"""``Session(autotune=True)``: every split that it may choose is right, and its file costs speed at most."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from runtime.cpu import autotune, blas, split_records
from runtime.cpu.autotune import TunedSplits, candidates
from runtime.cpu.products import PARTS, Product, Split, blocks_of, usual_split

Python = Callable[..., str]
Start = Callable[..., subprocess.Popen[str]]
Finish = Callable[[subprocess.Popen[str]], str]
F32 = np.dtype(np.float32)
ONE, TWO = blas.Library("one", 1, 1, direct=True), blas.Library("two", 2, 2)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of the test's own in the place of the one in the cache folder."""
    own = tmp_path / "cache" / "autotune.json"
    monkeypatch.setattr(split_records, "path", lambda: own)
    return own


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Product]:
    """The products that were measured, in order."""
    found: list[Product] = []
    race = TunedSplits._fastest

    def noted(self: TunedSplits, product: Product, splits: Sequence[Split], kernel: int) -> Split:
        found.append(product)
        return race(self, product, splits, kernel)

    monkeypatch.setattr(TunedSplits, "_fastest", noted)
    return found


def matrices(*shapes: tuple[int, ...], dtype: str = "float32") -> list[Any]:
    rng = np.random.default_rng(5)
    return [rng.uniform(-1, 1, size=shape).astype(dtype) for shape in shapes]


def simple(session: graphc.Session, m: int = 130, k: int = 100, n: int = 90) -> Any:
    """A product through a session, checked against NumPy."""
    x, y = graphc.placeholder((None, None), name="x"), graphc.placeholder((None, None), name="y")
    a, b = matrices((m, k), (k, n))
    found = session.run(x @ y, {x: a, y: b})
    np.testing.assert_allclose(found, a.astype(np.float64) @ b, atol=k * 2.0**-24 * k, rtol=0)
    return found


# Every candidate is right.


def products(dtype: str) -> dict[str, tuple[Any, dict[Any, Any]]]:
    """Fetches and feeds, by name: all that a product may be followed by and made of."""
    m, k, n = 130, 100, 91
    a, b, c, bias, one, wide = matrices((m, k), (k, n), (3, m, k), (n,), (1, 700), (700, 1500), dtype=dtype)
    x, y = graphc.placeholder((None, k), dtype, name="x"), graphc.placeholder((k, n), dtype, name="y")
    xt, yt = graphc.placeholder((k, None), dtype, name="xt"), graphc.placeholder((n, k), dtype, name="yt")
    z, row = graphc.placeholder((None, None, k), dtype, name="z"), graphc.placeholder((n,), dtype, name="row")
    u, v = graphc.placeholder((1, 700), dtype, name="u"), graphc.placeholder((700, 1500), dtype, name="v")
    made: dict[str, tuple[Any, dict[Any, Any]]] = {
        "nn": (x @ y, {x: a, y: b}),
        "tn": (xt.T @ y, {xt: a.T, y: b}),
        "nt": (x @ yt.T, {x: a, yt: b.T}),
        "tt": (xt.T @ yt.T, {xt: a.T, yt: b.T}),
        "gaps": (x[:, 1:] @ y[1:, 1:], {x: a, y: b}),
        "batch": (z @ y, {z: c, y: b}),
        "batches": (z @ graphc.permute_dims(z, (0, 2, 1)), {z: c}),
        "bias": (graphc.nn.relu(x @ y + row), {x: a, y: b, row: bias}),
        "softmax": (graphc.nn.softmax(x @ y + row, axis=1), {x: a, y: b, row: bias}),
        "softmax of few rows": (graphc.nn.softmax(x @ y, axis=1), {x: a[:60], y: b}),
        "sums": ([graphc.sum(x @ y, axis=0), graphc.sum(x @ y, axis=1)], {x: a, y: b}),
        "all": (graphc.sum(graphc.square(x @ y + row)), {x: a, y: b, row: bias}),
        "one row": (graphc.tanh(u @ v), {u: one, v: wide}),
        "added": (x @ y + graphc.outer(graphc.sum(x, axis=1), row), {x: a, y: b, row: bias}),
    }
    return made


def updates(dtype: str) -> tuple[Any, graphc.Tensor, dict[Any, Any]]:
    """A step of descent, whose weight's gradient is added by the product itself."""
    a, b, c = matrices((130, 100), (130, 90), (100, 90), dtype=dtype)
    x, y = graphc.placeholder((None, 100), dtype, name="x"), graphc.placeholder((None, 90), dtype, name="y")
    w = graphc.parameter(c, name="w")
    loss = graphc.mean(graphc.square(x @ w - y))
    return [loss, graphc.optim.SGD(0.05).minimize(loss)], w, {x: a, y: b}


def choose(place: int, kinds: list[tuple[bool, int]]) -> Callable[..., Split]:
    """A choice of every product's candidate of that number; which they are is noted."""

    def split(self: TunedSplits, product: Product, kernel: int) -> Split:
        found = candidates(product, list(self.libraries.values()))
        chosen = found[place % len(found)]
        kinds.append((chosen.by_columns, blocks_of(product, chosen).per_matrix))
        return chosen

    return split


def compare(thread_counts: Sequence[int], dtype: str, patch: Callable[[Callable[..., Split]], None]) -> None:
    """All products with every candidate against the reference; the same bits for every number of threads."""
    kinds: list[tuple[bool, int]] = []
    cases, (train, w, feeds) = products(dtype), updates(dtype)
    with graphc.Session(device="reference") as session:
        expected = {name: session.run(fetches, fed) for name, (fetches, fed) in cases.items()}
        session.run(train, feeds)
        trained = session.get(w)
    tolerance = {"rtol": 0, "atol": 700 * 700 * float(np.finfo(dtype).eps)}  # |a_i b_i| <= 1: n rounds of at most n eps
    libraries = blas.libraries(all_usable=True)
    for place in range(len(candidates(Product(np.dtype(dtype), 130, 91, 100), libraries))):
        patch(choose(place, kinds))
        first: dict[str, bytes] = {}
        for count in thread_counts:
            with graphc.Session(threads=count, autotune=True) as session:
                for name, (fetches, fed) in cases.items():
                    found = session.run(fetches, fed)
                    for one, wanted in zip(*map(as_list, (found, expected[name])), strict=True):
                        scaled = tolerance if np.ndim(one) else {"rtol": 1e-4}
                        np.testing.assert_allclose(one, wanted, err_msg=f"{name}, candidate {place}", **scaled)
                    bits = b"".join(np.asarray(one).tobytes() for one in as_list(found))
                    assert first.setdefault(name, bits) == bits, f"{name}, candidate {place}, {count} threads"
                session.run(train, feeds)
                np.testing.assert_allclose(session.get(w), trained, **tolerance)
    assert {(False, 1), (False, 11), (True, 2), (True, 4)} <= set(kinds)


def as_list(values: Any) -> list[Any]:
    return list(values) if isinstance(values, (list, tuple)) else [values]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_candidate_is_right(dtype: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compare((1, 2), dtype, lambda choice: monkeypatch.setattr(TunedSplits, "split", choice))


CROWDED = """
import sys
sys.path.insert(0, {folder!r})
from test_autotune import TunedSplits, compare
compare((4,), "float32", lambda choice: setattr(TunedSplits, "split", choice))
print("done")
"""


def test_every_candidate_is_right_on_four_threads(python: Python) -> None:
    code = CROWDED.format(folder=str(Path(__file__).parent))
    assert python(code, NUMBA_NUM_THREADS="4").strip() == "done"


def test_candidates_suit_the_product_and_cut_it_whole() -> None:
    for m, n, k, batch, epilogue in itertools.product(
        (1, 2, 7, 64, 513), (1, 3, 64, 1000), (1, 64, 700), (1, 3), ("", "elements", "rows")
    ):
        product = Product(F32, m, n, k, batch, epilogue=epilogue)
        found = candidates(product, (ONE, TWO))
        assert found[0] == usual_split(product, (ONE,))
        assert len({(s.library, blocks_of(product, s)) for s in found}) == len(found)
        assert {s.library for s in found} == {"one", "two"}
        for split in found:
            blocks = blocks_of(product, split)
            longer = n if split.by_columns else m
            assert (blocks.per_matrix - 1) * blocks.size < longer <= blocks.per_matrix * blocks.size
            assert blocks.count == batch * blocks.per_matrix
            assert not (split.by_columns and epilogue == "rows")


def test_k_may_be_cut_where_graphc_computes() -> None:
    own = blas.Library(blas.OWN, 0, 0)
    product = Product(F32, 40, 40, 10_000)
    deep = [split for split in candidates(product, (own, ONE)) if split.along_k]
    assert [split.library for split in deep] == [blas.OWN]
    assert blocks_of(product, deep[0]).calls == 16
    assert not any(split.along_k for split in candidates(product, (ONE,)))
    assert not any(split.along_k for split in candidates(Product(F32, 40, 40, 100), (own, ONE)))
    records = split_records.SplitRecords((own, ONE), 2)
    records.add(product, deep[0])
    assert split_records.SplitRecords((own, ONE), 2).find(product) == deep[0]


def test_usual_splits_depend_on_the_product_and_the_library_alone() -> None:
    """Four blocks of the longer side; more where OpenBLAS then computes them directly, at its limits as it has them."""
    splits = {
        (32, 100, 1000, 1): (4, 4),
        (512, 10, 1000, 1): (8, 4),
        (512, 32, 1000, 1): (4, 4),  # 16 blocks are of a million and more
        (256, 512, 784, 1): (4, 4),
        (16, 64, 64, 1): (1, 1),
        (128, 64, 128, 32): (2, 1),
        (100, 100, 100, 32): (1, 1),
        (256, 256, 256, 32): (1, 1),
    }
    for (m, n, k, batch), expected in splits.items():
        product = Product(F32, m, n, k, batch)
        assert tuple(usual_split(product, (library,)).parts for library in (ONE, TWO)) == expected, product
        assert usual_split(product, (ONE,)).by_columns == (n > m)
    transposed = (False, True)  # whose results are of 1200 elements at most, of rows of 32 at least
    assert usual_split(Product(F32, 512, 10, 256, trans=transposed), (ONE,)).parts == 8
    assert usual_split(Product(F32, 512, 10, 256), (ONE,)).parts == 4
    assert usual_split(Product(F32, 1000, 100, 31, trans=transposed), (ONE,)).parts == 4
    rows = Product(F32, 10, 512, 1000, epilogue="rows")
    assert not usual_split(rows, (ONE,)).by_columns


def test_epilogues_find_their_blocks_in_the_cache() -> None:
    product = Product(F32, 4096, 1024, 8, epilogue="elements")
    largest = max(blocks_of(product, s).size * 1024 * 4 for s in candidates(product, [ONE]) if not s.by_columns)
    assert largest <= max(autotune.BLOCK_BYTES, 4096 * 1024)
    bare = dataclasses.replace(product, epilogue="")
    assert any(s.parts == 1 for s in candidates(bare, [ONE]))


# What is measured, and remembered.


def test_measured_once_and_remembered(file: Path, measured: list[Product]) -> None:
    with graphc.Session(autotune=True) as session:
        first = simple(session)
        simple(session)
        assert [(p.m, p.n, p.k) for p in measured] == [(130, 90, 100)]
        simple(session, m=140)
        assert len(measured) == 2
    with graphc.Session(autotune=True) as session:
        assert simple(session).tobytes() == first.tobytes()
        assert len(measured) == 2
    with graphc.Session(autotune=True, threads=1) as session:
        simple(session)
        assert len(measured) == 3 if os.cpu_count() != 1 else 2
    stored = json.loads(file.read_text())
    assert stored["format"] == split_records.FORMAT
    assert all(split["parts"] in PARTS for splits in stored["splits"].values() for split in splits.values())


def test_without_autotune_nothing_is_measured_or_written(file: Path, measured: list[Product]) -> None:
    with graphc.Session() as session:
        simple(session)
    with graphc.Session(device="reference", autotune=True) as session:
        simple(session)
    assert not measured
    assert not file.exists()


def test_deleting_the_file_changes_speed_only(file: Path, measured: list[Product]) -> None:
    with graphc.Session(autotune=True) as session:
        simple(session)
        file.unlink()
        simple(session)
        assert len(measured) == 1
    with graphc.Session(autotune=True) as session:
        simple(session)
    assert len(measured) == 2
    assert file.exists()


@pytest.mark.parametrize(
    ("product", "worth"),
    [
        (Product(F32, 130, 90, 100), True),
        (Product(F32, 8, 8, 8), False),
        (Product(F32, 2048, 2048, 2048), False),
        (Product(F32, 1, 1, 2**25), False),
        (Product(F32, 0, 90, 100), False),
        (Product(F32, 130, 0, 100, epilogue="rows"), False),
        (Product(F32, 130, 90, 0), False),
        (Product(F32, 130, 90, 0, epilogue="elements", cost=100.0), True),
    ],
)
def test_tiny_and_huge_products_are_not_measured(product: Product, worth: bool, file: Path) -> None:
    splits = TunedSplits(blas.libraries(), 2, lambda: pytest.fail("no runner is needed"))
    assert splits._is_worth_it(product) == worth
    if not worth:
        assert splits.split(product, 0) == usual_split(product, blas.libraries())


def test_every_kind_of_product_is_measured_as_it_is(file: Path, measured: list[Product]) -> None:
    """Batches, gaps, broadcast operands and sums into the result: on scratch matrices large enough for all of it."""
    with graphc.Session(autotune=True) as session:
        for fetches, feeds in products("float64").values():
            session.run(fetches, feeds)
        train, _, feeds = updates("float64")
        session.run(train, feeds)
    assert {p.trans for p in measured} == set(itertools.product((False, True), repeat=2))
    assert any(p.adds for p in measured)
    assert any(p.batch == 3 and p.shared == (False, False) for p in measured)
    assert any(True in p.gaps for p in measured)
    assert {p.epilogue for p in measured} == {"", "elements", "rows"}


def test_out_of_time_the_usual_split_stays(
    file: Path, measured: list[Product], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autotune, "BUDGET", 0.0)
    with graphc.Session(autotune=True) as session:
        simple(session)
    product = measured[0]
    (entry,) = (e for splits in json.loads(file.read_text())["splits"].values() for e in splits.values())
    assert Split(**entry) == usual_split(product, blas.libraries())


def test_another_library_may_be_chosen(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two libraries, the first made to seem slow."""
    real = blas.libraries()[-1]
    others = (real, dataclasses.replace(real, name="other"))
    monkeypatch.setattr(blas, "libraries", lambda all_usable=False: others if all_usable else others[:1])

    def race(requests: Any, deadline: float) -> Any:
        return {s: 1.0 if s.library == "other" and s.parts == 2 else 2.0 for s in requests}, 10

    monkeypatch.setattr(autotune, "_race", race)
    with graphc.Session(autotune=True) as session:
        simple(session)
    (entry,) = (e for splits in json.loads(file.read_text())["splits"].values() for e in splits.values())
    assert (entry["library"], entry["parts"]) == ("other", 2)
    monkeypatch.undo()


# A file that is damaged, foreign, or cannot be written.

DAMAGED = {
    "empty": b"",
    "no text": b"\xff\xfe\x00\x01",
    "cut short": b'{"format": 1, "splits": {"a',
    "a list": b"[]",
    "another format": b'{"format": 99, "splits": {}}',
    "a list of splits": b'{"format": 1, "splits": []}',
    "nested": b"[" * 100_000,
    "too large": b" " * (split_records.LARGEST + 1),
}


def messages(caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    return (r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING and r.name == "graphc.autotune")


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_file_is_replaced(kind: str, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.parent.mkdir()
    file.write_bytes(DAMAGED[kind])
    with graphc.Session(autotune=True) as session:
        simple(session)
    assert any(str(file) in message for message in messages(caplog))
    assert json.loads(file.read_text())["splits"]


ENTRIES: dict[str, Any] = {
    "no split": 7,
    "a list": [],
    "nothing in it": {},
    "no parts": {"library": "scipy", "by_columns": False},
    "no blocks": {"library": "scipy", "by_columns": False, "parts": 0},
    "fewer than none": {"library": "scipy", "by_columns": False, "parts": -4},
    "a fraction": {"library": "scipy", "by_columns": False, "parts": 2.0},
    "a truth": {"library": "scipy", "by_columns": False, "parts": True},
    "no candidate": {"library": "scipy", "by_columns": False, "parts": 10**30},
    "no such library": {"library": "cublas", "by_columns": False, "parts": 2},
    "columns of rows": {"library": "scipy", "by_columns": True, "parts": 2},
    "more than that": {"library": "scipy", "by_columns": False, "parts": 2, "more": 1},
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_foreign_entries_are_measured_again(kind: str, file: Path, measured: list[Product]) -> None:
    x, y = graphc.placeholder((None, None), name="x"), graphc.placeholder((None, None), name="y")
    a, b = matrices((130, 100), (100, 90))
    softmax, feeds = graphc.nn.softmax(x @ y, axis=1), {x: a, y: b}
    with graphc.Session(autotune=True) as session:
        expected = session.run(softmax, feeds)
    stored = json.loads(file.read_text())
    for splits in stored["splits"].values():
        splits.update(dict.fromkeys(splits, ENTRIES[kind]))
    stored["splits"]["another machine"] = {"kept": ENTRIES[kind]}
    file.write_text(json.dumps(stored))
    with graphc.Session(autotune=True) as session:
        np.testing.assert_allclose(session.run(softmax, feeds), expected, rtol=1e-4)
    assert len(measured) == 2
    again = json.loads(file.read_text())["splits"]
    assert again.pop("another machine") == {"kept": ENTRIES[kind]}
    entries = [json.dumps(entry) for splits in again.values() for entry in splits.values()]
    assert json.dumps(ENTRIES[kind]) not in entries


@pytest.mark.parametrize("blocked", ["autotune.json", ".lock", ""])
def test_unwritable_file_costs_speed_only(blocked: str, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder where the file or its lock should be, and a file where the folder should be."""
    if blocked:
        (file.parent / blocked / "occupied").mkdir(parents=True)
    else:
        file.parent.touch()
    with graphc.Session(autotune=True) as session:
        first = simple(session)
        simple(session, m=140)
        assert simple(session).tobytes() == first.tobytes()
    written = [message for message in messages(caplog) if "cannot be written" in message]
    assert len(written) == 1
    assert str(file) in written[0]


def test_old_products_are_forgotten(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split_records, "MOST", 3)
    records = split_records.SplitRecords(blas.libraries(), 2)
    sizes = range(100, 106)
    for m in sizes:
        records.add(Product(F32, m, 90, 100), Split("scipy", by_columns=False, parts=2))
    again = split_records.SplitRecords(blas.libraries(), 2)
    known = [m for m in sizes if again.find(Product(F32, m, 90, 100)) is not None]
    assert known == [103, 104, 105]


def test_keys_tell_apart_what_differs_in_speed(file: Path) -> None:
    records = split_records.SplitRecords(blas.libraries(), 2)
    product = Product(F32, 130, 90, 100)
    split = Split("scipy", by_columns=True, parts=8)
    records.add(product, split)
    assert records.find(dataclasses.replace(product, cost=3.0)) == split
    for change in (
        {"dtype": np.dtype(np.float64)}, {"m": 90, "n": 130}, {"k": 101}, {"batch": 2}, {"trans": (True, False)},
        {"gaps": (False, True)}, {"shared": (True, False)}, {"adds": True}, {"epilogue": "rows"},
    ):  # fmt: skip
        assert records.find(dataclasses.replace(product, **change)) is None
    library = dataclasses.replace(blas.libraries()[0], name="renamed")
    assert split_records.SplitRecords([library, library], 2).find(product) is None
    assert split_records.SplitRecords(blas.libraries(), 3).find(product) is None
    assert split_records.SplitRecords(blas.libraries(), 2).find(product) == split


TUNES = """
import sys
from pathlib import Path
import numpy as np
import graphc
from runtime.cpu import split_records
split_records.path = lambda: Path({file!r})
x, y = graphc.placeholder((None, None)), graphc.placeholder((None, None))
b = np.ones((100, 90), np.float32)
with graphc.Session(autotune=True, threads=2) as session:
    step = session.compile(x @ y)
    for m in {sizes}:
        assert (step(np.ones((m, 100), np.float32), b) == 100.0).all()
print("done")
"""


def test_two_processes_at_once_lose_nothing(tmp_path: Path, start: Start, finish: Finish) -> None:
    file = tmp_path / "autotune.json"
    sizes = [range(120, 160, 2), range(121, 161, 2), range(140, 170)]
    processes = [start(TUNES.format(file=str(file), sizes=list(some))) for some in sizes]
    for process in processes:
        assert finish(process).strip() == "done"
    (splits,) = json.loads(file.read_text())["splits"].values()
    found = {int(re.search(r"\bm (\d+)", key)[1]) for key in splits}  # type: ignore[index]
    assert found == set().union(*sizes)
