"""How wide text is, on the safe side: the reader's fonts are not known, so widths are those of wide ones."""

from __future__ import annotations

TITLE, TYPE = 12.5, 10.5
TITLE_SMALL, TYPE_SMALL = 10.5, 9.0
PAD = 9.0
SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
MONO = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"
_NARROW = frozenset("iljtfrI.,:;|!'()[] -·/\\\"*_`")
_WIDE = frozenset("mwMW@%+=<>~&#^")


def sans_width(text: str, size: float) -> float:
    """Width of semibold text, by the widths of DejaVu Sans Bold rounded up, one of the widest text fonts."""
    return size * sum(map(_advance, text))


def _advance(character: str) -> float:
    if character in _NARROW:
        return 0.54
    if character in _WIDE or character > "\x7f":
        return 1.12  # other scripts: as wide as their widest letters
    return 0.86 if character.isupper() else 0.72


def mono_width(text: str, size: float) -> float:
    """Width of fixed-width text: 0.6 em a character in all common fonts, a whole em for ideographs."""
    return size * sum(0.615 if character <= "\u2e7f" else 1.12 for character in text)


def shortened(text: str, limit: int) -> str:
    """``text`` in one line of at most ``limit`` characters, cut in the middle; the whole of it is in the tooltip."""
    text = "".join(c if c.isprintable() else " " for c in text)
    if len(text) <= limit:
        return text
    head = (limit - 1) * 2 // 3
    return f"{text[:head]}…{text[-(limit - 1 - head) :]}"
