"""The tour's numbers, and that each of its programs prints them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import graphc

TOUR = Path(__file__).resolve().parents[2] / "examples" / "tour"
PROGRAMS = sorted(p.stem for p in TOUR.glob("t*.py"))


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tour_{name}", TOUR / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PRINTED = {
    "t1_mean_of_squares": [
        "res = 8.0",
        "[[2. 2.]\n [2. 2.]]",
        "again, the same: True",
        "accumulated gradient = [110. 286.]",
        "total = [0. 0.]",
    ],
    "t2_each_node_knows_its_derivative": [
        "placeholder  x.n1               float32[2, 2]",
        "forward      square.n4          float32[2, 2]    add.n3",
        "derived from the forward nodes: divide, expand_dims, broadcast_to, multiply, multiply, multiply",
        "picture: ",
    ],
    "t3_vector_jacobian": [
        "out = 36.0  d out/d x =\n [[1.3333 1.3333 1.3333]",
        "dQ/da = [36. 81.]  dQ/db = [-12.  -8.]",
        "vJ = [ 2.    20.     0.002]",
        "out = 36.0  d/da = 6.0  d/db = 6.0  d/dc = 1.0",
        "y1 = [ 5. 11.]  y2 = [43. 42.]  output = 85.0",
        "d/dw1 = [[6.0, 12.0], [5.0, 10.0]]  d/dw2 = [[5.0, 11.0], [5.0, 11.0]]",
        "a gradient is created implicitly only for a scalar",
    ],
    "t4_stopping_the_gradient": [
        "updated by minimize: <Update of w>",
        "with roles ['forward']",
        "with roles ['backward', 'forward', 'update']",
    ],
    "t5_hand_made_mlp": ["iteration 500: loss", "one step is 6 kernels", "gemm_add", "fastest step: graphc"],
    "t6_modules_and_data": [
        "parameters: ['W float32[4, 12]', 'b float32[12]']\noutput: (2, 12)",
        "loss 0.0122 after 100 epochs",
        *(f"\n{name}: loss " for name in ("SGD", "Adagrad", "RMSprop", "Adam")),
        "over 6 batches",
        "held-out accuracy ",
    ],
    "t7_the_device": ["devices here: cpu", "the same on each: True"],
    "t8_custom_function": [
        "y'' = [1.     2.7183 7.3891]\nkernels: exp, copy, copy",
        "a step function with the gradient of the identity: [1. 2. 3.]",
        "asked for no gradient: 1 matrix product\nasked for b: 1 matrix product\n",
        "asked for w: 2 matrix products\nasked for inputs, w and b: 3 matrix products",
        "d loss/d b = [16.0, 16.0]",
        "gives argument 0 float32[] where the argument is float32[3]",
    ],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_prints_what_the_tutorial_prints(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    load(name).main()
    printed = capsys.readouterr().out
    for expected in PRINTED[name]:
        assert expected in printed


def test_every_program_is_checked() -> None:
    assert set(PROGRAMS) == set(PRINTED)


def numpy_losses(dtype: str, iterations: int) -> list[float]:
    t5 = load("t5_hand_made_mlp")
    arrays = [a.astype(dtype) for a in t5.data("float32" if dtype == "float64" else dtype)]
    return [t5.numpy_step(*arrays) for _ in range(iterations)]


def test_t5_float32_follows_float64_until_rounding_is_amplified() -> None:
    exact = numpy_losses("float64", 50)
    found = load("t5_hand_made_mlp").losses("float32", 500)
    for iteration in (1, 10, 20, 30, 40, 50):
        assert found[iteration - 1] == pytest.approx(exact[iteration - 1], rel=1e-3)
    assert max(found[200:]) < 1e-3


def test_t5_float64_agrees_with_numpy() -> None:
    t5 = load("t5_hand_made_mlp")
    arrays = t5.data("float64")
    by_hand = [t5.numpy_step(*arrays) for _ in range(100)]
    np.testing.assert_allclose(t5.losses("float64", 100), by_hand, rtol=1e-6)


def test_t6_the_classifier_learns() -> None:
    assert load("t6_modules_and_data").classifier() > 0.9


def test_t4_a_forward_fetch_compiles_no_backward_kernel() -> None:
    x = graphc.placeholder((None, 3), name="x")
    w = graphc.parameter(graphc.init.ones(), shape=(3, 2), name="w")
    loss = graphc.tanh(x @ w).sum()
    graphc.gradients(loss, w)
    with graphc.Session() as session:
        kernels = session.compile(loss).kernels
    assert kernels
    assert all(node.role == "forward" for kernel in kernels for node in kernel.nodes)
