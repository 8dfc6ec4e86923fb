"""Random programs of the fuzzer, with gradients of gradients, against PyTorch's autograd: what ``make fuzz`` compares
with the reference cannot show a wrong derivative, because both devices take the same rules.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from differences import without_signs_of_zero
from fuzz.case import Case
from fuzz.catalogue import entries
from fuzz.check import answer, kept, native
from fuzz.drawing import Drawing
from fuzz.noise import Model, differences
from fuzz.script import script
from table import PEERS
from torch_graph import NoKernelError, run, to_torch

import graphc
from graphc.node import Node, Tensor
from passes.gradient import expand_gradients

SEED = 50
PROGRAMS = 200
TRIALS = 8
CATALOGUE = entries()
KNOWN = {*PEERS, "placeholder", "parameter", "gradient", "check_index"}
ENDED: Counter[str] = Counter()


def comparable(tensor: Tensor) -> bool:
    """Whether PyTorch has all that a tensor is made of, and defines it: a float below 0 in an unsigned type is not."""
    nodes = Case((tensor,), (), ()).graph.nodes
    return {n.op.name for n in nodes} <= KNOWN and not any(_undefined(n) for n in nodes)


def _undefined(node: Node) -> bool:
    return node.op.name == "astype" and node.inputs[0].dtype.kind == "f" and node.results[0].dtype.kind in "iu"


@pytest.mark.parametrize("number", range(PROGRAMS))
def test_random_program(number: int) -> None:
    torch.set_num_threads(1)
    drawn, _ = Drawing(SEED, number, CATALOGUE, modes=("plain",)).case()
    case = Case(tuple(t for t in drawn.outputs if comparable(t)), (), drawn.runs[:1])
    if not case.outputs or not case.runs:
        ENDED["nothing to compare"] += 1
        return
    with graphc.Session("reference") as session:
        mine = answer(session, case, 0)
        known = {**kept(session, case), **{t: native(case.runs[0][t]) for t in case.placeholders}}
    if mine.error is not None:
        ENDED["refused"] += 1
        return
    given = {t: to_torch(a, differentiable=True) for t, a in known.items()}
    try:
        theirs = [run(t, given, case.extents(0)).detach().numpy() for t in case.outputs]
    except NoKernelError:
        ENDED["no kernel in PyTorch"] += 1
        return
    ENDED["compared"] += 1
    trials = Model(expand_gradients(case.graph), bits=False).measure(case.extents(0), known, seed=0, trials=TRIALS)
    found = [without_signs_of_zero(np.asarray(a), p) for a, p in zip(theirs, trials.plain, strict=True)]
    assert not differences(found, trials), script(case)


def test_most_programs_were_compared() -> None:
    if sum(ENDED.values()) < 20:
        pytest.skip("the random programs did not run in this process")
    assert ENDED["compared"] > 0.6 * sum(ENDED.values()), ENDED
