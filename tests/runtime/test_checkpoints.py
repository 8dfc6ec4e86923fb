"""Saving and loading: everything comes back, a file is whole or not there, and a load that fails changes nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import graphc
from graphc.errors import CheckpointError, SessionError
from runtime import store

F32 = np.float32
DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"]


@pytest.fixture
def session() -> Any:
    with graphc.Session(device="reference") as opened:
        yield opened


def parameters() -> dict[str, graphc.Tensor]:
    """One of each dtype and of several shapes."""
    found = {d: graphc.parameter(np.arange(6).reshape(2, 3).astype(d), name=d) for d in DTYPES}
    found["scalar"] = graphc.parameter(np.float64(2.5), name="scalar")
    found["empty"] = graphc.parameter(np.zeros((0, 3), F32), name="empty")
    found["odd name: ü/.."] = graphc.parameter(np.array([np.nan, -0.0, np.inf], F32), name="odd name: ü/..")
    return found


def values(session: graphc.Session, params: dict[str, graphc.Tensor]) -> dict[str, bytes]:
    return {name: session.get(p).tobytes() for name, p in params.items()}


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_round_trip(device: str, tmp_path: Path) -> None:
    """Bits, dtypes, shapes and the run counter, into another session and in place."""
    params = parameters()
    w = params["float32"]
    with graphc.Session(device=device) as first:
        first.run([*params.values(), graphc.assign(w, w / 3.0)])
        saved = values(first, params)
        first.save(tmp_path / "a")
        first.run(graphc.assign(w, w * 0.0))
        first.load(tmp_path / "a")
        assert values(first, params) == saved
    with graphc.Session(device=device) as second:
        second.load(tmp_path / "a")
        assert second._store.run_counter == 1
        assert values(second, params) == saved
        for name, p in params.items():
            assert second.get(p).dtype == p.dtype
            assert second.get(p).shape == p.shape, name
        assert second.run(w * 3.0).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_loading_into_a_compiled_step_takes_effect(tmp_path: Path) -> None:
    """Parameters keep their addresses, which compiled programs know."""
    w = graphc.parameter(np.ones(3, F32), name="w")
    with graphc.Session() as session:
        step = session.compile([w * 1.0, graphc.assign(w, w + 1.0)])
        step()
        session.save(tmp_path / "a")
        step()
        session.load(tmp_path / "a")
        assert step()[0].tolist() == [2, 2, 2]
        session.set(w, [7, 8, 9])
        assert step()[0].tolist() == [7, 8, 9]


def test_entries_wait_for_their_parameters(session: graphc.Session, tmp_path: Path) -> None:
    a, b = (graphc.parameter(np.zeros(2, F32), name=n) for n in "ab")
    safetensors.numpy.save_file({"a": np.array([1, 2], F32), "b": np.array([3, 4], F32)}, tmp_path / "f")
    session.load(tmp_path / "f")
    assert session.run(a).tolist() == [1, 2]
    session.set(a, [9, 9])
    assert session.run([a, b])[1].tolist() == [3, 4]
    assert session.get(a).tolist() == [9, 9]


def test_waiting_entry_that_does_not_fit_is_an_error_when_met(session: graphc.Session, tmp_path: Path) -> None:
    a = graphc.parameter(np.zeros(2, F32), name="a")
    safetensors.numpy.save_file({"a": np.zeros(3, F32)}, tmp_path / "f")
    session.load(tmp_path / "f")
    with pytest.raises(CheckpointError, match=r"entry 'a' is float32\[3\], and the parameter is a: .*float32\[2\]"):
        session.run(a)


def test_strict_wants_every_parameter(session: graphc.Session, tmp_path: Path) -> None:
    a, b = (graphc.parameter(np.zeros(2, F32), name=n) for n in "ab")
    session.run([a, b])
    safetensors.numpy.save_file({"a": np.ones(2, F32)}, tmp_path / "f")
    with pytest.raises(CheckpointError, match=r"lacks 1 parameter\(s\) this session holds: b; it has: a; strict=False"):
        session.load(tmp_path / "f")
    assert session.get(a).tolist() == [0, 0]
    session.load(tmp_path / "f", strict=False)
    assert (session.get(a).tolist(), session.get(b).tolist()) == ([1, 1], [0, 0])


@pytest.mark.parametrize("wrong", [np.zeros(3, F32), np.zeros((2, 1), F32), np.zeros(2), np.zeros(2, np.int32), F32(1)])
def test_wrong_entry_changes_nothing(wrong: Any, session: graphc.Session, tmp_path: Path) -> None:
    """The fitting entries beside it neither, nor the run counter, nor what waits."""
    a, b = (graphc.parameter(np.zeros(2, F32), name=n) for n in "ab")
    later = graphc.parameter(np.zeros(2, F32), name="later")
    session.run([a, b])
    entries = {"a": np.ones(2, F32), "b": np.asarray(wrong), "later": np.ones(2, F32)}
    safetensors.numpy.save_file(entries, tmp_path / "f", metadata={"graphc.run_counter": "7"})
    with pytest.raises(CheckpointError, match=r"entry 'b' is .* nothing was changed"):
        session.load(tmp_path / "f", strict=False)
    assert session.run([a, b, later])[0].tolist() == [0, 0]
    assert session.get(later).tolist() == [0, 0]
    assert session._store.run_counter == 0


def test_unreadable_files_change_nothing(session: graphc.Session, tmp_path: Path) -> None:
    """Every length of a cut file, foreign files, a folder, and none at all."""
    a = graphc.parameter(np.zeros(2, F32), name="a")
    session.set(a, [5, 6])
    session.save(tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    bad = tmp_path / "bad"
    for length in range(len(data)):
        bad.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="not a readable safetensors file"):
            session.load(bad)
    foreign = [b"\x80\x04K\x01.", b"PK\x03\x04" + bytes(100), b"\xff" * 100, bytes(8), data + b"more", data[::-1]]
    for content in foreign:
        bad.write_bytes(content)
        with pytest.raises(CheckpointError, match="nothing was changed"):
            session.load(bad)
    with pytest.raises(CheckpointError):
        session.load(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        session.load(tmp_path / "missing")
    assert session.get(a).tolist() == [5, 6]


@pytest.mark.parametrize("counter", ["", "-3", "x", "1e3", "²", "1" * 50])
def test_foreign_run_counters_are_ignored(counter: str, session: graphc.Session, tmp_path: Path) -> None:
    a = graphc.parameter(np.zeros(2, F32), name="a")
    safetensors.numpy.save_file({"a": np.ones(2, F32)}, tmp_path / "f", metadata={"graphc.run_counter": counter})
    session.load(tmp_path / "f")
    assert session.run(a).tolist() == [1, 1]
    assert session._store.run_counter == 0


class Crash(BaseException):
    pass


def broken(*_: Any, **__: Any) -> Any:
    raise Crash


@pytest.mark.parametrize("stage", ["fdopen", "fsync", "chmod", "replace"])
def test_crash_while_writing_leaves_the_old_file(
    stage: str, session: graphc.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = graphc.parameter(np.ones(1000, F32), name="a")
    session.run(a)
    session.save(tmp_path / "f")
    old = (tmp_path / "f").read_bytes()
    session.set(a, np.zeros(1000))
    with monkeypatch.context() as patch:
        patch.setattr(os, stage, broken)
        with pytest.raises(Crash):
            session.save(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    session.save(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() != old


def test_half_written_data_never_takes_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes go to another file first, and its name is exchanged only once they are on the disk."""
    seen = []
    replace = os.replace

    def watch(source: str, target: str) -> None:
        seen.append((Path(source).read_bytes(), Path(target).read_bytes(), Path(source).parent == Path(target).parent))
        replace(source, target)

    (tmp_path / "f").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", watch)
    store._write_atomically(tmp_path / "f", b"new")
    assert seen == [(b"new", b"old", True)]


