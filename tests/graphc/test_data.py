"""Batches and IDX files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.data import Loader, batches, read_idx
from graphc.errors import DataError, SymbolicError

Array = np.ndarray[Any, Any]


@given(
    count=st.integers(1, 40),
    size=st.integers(1, 45),
    shuffle=st.booleans(),
    drop=st.booleans(),
    seed=st.integers(0, 2**64),
)
def test_an_epoch_holds_every_sample_once(count: int, size: int, shuffle: bool, drop: bool, seed: int) -> None:
    x = np.arange(count)
    if drop and count < size:
        with pytest.raises(DataError, match=f"leaves no batch of {size} samples out of {count}"):
            batches(x, batch_size=size, shuffle=shuffle, drop_last=drop, seed=seed)
        return
    data = batches(x, -x, batch_size=size, shuffle=shuffle, drop_last=drop, seed=seed)
    for _ in range(2):
        found = list(data)
        assert len(found) == len(data)
        assert all((a == -b).all() for a, b in found)
        seen = np.concatenate([a for a, _ in found])
        assert len(seen) == (count - count % size if drop else count)
        assert len(set(seen.tolist())) == len(seen)
        assert [len(a) for a, _ in found[:-1]] == [size] * (len(found) - 1)
        if not shuffle:
            assert seen.tolist() == list(range(len(seen)))


def order(data: Any) -> list[int]:
    return [int(v) for batch in data for v in batch]


def test_every_epoch_is_shuffled_anew_and_alike_for_one_seed() -> None:
    first, second = (batches(np.arange(50), batch_size=7, shuffle=True, seed=3) for _ in range(2))
    epochs = [order(first) for _ in range(3)]
    assert len({tuple(e) for e in epochs}) == 3
    assert [order(second) for _ in range(3)] == epochs
    assert order(batches(np.arange(50), batch_size=7, shuffle=True, seed=4)) != epochs[0]
    # The order belongs to the epoch, not to the size of a batch.
    assert order(batches(np.arange(50), batch_size=50, shuffle=True, seed=3)) == epochs[0]


def test_setting_the_epoch_resumes_exactly() -> None:
    whole = batches(np.arange(20), batch_size=6, shuffle=True)
    epochs = [order(whole) for _ in range(4)]
    assert whole.epoch == 4
    resumed = batches(np.arange(20), batch_size=6, shuffle=True)
    resumed.epoch = 2
    assert [order(resumed), order(resumed)] == epochs[2:]
    with pytest.raises(DataError, match="epoch must be a whole number of at least 0, got -1"):
        resumed.epoch = -1


def test_an_abandoned_iteration_is_an_epoch_and_iterators_are_independent() -> None:
    data = batches(np.arange(20), batch_size=6, shuffle=True)
    early = iter(data)
    next(early)
    assert data.epoch == 1
    second = order(data)
    fresh = batches(np.arange(20), batch_size=6, shuffle=True)
    whole = order(fresh)
    assert second == order(fresh)
    assert order(early) == whole[6:]


def test_one_array_comes_alone_and_several_in_tuples() -> None:
    x = np.arange(6.0).reshape(3, 2)
    assert [b.tolist() for b in batches(x, batch_size=2)] == [[[0, 1], [2, 3]], [[4, 5]]]
    (three,) = batches(x, [1, 2, 3], np.array(["a", "b", "c"]), batch_size=3)
    assert [part.tolist() for part in three] == [x.tolist(), [1, 2, 3], ["a", "b", "c"]]


def test_batches_are_new_arrays() -> None:
    x = np.zeros(4)
    for batch in batches(x, batch_size=2):
        batch += 1
    assert not x.any()


@pytest.mark.parametrize(
    ("arrays", "options", "words"),
    [
        ((np.zeros(3), np.zeros(4)), {}, "same number of samples, got 3, 4"),
        ((np.zeros(0),), {}, "holds no samples"),
        ((np.zeros(3),), {"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ((np.zeros(3),), {"batch_size": 1.5}, "got 1.5"),
        ((np.zeros(3),), {"batch_size": True}, "got True"),
        ((np.zeros(3),), {"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ((np.zeros(()),), {}, "array 0 is a single number"),
        (([[1], [1, 2]],), {}, "array 0 is ragged"),
        ((np.zeros(2), np.array([None, 1])), {}, "array 1 holds Python objects"),
        ((None,), {}, "expected a dataset .*, got NoneType"),
        ((np.zeros(2), iter([1, 2])), {}, "expected arrays, got list_iterator for array 1"),
        ((None, np.zeros(2)), {}, "expected arrays, got NoneType for array 0"),
    ],
)
def test_bad_data_is_refused(arrays: tuple[Any, ...], options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        batches(*arrays, **{"batch_size": 2, **options})
    assert "\n" not in str(caught.value)


def test_a_tensor_is_no_data() -> None:
    import graphc

    with pytest.raises(SymbolicError, match="symbolic"):
        batches(graphc.placeholder((3,)), batch_size=1)
    with pytest.raises((SymbolicError, DataError)):
        Loader(graphc.placeholder((3,)), batch_size=1)


# IDX files.

CODES = {"uint8": 8, "int8": 9, "int16": 0xB, "int32": 0xC, "float32": 0xD, "float64": 0xE}


def idx_bytes(array: Array) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, CODES[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 3)])
def test_idx_round_trip(tmp_path: Path, dtype: str, shape: tuple[int, ...], packed: bool) -> None:
    rng = np.random.default_rng(0)
    array = (rng.integers(0, 120, shape) - (60 if dtype != "uint8" else 0)).astype(dtype)
    data = idx_bytes(array)
    (tmp_path / "file").write_bytes(gzip.compress(data) if packed else data)
    found = read_idx(tmp_path / "file")
    assert found.dtype == array.dtype
    assert found.dtype.isnative
    assert found.flags.writeable
    np.testing.assert_array_equal(found, array, strict=True)


def test_idx_is_big_endian(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes([0, 0, 0x0B, 1, 0, 0, 0, 2, 0x01, 0x02, 0xFF, 0xFE]))
    assert read_idx(tmp_path / "file").tolist() == [0x0102, -2]


GOOD = idx_bytes(np.arange(6, dtype=np.int32).reshape(2, 3))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not an IDX file: .*found an empty file"),
        (b"\x89PNG\r\n\x1a\n", "not an IDX file: expected 00 00, a dtype code .*found 89 50 4e 47"),
        (b"\0\0\x07\x01\0\0\0\0", "not an IDX file: .*found 00 00 07 01"),
        (b"\0\0\x08\0", "not an IDX file"),
        (GOOD[:7], "truncated: a header of 2 axes takes 12 bytes, found 7"),
        (GOOD[:-1], r"truncated: shape \(2, 3\) of int32 takes 24 bytes, found 23"),
        (GOOD + b"\0", r"too long: shape \(2, 3\) of int32 takes 24 bytes, found 25"),
        (gzip.compress(GOOD, mtime=0)[:-9], "damaged or truncated gzip file"),
        (gzip.compress(GOOD, mtime=0)[:12] + b"\xff" * 20, "damaged or truncated gzip file"),
        (b"\0\0\x0e\xff" + b"\xff" * 4 * 255, "truncated: shape"),
    ],
)
def test_foreign_and_damaged_files_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(DataError, match=words) as caught:
        read_idx(tmp_path / "file")
    assert str(tmp_path / "file") in str(caught.value)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "nothing")
