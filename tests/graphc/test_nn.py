"""Modules and layers: what they register, how they are named and copied, and their values against NumPy."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import DTypeError, ShapeError

EPS = float(np.finfo(np.float32).eps)


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def evaluate(device: str, fetches: Any, feeds: dict[Any, Any] | None = None) -> Any:
    with graphc.Session(device=device) as session:
        return session.run(fetches, feeds or {})


class MyLinear(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = graphc.parameter(graphc.init.he_normal(), shape=(inputs, outputs))
        self.bias = graphc.parameter(graphc.init.zeros(), shape=(outputs,))
        self.doubled = self.bias * 2

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        return x @ self.weight + self.bias


# Modules.


def test_parameters_are_those_assigned_and_not_other_tensors() -> None:
    layer = MyLinear(4, 12)
    assert [p is q for p, q in zip(layer.parameters(), [layer.weight, layer.bias], strict=True)] == [True, True]
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    assert layer.weight.shape == (4, 12)
    assert layer.bias.shape == (12,)


def test_calling_calls_forward_with_all_arguments() -> None:
    class Echo(nn.Module):
        def forward(self, a: int, *, b: int) -> tuple[int, int]:
            return a, b

    assert Echo()(1, b=2) == (1, 2)


def test_names_follow_attributes_sequences_and_mappings() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.layers = nn.Sequential(MyLinear(2, 3), nn.relu, nn.Linear(3, 3))
            self.heads = [nn.Linear(3, 1, bias=False), (nn.Linear(3, 1),)]
            self.by_key = {"left": MyLinear(1, 1)}
            self.scale = graphc.parameter(1.0)

    net = Net()
    assert [name for name, _ in net.named_parameters()] == [
        "layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias", "heads.0.weight", "heads.1.0.weight",
        "heads.1.0.bias", "by_key.left.weight", "by_key.left.bias", "scale",
    ]  # fmt: skip
    kinds = [type(m).__name__ for m in net.modules()]
    assert kinds == ["Net", "Sequential", "MyLinear", "Linear", "Linear", "Linear", "MyLinear"]


def test_what_is_shared_is_listed_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            self.encode = nn.Linear(3, 3)
            self.decode = self.encode
            self.weight = self.encode.weight
            self.myself = self

    tied = Tied()
    assert [name for name, _ in tied.named_parameters()] == ["encode.weight", "encode.bias"]
    assert len(tied.modules()) == 2
    assert repr(tied).count("Tied(...)") == 1


def test_a_replaced_attribute_replaces_the_parameter() -> None:
    layer = MyLinear(2, 2)
    layer.bias = other = graphc.parameter([1.0, 2.0])
    assert layer.parameters()[1] is other
    del layer.bias
    assert len(layer.parameters()) == 1


def test_super_init_may_be_left_out() -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            self.inner = MyLinear(2, 2)

    assert len(Forgetful().parameters()) == 2


def test_missing_forward_says_what_to_define() -> None:
    class Empty(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty has no forward method: define forward\(self, x\)"):
        Empty()(1)


def test_repr_is_a_tree() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.body = nn.Sequential(nn.Linear(2, 3), nn.relu, nn.Tanh())
            self.own = MyLinear(3, 1)

    assert repr(Net()) == (
        "Net(\n"
        "  body: Sequential(\n"
        "    0: Linear(in_features=2, out_features=3, bias=True)\n"
        "    1: relu\n"
        "    2: Tanh()\n"
        "  )\n"
        "  own: MyLinear(\n"
        "    weight: float32[3, 1]\n"
        "    bias: float32[1]\n"
        "  )\n"
        ")"
    )


def test_deepcopy_has_parameters_of_its_own(device: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.first = nn.Linear(2, 2, name="first")
            self.again = self.first
            self.table = [graphc.parameter(np.array([1.0, 2.0], np.float32), name="table", trainable=False)]
            self.constant = graphc.constant(3.0)

    net = Net()
    twin, third = copy.deepcopy(net), copy.deepcopy(net)
    assert [n for n, _ in twin.named_parameters()] == [n for n, _ in net.named_parameters()]
    assert not set(twin.parameters()) & set(net.parameters())
    assert twin.again is twin.first is not net.first
    assert twin.constant is net.constant
    assert twin.first.weight.node.attrs["initial"] is net.first.weight.node.attrs["initial"]
    assert not twin.table[0].node.attrs["trainable"]
    assert twin.table[0].node.where == net.table[0].node.where
    names = [p.name for module in (net, twin, third) for p in module.parameters()]
    assert len(set(names)) == len(names)
    assert re.fullmatch(r"first_copy\d+\.weight", twin.first.weight.name)
    with graphc.Session(device=device) as session:
        session.run(graphc.assign(net.table[0], [9.0, 9.0]))
        assert session.get(twin.table[0]).tolist() == [1.0, 2.0]
        assert session.get(net.table[0]).tolist() == [9.0, 9.0]


# Layers.


def test_layers_are_named_by_class_and_number_or_as_told() -> None:
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)
    numbers = [int(re.fullmatch(r"linear_(\d+)\.weight", p.weight.name).group(1)) for p in (first, second)]  # type: ignore[union-attr]
    assert numbers[1] == numbers[0] + 1
    assert first.bias is not None
    assert first.bias.name == f"linear_{numbers[0]}.bias"
    assert nn.Linear(1, 1, name="head").weight.name == "head.weight"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(5,), (2, 3), ()])
def test_linear_is_x_at_w_plus_b(device: str, bias: bool, lead: tuple[int, ...]) -> None:
    layer = nn.Linear(4, 3, bias=bias)
    x = np.random.default_rng(0).standard_normal((*lead, 4)).astype(np.float32)
    placeholder = graphc.placeholder(x.shape)
    with graphc.Session(device=device) as session:
        if layer.bias is not None:
            session.set(layer.bias, [1.0, -2.0, 3.0])
        found = session.run(layer(placeholder), {placeholder: x})
        weight = session.get(layer.weight).astype(np.float64)
    expected = x.astype(np.float64) @ weight + (np.array([1.0, -2.0, 3.0]) if bias else 0)
    # Four products and at most five additions, each rounded to half an eps of a partial sum.
    bound = 5 * EPS * (np.abs(x).astype(np.float64) @ np.abs(weight) + 3)
    assert found.shape == (*lead, 3)
    assert (np.abs(found - expected) <= bound).all()


def test_linear_starts_he_uniform_with_bias_zero(device: str) -> None:
    layer = nn.Linear(100, 200)
    with graphc.Session(device=device, seed=3) as session:
        weight, bias = session.get(layer.weight), session.get(layer.bias)
    limit = math.sqrt(6 / 100)
    assert np.abs(weight).max() <= limit
    # The variance of 20000 uniform draws is limit**2/3 within 4 standard errors, sqrt(4/5 / 20000) of it each.
    assert abs(weight.var() / (limit**2 / 3) - 1) < 4 * math.sqrt(0.8 / 20000)
    assert not bias.any()


def test_linear_takes_initialiser_and_dtype(device: str) -> None:
    layer = nn.Linear(2, 2, init=graphc.init.constant(0.5), dtype="float64")
    with graphc.Session(device=device) as session:
        weight = session.get(layer.weight)
    assert weight.dtype == np.float64
    assert (weight == 0.5).all()


def test_linear_refuses_what_does_not_fit() -> None:
    with pytest.raises(DTypeError, match="dtype must be float32 or float64, got int32"):
        nn.Linear(2, 2, dtype="int32")
    with pytest.raises(ShapeError, match=r"'head\.weight'.*an extent is at least 0, got -1"):
        nn.Linear(2, -1, name="head")
    with pytest.raises(ShapeError, match=r"(?s)got 5 and 4.*x: .*float32\[\?, 5\].*head\.weight"):
        nn.Linear(4, 2, name="head")(graphc.placeholder((None, 5), name="x"))


def test_sequential_composes_modules_and_functions(device: str) -> None:
    double, shift = nn.Linear(1, 1, bias=False, init=graphc.init.constant(2.0)), nn.ReLU()
    chain = nn.Sequential(double, lambda t: t - 1, shift, nn.tanh)
    assert len(chain) == 4
    assert chain[0] is double
    assert list(chain)[3] is nn.tanh
    x = graphc.placeholder((None, 1))
    found = evaluate(device, chain(x), {x: [[0.0], [1.0]]})
    np.testing.assert_allclose(found, [[0.0], [math.tanh(1.0)]], rtol=4 * EPS)
    assert nn.Sequential()(x) is x


def test_sequential_refuses_what_cannot_be_called() -> None:
    with pytest.raises(TypeError, match=r"part 1 is a int, which cannot be called"):
        nn.Sequential(nn.relu, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"part 0 is a list, which cannot be called; write Sequential\(\*layers\)"):
        nn.Sequential([nn.relu])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"part 1 is the class ReLU, not a layer; write ReLU\(\) to make one"):
        nn.Sequential(nn.Linear(2, 2), nn.ReLU)


def test_activation_modules_are_the_functions(device: str) -> None:
    x = np.array([-2.0, 0.0, 0.5], np.float32)
    for module, function in ((nn.ReLU(), nn.relu), (nn.Tanh(), nn.tanh), (nn.Sigmoid(), nn.sigmoid)):
        placeholder = graphc.placeholder((3,))
        ours, theirs = evaluate(device, [module(placeholder), function(placeholder)], {placeholder: x})
        assert ours.tolist() == theirs.tolist()
        assert module.parameters() == []
    np.testing.assert_allclose(ours, 1 / (1 + np.exp(-x.astype(np.float64))), rtol=8 * EPS)
