"""Loaders: samples of every form made into batches, orders that can be repeated, and batches made ahead."""

from __future__ import annotations

import gc
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc.data import ArrayDataset, Loader, batches
from graphc.errors import DataError

Point = namedtuple("Point", "x y")


class Dataset:
    """Samples made by a function of their number."""

    def __init__(self, count: int, sample: Callable[[int], Any]) -> None:
        self.count = count
        self.sample = sample

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        assert type(index) is int
        assert 0 <= index < self.count
        return self.sample(index)


def only(loader: Loader) -> Any:
    (batch,) = loader
    return batch


# Samples.


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (lambda i: i, np.array([0, 1, 2])),
        (lambda i: i / 2, np.array([0, 0.5, 1])),
        (lambda i: np.float32(i), np.array([0, 1, 2], np.float32)),
        (lambda i: i == 1, np.array([False, True, False])),
        (lambda i: [i, -i], np.array([[0, 0], [1, -1], [2, -2]])),
        (lambda i: np.full((2, 1), i, np.uint8), np.array([[[0], [0]], [[1], [1]], [[2], [2]]], np.uint8)),
        (lambda i: np.zeros((0, 2)), np.zeros((3, 0, 2))),
    ],
)
def test_samples_are_stacked(sample: Callable[[int], Any], expected: Any) -> None:
    found = only(Loader(Dataset(3, sample), batch_size=3))
    np.testing.assert_array_equal(found, expected, strict=True)


def test_parts_of_samples_are_stacked_each() -> None:
    x, (label, names) = only(Loader(Dataset(2, lambda i: (np.ones(2), (i, {"a": i, "b": [i]}))), batch_size=2))
    assert x.tolist() == [[1, 1], [1, 1]]
    assert label.tolist() == [0, 1]
    assert list(names) == ["a", "b"]
    assert (names["a"].tolist(), names["b"].tolist()) == ([0, 1], [[0], [1]])
    point = only(Loader(Dataset(2, lambda i: Point(i, -i)), batch_size=2))
    assert isinstance(point, Point)
    assert point.y.tolist() == [0, -1]
    assert only(Loader(Dataset(2, lambda i: ()), batch_size=2)) == ()


def test_dicts_may_order_their_keys_differently() -> None:
    found = only(Loader([{"a": 1, "b": 2}, {"b": 20, "a": 10}], batch_size=2))
    assert {key: value.tolist() for key, value in found.items()} == {"a": [1, 10], "b": [2, 20]}


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([np.zeros(2), np.zeros(2), np.zeros(3)], r"sample 2 has shape \(3,\), and sample 0 has shape \(2,\)"),
        ([(1, [1]), (2, [1, 2])], r"sample 1\[1\] has shape \(2,\), and sample 0\[1\] has shape \(1,\)"),
        ([{"x": (1, 2)}, {"x": (1, 2, 3)}], r"sample 1\['x'\] is a tuple of 3, and sample 0\['x'\] is a tuple of 2"),
        ([{"x": 1}, {"y": 1}], "sample 1 is a dict of 'y', and sample 0 is a dict of 'x'"),
        ([(1, 2), [1, 2]], "sample 1 is of type list, and sample 0 is a tuple of 2; all samples must have one form"),
        ([[1, [2, 3]], [1, [2, 3]]], "sample 0 is ragged; use a tuple for parts"),
        ([1, None], "sample 1 is a NoneType, which is no number"),
        ([(1, object()), (1, 2)], r"sample 0\[1\] is a object, which is no number, array, tuple or dict"),
    ],
)
def test_samples_that_do_not_fit_are_named(samples: list[Any], words: str) -> None:
    for prefetch in (0, 2):
        with pytest.raises(DataError, match=words):
            list(Loader(samples, batch_size=3, prefetch=prefetch))


def test_the_number_of_a_sample_is_its_own_and_not_its_place_in_the_batch() -> None:
    ragged = Dataset(100, lambda i: np.zeros(3 if i == 71 else 2))
    with pytest.raises(DataError, match=r"sample 71 has shape \(3,\)|and sample 71 has shape \(3,\)"):
        list(Loader(ragged, batch_size=10, shuffle=True))


# Array datasets.


def test_arrays_side_by_side() -> None:
    x, y = np.arange(6.0).reshape(3, 2), [5, 6, 7]
    data = ArrayDataset(x, y)
    assert len(data) == 3
    row, label = data[1]
    assert (row.tolist(), label) == ([2.0, 3.0], 6)
    assert ArrayDataset(x)[2].tolist() == [4.0, 5.0]
    assert repr(data) == "<ArrayDataset of 3 samples: float64[3, 2], int64[3]>"
    with pytest.raises(IndexError):
        data[3]
    with pytest.raises(DataError, match="ArrayDataset: no data was given"):
        ArrayDataset()


