"""What a process of workers.py does: compile kernels, whose sources lie in the cache, into the cache.

Names come through standard input, which stays open: its end is the end of the process that wants the kernels, and of
this one. Before a kernel is compiled, its name goes to standard output. Kernels that another process compiles are
passed over, and whatever fails is left to the other side, which says what is wrong.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading


def main() -> None:
    """Compile the kernels whose names come in, the first first. Does not return."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the other side ends this
    line: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(line,), daemon=True).start()
    sys.modules["scipy"] = None  # type: ignore[assignment]  # Numba would load its BLAS, for functions of its own
    try:
        from runtime.cpu import kernel_files, machine_code  # Numba, while the names are on their way

        for name in line.get().split():
            path = kernel_files.path_of(name)
            if kernel_files.machine_code(path):
                continue
            with kernel_files.locked(path, patience=0.0) as free:
                if free and not kernel_files.machine_code(path):
                    os.write(1, f"{name}\n".encode())
                    machine_code.built(name, path, machine_code.build_kernel)
    finally:
        os._exit(0)


def _listen(line: queue.SimpleQueue[str]) -> None:
    received = b""
    while part := os.read(0, 65536):
        received += part
        if received.endswith(b"\n"):
            line.put(received.decode())
    os._exit(0)
