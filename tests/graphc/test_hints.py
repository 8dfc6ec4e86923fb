"""Names and words of other libraries: what an error tells of them, and that nothing else notices."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest

import graphc
from graphc import hints, nn, optim
from graphc.errors import UpdateError

X = graphc.placeholder((3,), name="x")
W = graphc.parameter([1.0, 2.0], name="w")


@pytest.mark.parametrize(
    ("owner", "name", "text"),
    [
        (X, "backward", "'Tensor' object has no attribute 'backward'; gradients are values: graphc.gradients("),
        (X, "grad", "graphc.gradients(loss, params)"), (X, "detach", "use the function graphc.stop_gradient"),
        (X, "numpy", "session.run(t, feeds)"), (X, "item", "session.run(t, feeds)"), (X, "size", ".shape"),
        (X, "transpose", "graphc.permute_dims(x, axes)"), (X, "view", "use the function graphc.reshape"),
        (X, "exp", "use the function graphc.exp"), (X, "unsqueeze", "use the function graphc.expand_dims"),
        (optim.SGD(0.1), "step", "'SGD' object has no attribute 'step'; train = minimize(loss) is one step"),
        (optim.Adam(), "zero_grad", "there is nothing to reset"),
        (graphc, "cat", "module 'graphc' has no attribute 'cat'; use the function graphc.concat"),
        (graphc, "concatenate", "graphc.concat"), (graphc, "dot", "graphc.matmul"),
        (graphc, "tensor", "graphc.constant"),
        (graphc, "no_grad", "graphc.gradients asks for gradients"), (graphc, "session", "it is called Session"),
        (nn, "CrossEntropyLoss", "module 'graphc.nn' has no attribute 'CrossEntropyLoss'; use the function "
         "graphc.nn.cross_entropy"),
        (nn, "linear", "it is called Linear"), (optim, "RMSProp", "it is called RMSprop"),
        (optim, "lr_scheduler", "graphc.optim.schedules"),
    ],
)  # fmt: skip
def test_names_of_other_libraries(owner: Any, name: str, text: str) -> None:
    assert not hasattr(owner, name)
    with pytest.raises(AttributeError) as error:
        getattr(owner, name)
    assert text in str(error.value)


@pytest.mark.parametrize("owner", [X, optim.SGD(0.1), graphc, nn, optim])
@pytest.mark.parametrize("name", ["nonsense", "_repr_latex_", "__array_interface__", "__wrapped__"])
def test_other_names_are_missing_as_ever(owner: Any, name: str) -> None:
    """With the owner, from which Python guesses what was meant."""
    with pytest.raises(AttributeError, match=rf"has no attribute '{name}'$") as error:
        getattr(owner, name)
    assert error.value.name == name
    assert error.value.obj is owner


def test_what_the_hints_name_is_there() -> None:
    """Every function, class and method that a hint tells to use."""
    for name in hints.OTHER_NAMES.values():
        assert callable(getattr(graphc, name))
    for table in hints._HINTS.values():
        for text in table.values():
            for word in text.replace("(", " ").replace(":", " ").replace(",", " ").split():
                if word.startswith("graphc."):
                    found: Any = graphc
                    for part in word.rstrip(".").split(".")[1:]:
                        found = getattr(found, part)
    for kind, owner in (("Tensor", X), ("Optimizer", optim.SGD(0.1)), ("graphc", graphc), ("graphc.nn", nn)):
        assert not [name for name in hints._HINTS[kind] if hasattr(owner, name)]


def test_copies_pickles_and_dir() -> None:
    rule = optim.Momentum(0.5, nesterov=True)
    for twin in (copy.copy(rule), copy.deepcopy(rule), pickle.loads(pickle.dumps(rule))):
        assert vars(twin) == vars(rule)
    assert copy.copy(X) is X
    assert copy.deepcopy([X])[0] is X
    with pytest.raises(TypeError, match="a graph is not pickled"):
        pickle.dumps(X)
    assert not hasattr(object.__new__(graphc.Tensor), "node")
    assert {"sum", "shape", "T"} <= set(dir(X))
    assert not {"backward", "cat", "step"} & {*dir(X), *dir(graphc), *dir(rule)}
    with pytest.raises(AttributeError):
        X.sum.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_settings_of_other_libraries() -> None:
    for make in (lambda: optim.SGD([W], 0.1), lambda: optim.Adam([W], lr=0.1), lambda: optim.RMSprop(nn.Linear(2, 2))):
        with pytest.raises(UpdateError, match=r"^\w+: the first argument .*; parameters go to minimize\("):
            make()
    for words, text in (
        ({"lr": 0.1}, r"^Adam: learning_rate= \(not lr=\)"), ({"betas": (0, 0)}, r"^Adam: beta1=, beta2= \(not betas="),
        ({"eps": 0.1}, r"^Adam: epsilon= \(not eps=\)"), ({"params": [W]}, r"^Adam: parameters go to minimize\(loss"),
        ({"nothing": 1}, "unexpected keyword argument 'nothing'"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=text):
            optim.Adam(**words)


def test_optimisers_show_their_settings() -> None:
    assert list(inspect.signature(optim.SGD).parameters)[:2] == ["learning_rate", "weight_decay"]
    assert list(inspect.signature(optim.Adam).parameters)[:2] == ["learning_rate", "beta1"]

    class Mine(optim.Optimizer):
        def __init__(self, lr: float) -> None:
            super().__init__(lr)

    assert Mine(lr=0.5).learning_rate == 0.5
