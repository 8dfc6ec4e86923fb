"""``Loader``: batches of a dataset, epoch after epoch."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from graphc.data.datasets import ArrayDataset, collate, is_array_like
from graphc.errors import DataError

Array = np.ndarray[Any, Any]


class Loader:
    """Batches of ``dataset``, an object with ``__len__`` and with ``__getitem__`` that gives sample ``i``.

    A sample is a number, an array or a list of numbers; or a tuple, named tuple or dict of samples. Those of a batch
    are stacked part by part into new arrays. The last batch is smaller when the length is no multiple of
    ``batch_size``, unless ``drop_last``. Iterating over the loader once is one epoch. ``shuffle`` draws a new order for
    each, determined by ``seed`` and the number of the epoch. ``len(loader)`` is the number of batches in an epoch.

    ``prefetch`` batches are made ahead of their use, in one other thread, in the same order; then the dataset must
    allow to be read from there.

    ``epoch`` is the number of the epoch that the next iteration gives, counted from 0; it goes up when an iteration
    starts. Set it to go on exactly where a training run stopped.

    Raises ``DataError`` for a dataset without samples or of the wrong kind, a ``batch_size`` below 1, a ``drop_last``
    that leaves nothing, and, when they are met, for samples of different forms or shapes.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        prefetch: int = 0,
    ) -> None:
        if isinstance(dataset, Mapping) or not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise DataError(
                f"Loader: expected a dataset with __len__ and __getitem__ by position, got {type(dataset).__name__}"
            )
        self.dataset = ArrayDataset(dataset) if isinstance(dataset, np.ndarray) else dataset
        self.batch_size = _whole(batch_size, "batch_size", 1)
        self.shuffle = shuffle
        self.seed = _whole(seed, "seed", 0)
        self.drop_last = drop_last
        self.prefetch = _whole(prefetch, "prefetch", 0)
        self._count = len(dataset)
        self._epoch = 0
        if not self._count:
            raise DataError("Loader: the dataset holds no samples")
        if not len(self):
            raise DataError(f"Loader: drop_last=True leaves no batch of {self.batch_size} samples out of {self._count}")

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
        order = np.arange(self._count)
        if self.shuffle:
            order = np.random.default_rng((self.seed, epoch)).permutation(self._count)
        parts = [order[i * self.batch_size : (i + 1) * self.batch_size] for i in range(len(self))]
        return self._ahead(parts) if self.prefetch else map(self._gather, parts)

    def _gather(self, indices: Array) -> Any:
        if isinstance(self.dataset, ArrayDataset):
            return self.dataset.take(indices)
        places = indices.tolist()
        return collate([self.dataset[i] for i in places], places)

    def _ahead(self, parts: Iterable[Array]) -> Iterator[Any]:
        """The batches, made by another thread. What it raises is raised here, in its place."""
        thread = ThreadPoolExecutor(1, "graphc-loader")
        pending: deque[Future[Any]] = deque()
        try:
            for indices in parts:
                pending.append(thread.submit(self._gather, indices))
                if len(pending) > self.prefetch:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            # Nobody waits: an abandoned iteration may be collected by the other thread itself.
            thread.shutdown(wait=False, cancel_futures=True)

    def __repr__(self) -> str:
        return f"<Loader: {self._count} samples, {len(self)} batches of {self.batch_size}, epoch {self._epoch}>"


def batches(
    x: Any, y: Any = None, *more: Any, batch_size: int, shuffle: bool = False, seed: int = 0, drop_last: bool = False
) -> Loader:
    """A :class:`Loader` of ``x``, ``y`` and any more arrays of equal length, side by side (see ``ArrayDataset``): it
    yields tuples with one new array per array given, or the array itself when there is just one. ``x`` alone may also
    be a dataset of another kind.

    Raises ``DataError`` as both do.
    """
    given = (x,) if y is None and not more else (x, y, *more)
    dataset = ArrayDataset(*given) if len(given) > 1 or is_array_like(x) else x
    return Loader(dataset, batch_size=batch_size, shuffle=shuffle, seed=seed, drop_last=drop_last)


def _whole(value: Any, what: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise DataError(f"Loader: {what} must be a whole number of at least {least}, got {value!r}")
    return int(value)