def test_saved_file_has_ordinary_permissions_and_folders_are_made(session: graphc.Session, tmp_path: Path) -> None:
    a = graphc.parameter(np.zeros(2, F32), name="a")
    session.run(a)
    path = tmp_path / "new" / "folder" / "f.safetensors"
    session.save(str(path))
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    assert list(safetensors.numpy.load_file(path)) == ["a"]


def test_save_of_a_choice(session: graphc.Session, tmp_path: Path) -> None:
    """A list, fetches, an update or a Module; parameters not met yet get their first values."""
    a, b, c = (graphc.parameter(np.full(2, i, F32), name=n) for i, n in enumerate("abc"))
    layer = graphc.nn.Linear(2, 3)
    choices: list[tuple[Any, set[str]]] = [
        ([a, c], {"a", "c"}), (b, {"b"}), (a * b, {"a", "b"}), ([a, {"k": c * 2.0}], {"a", "c"}),
        (graphc.assign(a, b), {"a", "b"}), (layer, set(dict(layer.named_parameters()))),
    ]  # fmt: skip
    for params, names in choices:
        session.save(tmp_path / "f", params)
        assert set(safetensors.numpy.load_file(tmp_path / "f")) == names
    session.save(tmp_path / "f", [b])
    session.set(b, [9, 9])
    session.set(a, [9, 9])
    session.load(tmp_path / "f", [b])
    assert (session.get(a).tolist(), session.get(b).tolist()) == ([9, 9], [1, 1])
    twin = graphc.parameter(np.zeros(2, F32), name="a")
    with pytest.raises(SessionError, match="two parameters are named 'a'"):
        session.save(tmp_path / "f", [a, twin])


