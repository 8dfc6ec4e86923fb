"""What a compilation may be told. One frozen value, passed down; there are no global flags."""

from __future__ import annotations

import os
from dataclasses import dataclass

from graphc.errors import SessionError


@dataclass(frozen=True)
class CompileOptions:
    """``verify`` checks the graph after every pass, and the lowered program; ``dump`` is a folder (or "-" for the log)
    that receives the graph after every pass; ``debug`` runs the reference after every pass on the feeds of a run.
    """

    verify: bool = False
    dump: str | None = None
    debug: bool = False

    @staticmethod
    def from_environment() -> CompileOptions:
        """``GRAPHC_VERIFY=1``, ``GRAPHC_DUMP=folder`` and ``GRAPHC_DEBUG=passes``, which verifies as well.

        ``SessionError`` for another value of ``GRAPHC_DEBUG``.
        """
        asked = os.environ.get("GRAPHC_DEBUG", "")
        if asked not in ("", "passes"):
            raise SessionError(f"GRAPHC_DEBUG={asked} is not known; use GRAPHC_DEBUG=passes, or leave it unset")
        return CompileOptions(
            verify=os.environ.get("GRAPHC_VERIFY", "") not in ("", "0") or bool(asked),
            dump=os.environ.get("GRAPHC_DUMP") or None,
            debug=asked == "passes",
        )
