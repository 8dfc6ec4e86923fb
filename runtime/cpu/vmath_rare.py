"""A branch in a loop that is vectorised, for what few arguments need.

LLVM's loop vectoriser turns branches into selects, so that every element would pay for the rare ones. But it widens
the call of a function that has vector forms, one for each number of lanes ("vector-function-abi-variant" in the LLVM
Language Reference). Here a form asks whether any of its lanes is rare, and if none is returns what it was given. Numba
runs LLVM's passes twice, and the second time puts the form in the place of its call. A lane gets the same bits whatever
the others hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from runtime.cpu._vmath_tables import FLOAT32
from runtime.cpu.vmath_emitter import Emitter

LANES = (2, 4, 8)
_I1, _I64 = ir.IntType(1), ir.IntType(64)

Emit = Callable[[Emitter, Any], Any]


def beyond(e: Emitter, name: str, limit: float, x: Any, value: Any, emit: Emit) -> Any:
    """``value``, but ``emit(e, x)`` where |x| >= ``limit``. Of one ``name`` all uses have the same limit and rule.

    ``emit`` may load from constant tables, and is not asked about other x.
    """
    module = e.ir.module
    stem = f"graphc_{name}_{'f32' if e.fmt is FLOAT32 else 'f64'}"
    forms = {lanes: f"{stem}_{lanes}" for lanes in LANES}
    if stem not in module.globals:
        each = _each(e, f"{stem}_each", limit, emit)
        _form(e, stem, 0, limit, each).attributes.add("noinline")  # it would be gone before loops are vectorised
        wide = [_form(e, form, lanes, limit, each) for lanes, form in forms.items()]
        for form in wide:
            form.attributes.add("alwaysinline")
        _keep(module, wide)
    call = e.ir.call(module.globals[stem], [x, value])
    named = ",".join(f"_ZGV_LLVM_N{lanes}vv_{stem}({form})" for lanes, form in forms.items())
    _attribute(call, f'"vector-function-abi-variant"="{named}"')
    return call


def _attribute(of: Any, *texts: str) -> None:
    """Add attributes that llvmlite does not know by name."""
    for text in texts:
        set.add(of.attributes, text)


def _form(e: Emitter, name: str, lanes: int, limit: float, each: Any) -> Any:
    """The function of x and value for vectors of so many lanes, or for scalars when there are none."""
    kind = ir.VectorType(e.float_type, lanes) if lanes else e.float_type
    function = ir.Function(e.ir.module, ir.FunctionType(kind, [kind, kind]), name)
    function.linkage = "internal"
    _attribute(function, "nounwind", "readnone", "speculatable", "willreturn")
    entry, rare, common = (ir.IRBuilder(function.append_basic_block(label)) for label in ("entry", "rare", "common"))
    x, value = function.args
    entry.cbranch(_any_beyond(entry, x, limit), rare.block, common.block)
    common.ret(value)
    places = [rare.alloca(kind), rare.alloca(kind)]
    for operand, place in zip((x, value), places, strict=True):
        rare.store(operand, place)
    first = [rare.bitcast(place, e.float_type.as_pointer()) for place in places]
    rare.call(each, [*first, ir.Constant(_I64, lanes or 1)])
    rare.ret(rare.load(places[1]))
    return function


def _each(e: Emitter, name: str, limit: float, emit: Emit) -> Any:
    """A function that replaces those of ``count`` values whose x is rare."""
    pointer = e.float_type.as_pointer()
    function = ir.Function(e.ir.module, ir.FunctionType(ir.VoidType(), [pointer, pointer, _I64]), name)
    function.linkage = "internal"
    _attribute(function, "cold", "noinline", "nounwind", "optsize")
    given, values, count = function.args
    for argument in (given, values):
        argument.add_attribute("noalias")
    labels = ("entry", "loop", "rare", "next", "done")
    entry, loop, rare, after, done = (ir.IRBuilder(function.append_basic_block(label)) for label in labels)
    entry.branch(loop.block)
    lane = loop.phi(_I64)
    x = loop.load(loop.gep(given, [lane]))
    loop.cbranch(_any_beyond(loop, x, limit), rare.block, after.block)
    rare.store(emit(Emitter(rare, e.fmt), x), rare.gep(values, [lane]))
    rare.branch(after.block)
    following = after.add(lane, ir.Constant(_I64, 1))
    after.cbranch(after.icmp_unsigned("<", following, count), loop.block, done.block)
    lane.add_incoming(ir.Constant(_I64, 0), entry.block)
    lane.add_incoming(following, after.block)
    done.ret_void()
    return function


def _any_beyond(builder: Any, x: Any, limit: float) -> Any:
    """Whether |x| >= limit, in any lane of a vector; false for NaN."""
    kind, scalar = x.type, not isinstance(x.type, ir.VectorType)
    suffix = kind.intrinsic_name if scalar else f"v{kind.count}{kind.element.intrinsic_name}"
    a = builder.call(_declared(builder, f"llvm.fabs.{suffix}", kind, kind), [x])
    found = builder.fcmp_ordered(">=", a, ir.Constant(kind, limit if scalar else [limit] * kind.count))
    if scalar:
        return found
    reduction = f"llvm.vector.reduce.or.v{kind.count}i1"
    return builder.call(_declared(builder, reduction, _I1, ir.VectorType(_I1, kind.count)), [found])


def _declared(builder: Any, name: str, result: Any, operand: Any) -> Any:
    """An intrinsic of vectors, whose names `declare_intrinsic` cannot form."""
    module = builder.module
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, [operand]), name)


def _keep(module: Any, functions: list[Any]) -> None:
    """Have LLVM keep functions that nothing calls yet."""
    name, pointer = "llvm.compiler.used", ir.IntType(8).as_pointer()
    used = module.globals.get(name)
    kept = [*(used.initializer.constant if used else ()), *(f.bitcast(pointer) for f in functions)]
    kind = ir.ArrayType(pointer, len(kept))
    used = used or ir.GlobalVariable(module, kind, name)
    used.linkage, used.section = "appending", "llvm.metadata"
    used.type, used.value_type, used.initializer = kind.as_pointer(), kind, ir.Constant(kind, kept)
