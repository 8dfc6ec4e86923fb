"""Datasets: any object with ``__len__`` and ``__getitem__``; arrays side by side as one; samples made into a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import DataError

Array = np.ndarray[Any, Any]


class ArrayDataset:
    """Arrays of equal length, sample ``i`` of which is item ``i`` of each, in a tuple; of one array the item itself.

    Raises ``DataError`` for no array, lengths that differ, ragged lists, Python objects, and arrays without axes.
    """

    def __init__(self, *arrays: Any) -> None:
        if not arrays:
            raise DataError("ArrayDataset: no data was given")
        self.arrays = tuple(_array(source, place) for place, source in enumerate(arrays))
        lengths = [len(array) for array in self.arrays]
        if len(set(lengths)) > 1:
            shown = ", ".join(map(str, lengths))
            raise DataError(f"ArrayDataset: all arrays must have the same number of samples, got {shown}")

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: int) -> Any:
        return self._alone([array[index] for array in self.arrays])

    def take(self, indices: Array) -> Any:
        """The samples at ``indices`` as one batch of new arrays."""
        return self._alone([np.asarray(array.take(indices, axis=0)) for array in self.arrays])

    def _alone(self, parts: Sequence[Any]) -> Any:
        return parts[0] if len(parts) == 1 else tuple(parts)

    def __repr__(self) -> str:
        shown = ", ".join(f"{array.dtype}{list(array.shape)}" for array in self.arrays)
        return f"<ArrayDataset of {len(self)} samples: {shown}>"


def is_array_like(source: Any) -> bool:
    """Whether ``source`` is one array, and not a dataset of another kind."""
    return isinstance(source, (list, tuple)) or hasattr(source, "__array__")


def _array(source: Any, place: int) -> Array:
    if not is_array_like(source):
        raise DataError(f"ArrayDataset: expected arrays, got {type(source).__name__} for array {place}")
    try:
        array: Array = np.asanyarray(source)
    except ValueError as error:
        raise DataError(f"ArrayDataset: array {place} is ragged (its samples differ in shape): {error}") from error
    if array.dtype.hasobject:
        raise DataError(f"ArrayDataset: array {place} holds Python objects, not numbers; convert it to a numeric dtype")
    if not array.ndim:
        raise DataError(f"ArrayDataset: array {place} is a single number; samples lie along the first axis")
    return array


def collate(samples: Sequence[Any], indices: Sequence[int]) -> Any:
    """``samples`` as one batch: tuples, named tuples and dicts part by part, all else stacked along a new first axis.

    ``indices`` name the samples in the ``DataError`` for those that do not fit together.
    """
    return _collate(samples, indices, "")


def _collate(samples: Sequence[Any], indices: Sequence[int], part: str) -> Any:
    first = samples[0]
    if not isinstance(first, (tuple, Mapping)):
        return _stack(samples, indices, part)
    kind = _form(first)
    for sample, index in zip(samples, indices, strict=True):
        if _form(sample) != kind:
            raise DataError(
                f"Loader: sample {index}{part} is {_form(sample)}, and sample {indices[0]}{part} is {kind}; "
                f"all samples must have one form"
            )
    if isinstance(first, Mapping):
        return {key: _collate([s[key] for s in samples], indices, f"{part}[{key!r}]") for key in first}
    parts = [_collate(items, indices, f"{part}[{i}]") for i, items in enumerate(zip(*samples, strict=True))]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)


def _form(sample: Any) -> str:
    """What a sample is, up to the values in it."""
    if isinstance(sample, tuple):
        return f"a tuple of {len(sample)}"
    if isinstance(sample, Mapping):
        return f"a dict of {_listed(sample)}"
    return f"of type {type(sample).__name__}"


def _listed(keys: Iterable[Any]) -> str:
    return ", ".join(sorted(map(repr, keys))) or "nothing"


def _stack(samples: Sequence[Any], indices: Sequence[int], part: str) -> Array:
    arrays: list[Array] = []
    for sample, index in zip(samples, indices, strict=True):
        try:
            array = np.asarray(sample)
        except ValueError as error:
            raise DataError(f"Loader: sample {index}{part} is ragged; use a tuple for parts: {error}") from error
        if array.dtype.hasobject:
            shown = f"{type(sample).__name__}, which is no number, array, tuple or dict"
            raise DataError(f"Loader: sample {index}{part} is a {shown}")
        if arrays and array.shape != arrays[0].shape:
            raise DataError(
                f"Loader: sample {index}{part} has shape {array.shape}, and sample {indices[0]}{part} has shape "
                f"{arrays[0].shape}; samples of one batch must have one shape"
            )
        arrays.append(array)
    return np.stack(arrays)
