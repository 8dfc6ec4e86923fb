"""IDX, the file format of MNIST."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from typing import Any

import numpy as np

from graphc.errors import DataError

Array = np.ndarray[Any, Any]

_IDX_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | os.PathLike[str]) -> Array:
    """The array in an IDX file (the format of MNIST and Fashion-MNIST), gzipped or not, in native byte order.

    Layout: two zero bytes, a dtype code, the number of axes, each extent as a big-endian uint32, the elements
    big-endian in C order (Y. LeCun, C. Cortes, "The MNIST database"). Raises ``DataError`` for a file that is
    truncated, too long or something else, and ``OSError`` when it cannot be opened.
    """
    with open(path, "rb") as file:
        data = file.read()
    if data.startswith(_GZIP_MAGIC):
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(f"{path}: damaged or truncated gzip file: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_DTYPES or not data[3]:
        codes = ", ".join(f"{code:02x}" for code in _IDX_DTYPES)
        raise DataError(
            f"{path}: not an IDX file: expected 00 00, a dtype code ({codes}) and the number of axes, "
            f"found {data[:4].hex(' ') or 'an empty file'}"
        )
    dtype, rank = np.dtype(_IDX_DTYPES[data[2]]), data[3]
    start = 4 + 4 * rank
    if len(data) < start:
        raise DataError(f"{path}: truncated: a header of {rank} axes takes {start} bytes, found {len(data)}")
    shape = struct.unpack(f">{rank}I", data[4:start])
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - start != expected:
        problem = "truncated" if len(data) - start < expected else "too long"
        raise DataError(
            f"{path}: {problem}: shape {shape} of {dtype.newbyteorder('=')} takes {expected} bytes, "
            f"found {len(data) - start}"
        )
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))
