"""Names that other libraries have and graphc has not, and what to write instead: what an ``AttributeError`` tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# Functions, by the names of NumPy and PyTorch, and graphc's, which are those of the Array API standard.
OTHER_NAMES: Mapping[str, str] = {
    "absolute": "abs", "amax": "max", "amin": "min", "arccos": "acos", "arcsin": "asin", "arctan": "atan",
    "arctan2": "atan2", "bmm": "matmul", "cat": "concat", "concatenate": "concat", "cumprod": "cumulative_prod",
    "cumsum": "cumulative_sum", "detach": "stop_gradient", "div": "divide", "dot": "matmul", "eq": "equal",
    "expand": "broadcast_to", "flatten": "reshape", "gather": "take_along_axis", "ge": "greater_equal",
    "gt": "greater", "le": "less_equal", "lt": "less", "masked_fill": "where", "mm": "matmul",
    "mod": "remainder", "mul": "multiply", "ne": "not_equal", "neg": "negative", "permute": "permute_dims",
    "power": "pow", "ravel": "reshape", "sub": "subtract", "swapaxes": "permute_dims", "transpose": "permute_dims",
    "true_divide": "divide", "unsqueeze": "expand_dims", "view": "reshape", "vstack": "concat", "hstack": "concat",
}  # fmt: skip

_NO_VALUE = "a tensor has no value until a session runs it: session.run(t, feeds)"
_NO_TAPE = "gradients are values: graphc.gradients(loss, params)"
_DTYPE = "a dtype is written as NumPy's, or by its name: dtype='float32'"
_ARRAY = "graphc.constant for a value in the graph, graphc.parameter for one that a session keeps"
_DEVICE = "a session has the device: graphc.Session(device='cpu')"

_TENSOR = {
    "backward": _NO_TAPE, "grad": _NO_TAPE, "requires_grad": _NO_TAPE,
    "numpy": _NO_VALUE, "item": _NO_VALUE, "tolist": _NO_VALUE, "data": _NO_VALUE, "eval": _NO_VALUE,
    "size": "the extents are in .shape; their product is the number of elements",
    "numel": "the extents are in .shape; their product is the number of elements",
    "dim": ".ndim is the number of axes",
    "t": ".T has all axes reversed, .mT the last two exchanged",
    "transpose": "graphc.permute_dims(x, axes); .T has all axes reversed",
    "clone": "a tensor is a value, which nothing changes: use it as often as you like",
    "copy": "a tensor is a value, which nothing changes: use it as often as you like",
    "float": "convert with .astype('float32')", "long": "convert with .astype('int64')",
    "to": "convert with .astype(dtype); " + _DEVICE, "cpu": _DEVICE, "cuda": _DEVICE, "device": _DEVICE,
    "assign": "graphc.assign(p, value) is an update, to be fetched",
}  # fmt: skip

_GRAPHC = {
    "tensor": _ARRAY, "array": _ARRAY, "asarray": _ARRAY, "Variable": _ARRAY,
    "no_grad": "nothing is recorded: graphc.gradients asks for gradients, and graphc.stop_gradient ends a path",
    "function": "a graph is written once and compiled: session.compile(fetches)",
    "compile": "a session compiles: graphc.Session().compile(fetches)",
    "jit": "a session compiles: graphc.Session().compile(fetches)",
    "grad": _NO_TAPE, "float32": _DTYPE, "float64": _DTYPE, "int32": _DTYPE, "int64": _DTYPE, "bool": _DTYPE,
    "rand": "graphc.random.uniform(shape)", "randn": "graphc.random.normal(shape)",
    "save": "Session.save(path)", "load": "Session.load(path)", "device": _DEVICE, "cuda": _DEVICE,
}  # fmt: skip

_NN = {
    "BCELoss": "use the function graphc.nn.binary_cross_entropy",
    "BCEWithLogitsLoss": "use the function graphc.nn.binary_cross_entropy_with_logits",
    "BatchNorm1d": "graphc.nn.BatchNorm", "BatchNorm2d": "graphc.nn.BatchNorm",
    "CrossEntropyLoss": "use the function graphc.nn.cross_entropy",
    "HuberLoss": "use the function graphc.nn.huber_loss", "KLDivLoss": "use the function graphc.nn.kl_div",
    "L1Loss": "use the function graphc.nn.l1_loss", "MSELoss": "use the function graphc.nn.mse_loss",
    "ModuleList": "a plain list: modules in it are found", "ModuleDict": "a plain dict: modules in it are found",
    "NLLLoss": "use the function graphc.nn.nll_loss", "Parameter": "use the function graphc.parameter",
    "SmoothL1Loss": "use the function graphc.nn.smooth_l1_loss", "one_hot": "use the function graphc.one_hot",
    "Flatten": "the method x.reshape((x.shape[0], -1))",
}  # fmt: skip

_OPTIM = {
    "lr_scheduler": "schedules are learning rates: graphc.optim.schedules",
    "clip_grad_norm_": "clip_norm= of every optimiser, or graphc.optim.clip_by_norm",
}

_OPTIMIZER = {
    "step": "train = minimize(loss) is one step: fetch it in every run",
    "zero_grad": "gradients are values, made anew in every run: there is nothing to reset",
    "param_groups": "minimize(loss, params) serves some parameters; one optimiser for each group",
    "state_dict": "slots are parameters: Session.save(path) writes them with the rest",
    "load_state_dict": "slots are parameters: Session.load(path) restores them with the rest",
    "apply_gradients": "apply(grads_and_params)",
}

_HINTS: Mapping[str, Mapping[str, str]] = {
    "Tensor": _TENSOR, "Optimizer": _OPTIMIZER, "graphc": _GRAPHC, "graphc.nn": _NN, "graphc.optim": _OPTIM,
}  # fmt: skip

# Settings of optimisers, as PyTorch calls them.
SETTINGS: Mapping[str, str] = {
    "lr": "learning_rate=", "betas": "beta1=, beta2=", "eps": "epsilon=",
    "params": "parameters go to minimize(loss, params)",
}  # fmt: skip


def missing(owner: object, kind: str, name: str, known: Iterable[str] = ()) -> AttributeError:
    """The error for attribute ``name`` that ``owner``, of the ``kind`` of a table above, has not; ``known`` are names
    that it has, of which one may differ by its capitals alone.
    """
    what = f"module {kind!r}" if kind.startswith("graphc") else f"{type(owner).__name__!r} object"
    text = f"{what} has no attribute {name!r}"
    hint = "" if name.startswith("_") else _HINTS[kind].get(name) or _named_otherwise(kind, name, known)
    # Python guesses at a name by its letters where it is told the owner, which could contradict the hint.
    return AttributeError(f"{text}; {hint}") if hint else AttributeError(text, name=name, obj=owner)


def _named_otherwise(kind: str, name: str, known: Iterable[str]) -> str:
    import graphc

    for other in known:
        if other.lower() == name.lower():
            return f"it is called {other}"
    function = OTHER_NAMES.get(name, name)
    found = kind in ("Tensor", "graphc") and function in graphc.__all__ and callable(getattr(graphc, function))
    return f"use the function graphc.{function}" if found else ""
