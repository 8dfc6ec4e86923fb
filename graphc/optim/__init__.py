"""Optimisers: from a loss to the update that lowers it.

An optimiser is a recipe. ``minimize`` writes it down in the graph for some parameters; what it keeps between steps, its
slots and its count of steps, are parameters too, saved and restored with the rest.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

from graphc.hints import missing
from graphc.optim import schedules
from graphc.optim.adagrad import Adadelta, Adagrad
from graphc.optim.adam import Adam, AdamW
from graphc.optim.clipping import clip_by_norm, clip_by_value, global_norm
from graphc.optim.lion import Lion
from graphc.optim.optimizer import Optimizer, Pairs, Step
from graphc.optim.rmsprop import RMSprop
from graphc.optim.sgd import SGD, Momentum

__all__ = [
    "SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Lion", "Momentum", "Optimizer", "Pairs", "RMSprop", "Step",
    "clip_by_norm", "clip_by_value", "global_norm", "schedules",
]  # fmt: skip


if not TYPE_CHECKING:  # a type checker shall find fault with unknown names itself

    def __getattr__(name: str) -> NoReturn:
        raise missing(sys.modules[__name__], "graphc.optim", name, __all__)
