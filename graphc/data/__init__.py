"""Data: datasets, batches of them, and the IDX files that MNIST comes in."""

from __future__ import annotations

from graphc.data.datasets import ArrayDataset
from graphc.data.idx import read_idx
from graphc.data.loader import Loader, batches

__all__ = ["ArrayDataset", "Loader", "batches", "read_idx"]
