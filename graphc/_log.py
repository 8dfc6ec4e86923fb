"""The library's logger: silent unless asked. ``GRAPHC_LOG=debug`` (info, warning, error) writes to standard error."""

from __future__ import annotations

import logging
import os


def configure() -> None:
    """Attach a handler to the ``graphc`` logger when the environment asks for one; warnings reach Python's default."""
    level = os.environ.get("GRAPHC_LOG", "").upper()
    if not level:
        return
    logger = logging.getLogger("graphc")
    if level not in logging.getLevelNamesMapping():
        logger.warning("GRAPHC_LOG=%s is not a level; use debug, info, warning or error", level)
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level)
