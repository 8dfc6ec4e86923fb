"""What this installation of graphc runs on."""

from __future__ import annotations
