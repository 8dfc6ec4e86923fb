"""Python objects as arguments of compiled functions: by their address, without making an integer of it first."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import NativeValue, intrinsic, models, register_model, unbox

_I64 = ir.IntType(64)


class _Object(types.Type):  # type: ignore[misc]  # Numba has no types of its own
    def __init__(self) -> None:
        super().__init__(name="graphc_object")


object_type = _Object()


@register_model(_Object)
class _Model(models.PrimitiveModel):  # type: ignore[misc]  # nor for these
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _I64)


@unbox(_Object)
def _unbox(kind: Any, value: Any, context: Any) -> Any:
    return NativeValue(context.builder.ptrtoint(value, _I64))


@intrinsic
def address_of_object(typing_context: Any, value: Any) -> Any:
    """Where an object is, that whoever calls the compiled function keeps alive."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return args[0]

    return types.int64(object_type), codegen