def test_load_of_a_choice_leaves_the_rest_and_the_counter(session: graphc.Session, tmp_path: Path) -> None:
    a, b = (graphc.parameter(np.zeros(2, F32), name=n) for n in "ab")
    session.run([graphc.assign(a, a + 1.0), b])
    session.save(tmp_path / "f")
    session.run([graphc.assign(a, a + 1.0), graphc.assign(b, b + 5.0)])
    session.load(tmp_path / "f", [a])
    assert (session.get(a).tolist(), session.get(b).tolist()) == ([1, 1], [5, 5])
    assert session._store.run_counter == 2
    with pytest.raises(CheckpointError, match="lacks 1"):
        session.load(tmp_path / "f", [a, graphc.parameter(np.zeros(1, F32), name="other")])


def test_entries_that_still_wait_are_saved_again(session: graphc.Session, tmp_path: Path) -> None:
    """Loading, training a part and saving loses nothing of the file."""
    a, b = (graphc.parameter(np.zeros(2, F32), name=n) for n in "ab")
    safetensors.numpy.save_file({"a": np.ones(2, F32), "b": np.ones(2, F32)}, tmp_path / "f")
    session.load(tmp_path / "f")
    session.save(tmp_path / "f")
    session.run(a)
    session.save(tmp_path / "f")
    assert set(safetensors.numpy.load_file(tmp_path / "f")) == {"a", "b"}
    assert session.get(b).tolist() == [1, 1]


@pytest.mark.parametrize("chosen", ["everything", "a list"])
def test_unnamed_parameters_are_not_saved(session: graphc.Session, tmp_path: Path, chosen: str) -> None:
    """The next graph could not find them again."""
    first = graphc.parameter(np.ones(2, F32))
    session.run(first)
    with pytest.raises(SessionError, match=r"1 parameter.* no name"):
        session.save(tmp_path / "f", None if chosen == "everything" else [first])
    assert list(tmp_path.iterdir()) == []


def test_training_continues_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    """Adam's slots and steps are parameters: the same bits after save, load and two more steps."""
    x = graphc.placeholder((None, 3), name="x")
    w = graphc.parameter(graphc.init.normal(), shape=(3, 2), name="w")
    loss = graphc.mean(graphc.square(x @ w - 1.0))
    train = [loss, graphc.optim.Adam(0.1).minimize(loss)]
    data = np.random.default_rng(0).normal(size=(5, 3))
    with graphc.Session(seed=1) as first:
        for _ in range(3):
            first.run(train, {x: data})
        first.save(tmp_path / "f")
        expected = [first.run(train, {x: data})[0] for _ in range(2)]
    with graphc.Session(seed=2) as second:
        second.load(tmp_path / "f")
        assert [second.run(train, {x: data})[0] for _ in range(2)] == expected