def test_a_loader_of_arrays_is_what_batches_makes() -> None:
    x, y = np.arange(20), np.arange(20) * 2
    for made in (Loader(ArrayDataset(x, y), batch_size=6, shuffle=True, seed=3), Loader([*zip(x, y, strict=True)],
                 batch_size=6, shuffle=True, seed=3)):  # fmt: skip
        for (a, b), (c, d) in zip(made, batches(x, y, batch_size=6, shuffle=True, seed=3), strict=True):
            assert (a.tolist(), b.tolist()) == (c.tolist(), d.tolist())
    alone = only(batches(Dataset(2, lambda i: i), batch_size=2))
    assert alone.tolist() == only(Loader(np.arange(2), batch_size=2)).tolist() == [0, 1]


# Orders.


def order(loader: Loader) -> list[int]:
    return [int(v) for batch in loader for v in batch]


def test_an_order_depends_on_seed_and_epoch_alone() -> None:
    def make(seed: int = 0, prefetch: int = 0) -> Loader:
        return Loader(Dataset(30, lambda i: i), batch_size=7, shuffle=True, seed=seed, prefetch=prefetch)

    first = make()
    epochs = [order(first) for _ in range(3)]
    assert all(sorted(e) == list(range(30)) for e in epochs)
    assert len({tuple(e) for e in epochs}) == 3
    assert [order(loader) for loader in [make(prefetch=2)] * 3] == epochs
    assert order(make(1)) != epochs[0]
    resumed = make()
    resumed.epoch = 2
    assert order(resumed) == epochs[2]
    assert repr(resumed) == "<Loader: 30 samples, 5 batches of 7, epoch 3>"


@pytest.mark.parametrize("drop", [False, True])
def test_lengths(drop: bool) -> None:
    loader = Loader(Dataset(10, lambda i: i), batch_size=4, drop_last=drop)
    assert len(loader) == (2 if drop else 3)
    assert [len(b) for b in loader] == ([4, 4] if drop else [4, 4, 2])


@pytest.mark.parametrize(
    ("dataset", "options", "words"),
    [
        (Dataset(0, lambda i: i), {}, "the dataset holds no samples"),
        (Dataset(3, lambda i: i), {"batch_size": -2}, "batch_size must be a whole number of at least 1, got -2"),
        (Dataset(3, lambda i: i), {"prefetch": -1}, "prefetch must be a whole number of at least 0, got -1"),
        (Dataset(3, lambda i: i), {"batch_size": 4, "drop_last": True}, "leaves no batch of 4 samples out of 3"),
        ({"x": 1}, {}, "expected a dataset with __len__ and __getitem__ by position, got dict"),
        (iter([1]), {}, "got list_iterator"),
        (None, {}, "got NoneType"),
        (np.zeros(()), {}, "array 0 is a single number"),
    ],
)
def test_bad_datasets_are_refused(dataset: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        Loader(dataset, **{"batch_size": 2, **options})


# Batches made ahead.


def test_batches_are_made_ahead_and_no_further() -> None:
    made: list[int] = []
    gate = threading.Semaphore(0)

    def sample(index: int) -> int:
        made.append(index)
        gate.release()
        assert threading.current_thread() is not threading.main_thread()
        return index

    batches_seen = iter(Loader(Dataset(8, sample), batch_size=1, prefetch=2))
    assert made == []  # nothing before the first is asked for
    assert next(batches_seen).tolist() == [0]
    for _ in range(3):
        assert gate.acquire(timeout=30)
    time.sleep(0.05)
    assert made == [0, 1, 2]
    assert [int(b[0]) for b in batches_seen] == list(range(1, 8))
    assert made == list(range(8))


def test_an_error_arrives_in_its_place() -> None:
    def sample(index: int) -> int:
        if index == 4:
            raise OSError("sample 4 cannot be read")
        return index

    found = iter(Loader(Dataset(8, sample), batch_size=2, prefetch=4))
    assert [next(found).tolist(), next(found).tolist()] == [[0, 1], [2, 3]]
    with pytest.raises(OSError, match="sample 4 cannot be read"):
        next(found)
    assert list(found) == []


def test_an_abandoned_iteration_ends_its_thread() -> None:
    for _ in range(5):
        for _ in Loader(Dataset(100, lambda i: i), batch_size=1, prefetch=3):
            break
    gc.collect()
    deadline = time.monotonic() + 30
    while (left := [t for t in threading.enumerate() if "graphc-loader" in t.name]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == []
