"""Data: batches of arrays, and the IDX files that MNIST comes in."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from graphc.errors import DataError

Array = np.ndarray[Any, Any]


class Batches:
    """Batches of samples, as :func:`batches` makes them. Iterating over it once is one epoch.

    ``epoch`` is the number of the epoch that the next iteration gives, counted from 0; it goes up when an iteration
    starts. Set it to go on exactly where a training run stopped: the order of the samples depends on the seed and the
    epoch alone.
    """

    def __init__(self, sources: tuple[Any, ...], batch_size: int, shuffle: bool, seed: int, drop_last: bool) -> None:
        self._sources = [_source(source, place) for place, source in enumerate(sources)]
        if not self._sources:
            raise DataError("batches: no data was given")
        lengths = [len(source) for source in self._sources]
        if len(set(lengths)) > 1:
            shown = ", ".join(map(str, lengths))
            raise DataError(f"batches: all arrays must have the same number of samples, got {shown}")
        self.batch_size = _whole(batch_size, "batch_size", 1)
        self.shuffle = shuffle
        self.seed = _whole(seed, "seed", 0)
        self.drop_last = drop_last
        self._count = lengths[0]
        self._epoch = 0
        if not self._count:
            raise DataError("batches: the data holds no samples")
        if not len(self):
            raise DataError(
                f"batches: drop_last=True leaves no batch of {self.batch_size} samples out of {self._count}"
            )

    @property
    def epoch(self) -> int:
        return self._epoch

    @epoch.setter
    def epoch(self, value: int) -> None:
        self._epoch = _whole(value, "epoch", 0)

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return self._count // self.batch_size if self.drop_last else math.ceil(self._count / self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        if self.shuffle:
            return self._batches(np.random.default_rng((self.seed, epoch)).permutation(self._count))
        return self._batches(np.arange(self._count))

    def _batches(self, order: Array) -> Iterator[Any]:
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            chosen = order[start : start + self.batch_size]
            parts = tuple(_gather(source, chosen) for source in self._sources)
            yield parts[0] if len(parts) == 1 else parts

    def __repr__(self) -> str:
        return f"<Batches: {self._count} samples, {len(self)} batches of {self.batch_size}, epoch {self._epoch}>"


def batches(
    x: Any, y: Any = None, *more: Any, batch_size: int, shuffle: bool = False, seed: int = 0, drop_last: bool = False
) -> Batches:
    """``x``, ``y`` and any more arrays of equal length, cut along their first axis into batches.

    The result has a length (batches in an epoch) and can be iterated over as often as there are epochs. It yields
    tuples with one new array per array given, or the array itself when there is just one. The last batch is smaller
    when the length is no multiple of ``batch_size``, unless ``drop_last``. ``shuffle`` draws a new order for every
    epoch, determined by ``seed`` and the number of the epoch (see :class:`Batches`).

    ``x`` may also be a dataset: an object with ``__len__`` and ``__getitem__`` that gives one sample, or a tuple of
    parts of one, which are stacked.

    Raises ``DataError`` for arrays of unequal length or without samples, a ``batch_size`` below 1, and a
    ``drop_last`` that leaves nothing.
    """
    given = (x, *more) if y is None and not more else (x, y, *more)
    return Batches(given, batch_size, shuffle, seed, drop_last)


def _source(source: Any, place: int) -> Any:
    """An array, or a dataset as it is."""
    if isinstance(source, (list, tuple)) or hasattr(source, "__array__"):
        try:
            array = np.asanyarray(source)
        except ValueError as error:
            raise DataError(f"batches: array {place} is ragged (its samples differ in shape): {error}") from error
        if array.dtype.hasobject:
            raise DataError(f"batches: array {place} holds Python objects, not numbers; convert it to a numeric dtype")
        if not array.ndim:
            raise DataError(f"batches: array {place} is a single number; samples lie along the first axis")
        return array
    if hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return source
    raise DataError(f"batches: expected arrays, or a dataset with __len__ and __getitem__, got {type(source).__name__}")


def _gather(source: Any, chosen: Array) -> Any:
    if isinstance(source, np.ndarray):
        return np.asarray(source.take(chosen, axis=0))
    samples = [source[int(index)] for index in chosen]
    try:
        if isinstance(samples[0], tuple):
            return tuple(np.stack(part) for part in zip(*samples, strict=True))
        return np.stack(samples)
    except ValueError as error:
        raise DataError(f"batches: the samples of the dataset differ in shape: {error}") from error


def _whole(value: Any, what: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise DataError(f"batches: {what} must be a whole number of at least {least}, got {value!r}")
    return int(value)


_IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | os.PathLike[str]) -> Array:
    """The array in an IDX file (the format of MNIST and Fashion-MNIST), gzipped or not, in native byte order.

    Layout: two zero bytes, a dtype code, the number of axes, each extent as a big-endian uint32, the elements
    big-endian in C order (Y. LeCun, C. Cortes, "The MNIST database"). Raises ``DataError`` for a file that is
    truncated, too long or something else, and ``OSError`` when it cannot be opened.
    """
    with open(path, "rb") as file:
        data = file.read()
    if data.startswith(_GZIP_MAGIC):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{path}: damaged or truncated gzip file: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_DTYPES or not data[3]:
        codes = ", ".join(f"{code:02x}" for code in _IDX_DTYPES)
        raise DataError(
            f"{path}: not an IDX file: expected 00 00, a dtype code ({codes}) and the number of axes, "
            f"found {data[:4].hex(' ') or 'an empty file'}"
        )
    dtype, rank = np.dtype(_IDX_DTYPES[data[2]]), data[3]
    start = 4 + 4 * rank
    if len(data) < start:
        raise DataError(f"{path}: truncated: a header of {rank} axes takes {start} bytes, found {len(data)}")
    shape = struct.unpack(f">{rank}I", data[4:start])
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - start != expected:
        problem = "truncated" if len(data) - start < expected else "too long"
        raise DataError(
            f"{path}: {problem}: shape {shape} of {dtype.newbyteorder('=')} takes {expected} bytes, "
            f"found {len(data) - start}"
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
