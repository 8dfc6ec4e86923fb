"""What a session keeps between runs: values of parameters, keys of random streams, the run counter; and its files."""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from graphc.errors import CheckpointError, SessionError
from graphc.node import Tensor
from graphc.ops.philox import RANDOM_KEY, RUN_COUNTER, stream_key
from graphc.state import PARAMETER
from runtime.feeds import convert

Array = np.ndarray[Any, Any]
_ALIGNMENT = 64
_RUNS = "graphc.run_counter"
STATE = {PARAMETER, RANDOM_KEY, RUN_COUNTER}  # the leaves whose values are found here


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An uninitialised array whose data starts on a 64-byte boundary."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def _word(value: int) -> Array:
    """A 64-bit number in memory of its own."""
    array = aligned_empty((), np.dtype(np.uint64))
    array[...] = value
    return array


def write_together(targets: Sequence[Array], values: Sequence[Array]) -> None:
    """Write each value into its array, in one loop without Python bytecode: no signal's handler runs in between."""
    deque(map(np.ndarray.__setitem__, targets, itertools.repeat(...), values), maxlen=0)


class ParameterStore:
    """Holds one array per parameter and per key of a random stream, and the run counter, at addresses that never
    change.

    A parameter's first value comes from an entry of a loaded file that waits for its name, or from its initialiser,
    drawn from the session's seed and the parameter's place among those the session has met. A key comes from the seed
    and its stream; streams that the graph does not number are numbered as they are met.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._arrays: dict[Tensor, Array] = {}
        self._names: dict[str, Tensor] = {}
        self._waiting: dict[str, Array] = {}
        self._keys: dict[Tensor, Array] = {}
        self._streams = 0
        self.counter = _word(0)  # runs with updates that ended well; programs count in it
        self.cancel = _word(0)  # what programs look at between repeated steps: 1 asks them to stop

    def __iter__(self) -> Iterable[Tensor]:
        return iter(self._arrays)

    @property
    def run_counter(self) -> int:
        """How many runs with updates have ended well."""
        return int(self.counter)

    @run_counter.setter
    def run_counter(self, runs: int) -> None:
        self.counter[...] = runs

    def meet(self, leaves: Iterable[Tensor]) -> None:
        """Give every new parameter its first value and every new key its stream, in order of creation; nothing is kept
        if one of them fails.
        """
        ordered = sorted(leaves, key=lambda t: t.node.serial)
        self._meet_parameters(t for t in ordered if t.node.op is PARAMETER)
        for key in ordered:
            if key.node.op is RANDOM_KEY and key not in self._keys:
                seed = key.node.attrs["seed"]
                stream = self._streams if seed is None else seed
                self._keys[key] = _word(stream_key(self._seed, stream, explicit=seed is not None))
                self._streams += seed is None

    def _meet_parameters(self, parameters: Iterable[Tensor]) -> None:
        new = [p for p in parameters if p not in self._arrays]
        names = dict(self._names)
        arrays: dict[Tensor, Array] = {}
        for offset, parameter in enumerate(new):
            name = parameter.node.name
            if name is not None:
                self._claim(names, name, parameter)
            arrays[parameter] = self._first_value(parameter, len(self._arrays) + offset)
        self._names = names
        self._arrays.update(arrays)
        for parameter in new:
            self._waiting.pop(parameter.name, None)

    @staticmethod
    def _claim(names: dict[str, Tensor], name: str, parameter: Tensor) -> None:
        other = names.setdefault(name, parameter)
        if other is not parameter:
            raise SessionError(
                f"two parameters are named {name!r}:\n    {other.describe()}\n    {parameter.describe()}\n"
                f"  give one of them another name="
            )

    def _first_value(self, parameter: Tensor, stream: int) -> Array:
        shape = tuple(int(e) for e in parameter.shape)
        array = aligned_empty(shape, parameter.dtype)
        waiting = self._waiting.get(parameter.name)
        initial = parameter.node.attrs["initial"]
        if waiting is not None:
            _check_entry(parameter.name, waiting, parameter, "the loaded file")
            array[...] = waiting
        elif isinstance(initial, np.ndarray):
            array[...] = initial
        else:
            rng = np.random.Generator(np.random.Philox(key=[self._seed, stream]))
            try:
                drawn = np.asarray(initial(shape, parameter.dtype, rng))
            except Exception as error:
                raise SessionError(f"the initialiser of {parameter.describe()} failed: {error}") from error
            if drawn.shape != shape:
                raise SessionError(
                    f"the initialiser of {parameter.describe()} returned shape {drawn.shape}, expected {shape}"
                )
            array[...] = drawn
        return array

    def array(self, leaf: Tensor) -> Array:
        """The array that holds the value of a leaf of STATE: internal, changed by runs."""
        if leaf.node.op is RUN_COUNTER:
            return self.counter
        return self._arrays[leaf] if leaf.node.op is PARAMETER else self._keys[leaf]

    def find(self, parameter: Tensor | str, what: str) -> Tensor:
        """The parameter itself, or the one of that name, for ``what``; it is given its first value if the session has
        not met it.
        """
        if isinstance(parameter, str):
            found = self._names.get(parameter)
            if found is None:
                known = ", ".join(sorted(self._names)) or "none with a name"
                raise SessionError(f"{what}: this session has met no parameter named {parameter!r}; it knows: {known}")
            return found
        if not isinstance(parameter, Tensor) or parameter.node.op is not PARAMETER:
            shown = parameter.describe() if isinstance(parameter, Tensor) else repr(parameter)
            raise SessionError(f"{what}: expected a parameter or its name, got {shown}")
        self.meet([parameter])
        return parameter

    def set(self, parameter: Tensor | str, value: Any) -> None:
        """Replace a value; ``FeedError`` if shape or kind does not fit."""
        target = self.find(parameter, "set")
        self._arrays[target][...] = convert(value, target, f"parameter {target.name!r}")

    # Files.

    def _by_name(self) -> dict[str, Tensor]:
        """Every named parameter held."""
        return {p.name: p for p in self._arrays if p.node.name is not None}

    def save(self, path: str | os.PathLike[str], chosen: Mapping[str, Tensor] | None = None) -> None:
        """Write ``chosen`` (or everything held, what waits included) as safetensors, atomically: the old file or the
        new one, never a part.
        """
        waiting: Mapping[str, Array] = {}
        if chosen is None:
            refuse_unnamed(self._arrays)
            chosen, waiting = self._by_name(), self._waiting
        else:
            self.meet(chosen.values())
        entries = {**waiting, **{name: np.array(self._arrays[p], order="C") for name, p in chosen.items()}}
        data = safetensors.numpy.save(entries, metadata={"format": "graphc", _RUNS: str(self.run_counter)})
        _write_atomically(path, data)

    def load(
        self, path: str | os.PathLike[str], names: Mapping[str, Tensor] | None = None, *, strict: bool = True
    ) -> None:
        """Restore by name. Entries for parameters not met yet wait for them. On any error nothing has changed."""
        entries, metadata = _read(path)
        known = dict(names) if names is not None else self._by_name()
        missing = sorted(set(known) - set(entries))
        if strict and missing:
            raise CheckpointError(
                f"{path} lacks {len(missing)} parameter(s) this session holds: {', '.join(missing[:8])}; "
                f"it has: {', '.join(sorted(entries)[:8]) or 'nothing'}; strict=False keeps their present values"
            )
        for name, array in entries.items():
            if name in known:
                _check_entry(name, array, known[name], str(path))
        self.meet(known.values())
        for name, array in entries.items():
            if name in known:
                self._arrays[known[name]][...] = array
            elif names is None:
                self._waiting[name] = array
        counter = metadata.get(_RUNS, "")
        if names is None and re.fullmatch("[0-9]{1,18}", counter):
            self.run_counter = int(counter)


def refuse_unnamed(parameters: Iterable[Tensor]) -> None:
    """``SessionError`` for parameters that a file could not name: the next graph would not find them again."""
    unnamed = [p for p in parameters if p.node.name is None]
    if unnamed:
        lines = "".join(f"\n    {p.describe()}" for p in unnamed[:8])
        raise SessionError(
            f"{len(unnamed)} parameter(s) cannot be saved, because they have no name to be found by again:{lines}\n"
            f"  give each one name=, or save(path, params=...) those that matter"
        )


def _check_entry(name: str, array: Array, parameter: Tensor, source: str) -> None:
    if array.shape != tuple(parameter.shape) or array.dtype != parameter.dtype:
        raise CheckpointError(
            f"{source}: entry {name!r} is {array.dtype}{list(array.shape)}, and the parameter is "
            f"{parameter.describe()}; nothing was changed"
        )


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"no checkpoint at {path}") from error
    except Exception as error:  # the reader's own error types differ by version; all mean an unreadable file
        raise CheckpointError(f"{path} is not a readable safetensors file ({error}); nothing was changed") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path):
        raise CheckpointError(f"{path} is a folder; give the name of a file")
    try:
        os.makedirs(folder, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".graphc-", suffix=".tmp")
    except OSError as error:
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
