"""Whether a copy of MKL works. MKL ends the process that calls it when one of its files is missing or damaged, so this
file is also a program, with nothing but the standard library: ``python mkl_probe.py libmkl_rt`` tries it out.
"""

from __future__ import annotations

import ctypes
import sys

LP64 = "its interface takes 64-bit integers (MKL_INTERFACE_LAYER), and graphc's calls have 32-bit ones"


def fault(path: str) -> str:
    """What is wrong with the library at ``path``; "" if it multiplies matrices. ``OSError`` or ``AttributeError`` where
    it cannot be loaded or lacks a function.
    """
    library = ctypes.CDLL(path)
    before = library.MKL_Set_Num_Threads_Local(1)
    try:
        return _fault(library)
    finally:
        library.MKL_Set_Num_Threads_Local(before)


def version(path: str) -> str:
    """The version that the library at ``path`` says it is."""
    text = ctypes.create_string_buffer(256)
    ctypes.CDLL(path).MKL_Get_Version_String(text, len(text) - 1)
    words = text.value.decode(errors="replace").split()
    return words[words.index("Version") + 1].partition("-")[0] if "Version" in words[:-1] else " ".join(words)


def _fault(library: ctypes.CDLL) -> str:
    value = ctypes.c_float(3.0)
    count = ctypes.c_int64(-(2**63) + 1)  # a negative number, whose lower half is 1
    library.sscal_(ctypes.byref(count), ctypes.byref(ctypes.c_float(2.0)), ctypes.byref(value), ctypes.byref(count))
    if value.value != 6.0:
        return LP64
    for name, real in (("sgemm_", ctypes.c_float), ("dgemm_", ctypes.c_double)):
        a, b, c = (real * 4)(1, 2, 3, 4), (real * 4)(5, 6, 7, 8), (real * 4)()
        two, one, zero = (ctypes.byref(v) for v in (ctypes.c_int32(2), real(1), real(0)))
        getattr(library, name)(b"N", b"N", two, two, two, one, a, two, b, two, zero, c, two)
        if list(c) != [23, 34, 31, 46]:
            return f"its {name} multiplies wrongly: {list(c)}"
    return ""


if __name__ == "__main__":
    found = fault(sys.argv[1])
    if found:
        sys.exit(found)
