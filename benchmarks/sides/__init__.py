"""The sides of the comparison: what each library makes of each workload, as a good user of it would write it."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Case:
    """A workload, ready to run. ``call`` makes one step and returns when its results are there; ``values`` turns what
    it returned into arrays by name; ``reset`` puts parameters and optimiser slots back to where they began; ``again``
    makes a step with other arrays for the inputs, of another batch size perhaps. ``facts``, by name: "temporaries", the
    bytes that a step holds at its peak beyond inputs, parameters, slots and what is fetched, as the library itself
    accounts for them; "least", what must live at once; "compiled", kernels compiled since the case was made.
    """

    call: Callable[[], Any]
    values: Callable[[Any], Mapping[str, np.ndarray]]
    reset: Callable[[], None] = _nothing
    close: Callable[[], None] = _nothing
    again: Callable[[Mapping[str, np.ndarray]], Any] | None = None
    facts: Callable[[], Mapping[str, int]] = dict


@dataclass(frozen=True)
class Side:
    """``module`` has ``start(threads, variant)``, ``versions()``, and a function of ``(arrays, sizes, **options)`` for
    every case that workloads name.

    ``environment`` names the virtual environment that it runs in; None is graphc's own.
    """

    name: str
    module: str
    environment: str | None
    variant: str = ""

    def load(self) -> ModuleType:
        """The module, and with it the library."""
        return importlib.import_module(f"benchmarks.sides.{self.module}")


OURS = "graphc"
_ALL = (
    Side(OURS, "graphc_side", None),
    Side("numpy", "numpy_side", None),
    Side("torch eager", "torch_side", "torch", "eager"),
    Side("torch.compile", "torch_side", "torch", "compile"),
    Side("jax", "jax_side", "jax"),
    Side("pytensor", "pytensor_side", "pytensor"),
)
SIDES: dict[str, Side] = {s.name: s for s in _ALL}
