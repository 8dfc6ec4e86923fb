"""What a compilation may be told. One frozen value, passed down; there are no global flags."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class CompileOptions:
    """``verify`` checks the graph after every pass; ``dump`` is a folder (or "-" for the log) that receives the
    graph after every pass.
    """

    verify: bool = False
    dump: str | None = None

    @staticmethod
    def from_environment() -> CompileOptions:
        """``GRAPHC_VERIFY=1`` and ``GRAPHC_DUMP=folder``."""
        return CompileOptions(
            verify=os.environ.get("GRAPHC_VERIFY", "") not in ("", "0"), dump=os.environ.get("GRAPHC_DUMP") or None
        )
