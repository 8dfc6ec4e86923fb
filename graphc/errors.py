"""Every error a user of graphc can meet, under one base class.

Each class also derives from the built-in a Python programmer would expect for the situation, so that
``except ValueError`` around user code keeps working.
"""

from __future__ import annotations


class GraphcError(Exception):
    """Base of all errors that graphc raises on purpose."""


class ShapeError(GraphcError, ValueError):
    """Shapes, ranks or axes do not fit the operation."""


class DTypeError(GraphcError, TypeError):
    """A dtype is unknown, unsupported by the operation, or would lose the kind of a value."""


class ArgumentError(GraphcError, ValueError):
    """An argument has a value outside what the function takes."""


class SymbolicError(GraphcError, TypeError):
    """A symbolic tensor was used where a number was needed (``if``, ``float``, ``numpy.asarray``)."""


class GradientError(GraphcError, ValueError):
    """A gradient that does not exist was asked for."""


class UpdateError(GraphcError, ValueError):
    """An assignment or a combination of assignments that cannot be carried out."""


class ScopeError(GraphcError, ValueError):
    """A tensor made inside a loop or branch body was used outside it, or an update inside one."""


class FeedError(GraphcError, ValueError):
    """A feed is missing, unknown, or does not fit its placeholder."""


class FetchError(GraphcError, TypeError):
    """Something that is neither a tensor nor an update was fetched, or an unknown name."""


class IndexRangeError(GraphcError, IndexError):
    """An index found in the data, such as a class label, lies outside its axis."""


class NumericsError(GraphcError, FloatingPointError):
    """A NaN or an infinity appeared in a run of a session opened with ``check_numerics=True``."""


class SessionError(GraphcError, RuntimeError):
    """The session is closed, or cannot be used from here (for example after ``fork``)."""


class DeviceError(GraphcError, RuntimeError):
    """The device asked for is unknown or not usable; the message says what is missing."""


class CheckpointError(GraphcError, ValueError):
    """A checkpoint cannot be read or does not fit; nothing was changed."""


class DataError(GraphcError, ValueError):
    """Data given to a helper (arrays to batch, files to read) is malformed."""


class CompilerError(GraphcError, RuntimeError):
    """The compiler broke one of its own rules; always a bug in graphc or in a user-supplied pass."""


class PrecisionWarning(UserWarning):
    """A float64 result came out of a float32 operand."""
