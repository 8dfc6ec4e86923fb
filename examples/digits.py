"""Images of handwritten digits, from scikit-learn or from MNIST's files, as arrays ready for training."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import graphc

Array = np.ndarray[Any, Any]


class Digits(NamedTuple):
    """Images (n, pixels) float32 from 0 to 1 and classes (n,) int64, for training and held out."""

    x: Array
    y: Array
    held_out_x: Array
    held_out_y: Array


def load(folder: str | None = None) -> Digits:
    """scikit-learn's 1797 digits of 8x8 pixels; or the two parts of MNIST or Fashion-MNIST, 28x28, from ``folder``."""
    return _bundled() if folder is None else _from_idx(Path(folder))


def _bundled() -> Digits:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target.astype(np.int64)
    held_out = stratified_fifth(y)
    return Digits(x[~held_out], y[~held_out], x[held_out], y[held_out])


def stratified_fifth(classes: Array) -> Array:
    """A mask (n,) of a shuffled fifth of every class. Always the same one, so that runs with other seeds compare."""
    rng = np.random.default_rng(0)
    mask = np.zeros(len(classes), bool)
    for name in np.unique(classes):
        members = rng.permutation(np.flatnonzero(classes == name))
        mask[members[: len(members) // 5]] = True
    return mask


def _from_idx(folder: Path) -> Digits:
    parts: list[Array] = []
    for part in ("train", "t10k"):
        images, classes = _read(folder, f"{part}-images-idx3-ubyte"), _read(folder, f"{part}-labels-idx1-ubyte")
        if images.ndim != 3 or classes.shape != images.shape[:1]:
            raise graphc.errors.DataError(
                f"{folder}: {part}: expected images (n, height, width) and labels (n,), "
                f"got {images.shape} and {classes.shape}"
            )
        parts += [images.reshape(len(images), -1).astype(np.float32) / 255, classes.astype(np.int64)]
    return Digits(*parts)


def _read(folder: Path, name: str) -> Array:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return graphc.data.read_idx(path)
    raise graphc.errors.DataError(f"{folder} holds neither {name} nor {name}.gz; all four files of MNIST are needed")
