"""Layers: modules with a fixed meaning."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from graphc import init as initializers
from graphc.dtypes import DTypeLike
from graphc.init import Initializer
from graphc.nn.functional import check_probability, dropout, embedding
from graphc.nn.module import Module, check_float, layer_name
from graphc.node import Tensor
from graphc.ops import matmul
from graphc.state import parameter


class Linear(Module):
    """``x @ weight + bias``: (..., in_features) to (..., out_features).

    ``weight`` has shape (in_features, out_features) and is drawn by ``init``, by default ``graphc.init.he_uniform()``:
    uniform with variance ``2 / in_features``, which suits ReLU (K. He et al., ICCV 2015). ``bias`` has shape
    (out_features,), starts at 0, and is None with ``bias=False``. Both have the float ``dtype`` and are named
    ``<name>.weight`` and ``<name>.bias``; without ``name`` layers are numbered: ``linear_1``, ``linear_2``, ...

    Raises ``ShapeError`` for features that are not numbers and for an input whose last extent is known to differ, and
    ``DTypeError`` for a dtype that is not float.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        init: Initializer | None = None,
        dtype: DTypeLike = "float32",
        name: str | None = None,
    ) -> None:
        check_float(dtype, "Linear")
        self.in_features = in_features
        self.out_features = out_features
        name = layer_name(self, name)
        shape = (in_features, out_features)
        self.weight = parameter(init or initializers.he_uniform(), shape, dtype, f"{name}.weight")
        self.bias = parameter(initializers.zeros(), (out_features,), dtype, f"{name}.bias") if bias else None

    def forward(self, x: Any) -> Tensor:
        product = matmul(x, self.weight)
        return product if self.bias is None else product + self.bias

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Sequential(Module):
    """Modules, or plain functions such as ``graphc.nn.relu``, applied one after the other.

    ``Sequential(Linear(4, 3), relu)``; its parts are named by position (``"0.weight"``), and ``len``, indexing and
    iteration give them back. Without parts it returns its input. Raises ``TypeError`` for a part that cannot be
    called.
    """

    def __init__(self, *layers: Callable[[Any], Any]) -> None:
        for position, layer in enumerate(layers):
            if isinstance(layer, type):
                raise TypeError(
                    f"Sequential: part {position} is the class {layer.__name__}, not a layer; "
                    f"write {layer.__name__}() to make one"
                )
            if not callable(layer):
                hint = "; write Sequential(*layers)" if isinstance(layer, (list, tuple)) else ""
                kind = type(layer).__name__
                raise TypeError(f"Sequential: part {position} is a {kind}, which cannot be called{hint}")
        self._layers = layers

    def forward(self, x: Any) -> Any:
        for layer in self._layers:
            x = layer(x)
        return x

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Callable[[Any], Any]]:
        return iter(self._layers)

    def __getitem__(self, position: int) -> Callable[[Any], Any]:
        return self._layers[position]

    def _members(self) -> Iterable[tuple[str, Any]]:
        named = [(str(position), layer) for position, layer in enumerate(self._layers)]
        return [*named, *((name, value) for name, value in vars(self).items() if name != "_layers")]


class Dropout(Module):
    """While learning, each element is 0 with probability ``p``, and the others are divided by ``1 - p``; when
    predicting, nothing changes (N. Srivastava et al., JMLR 15, 2014).

    ``training=`` in the call of the model says which. ``seed`` fixes the stream of random numbers, as in
    ``graphc.random``. Raises ``ArgumentError`` for p outside 0 to 1.
    """

    def __init__(self, p: float = 0.5, *, seed: int | None = None) -> None:
        check_probability(p, "Dropout")
        self.p = p
        self.seed = seed

    def forward(self, x: Any) -> Tensor:
        return dropout(x, self.p, self.training, seed=self.seed)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Embedding(Module):
    """Rows of a table: integers of any shape to vectors of ``features`` along a new last axis.

    ``weight`` has shape (rows, features) and is drawn by ``init``, by default ``graphc.init.normal()``. A run with an
    index out of range raises ``IndexRangeError``. Raises ``DTypeError`` for a dtype that is not float.
    """

    def __init__(
        self, rows: int, features: int, *, init: Initializer | None = None, dtype: DTypeLike = "float32",
        name: str | None = None,
    ) -> None:  # fmt: skip
        check_float(dtype, "Embedding")
        self.rows = rows
        self.features = features
        shape = (rows, features)
        self.weight = parameter(init or initializers.normal(), shape, dtype, f"{layer_name(self, name)}.weight")

    def forward(self, indices: Any) -> Tensor:
        return embedding(indices, self.weight)

    def extra_repr(self) -> str:
        return f"rows={self.rows}, features={self.features}"
