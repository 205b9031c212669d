"""Broken encodings in texts: UTF-8 that was read as Latin-1, characters that were lost, control characters."""

import re

LOST = "\ufffd"
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f]|\x85(?=\S)")
"""Control characters that no text needs; tab, line feed, form feed, carriage return and a lone next-line are left alone."""
_MISREAD = re.compile(r"[\u00c2-\u00f4](?:[\u0080-\u00bf]|[€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ])+")
"""A lead byte of UTF-8 and what follows it, as Latin-1 or Windows-1252 shows them: Ã© for é, â€™ for ’."""


def kinds(text: str) -> list[str]:
    """What is broken in a text: `mojibake`, `lost_characters`, `control_characters`."""
    if text.isascii() and text.isprintable():
        return []
    reread = text if text.isascii() else _misread(text)
    broken = {
        "mojibake": reread != text,
        "lost_characters": LOST in reread,
        "control_characters": _CONTROL.search(reread) is not None,
    }
    return [kind for kind, true in broken.items() if true]


def mend(text: str) -> str:
    """The text with misread characters read rightly, and without control characters. What was lost stays lost."""
    return _CONTROL.sub("", _misread(text))


def _misread(text: str) -> str:
    return _MISREAD.sub(lambda match: _reread(match.group()), text)


def _reread(run: str) -> str:
    """A run of bytes that were shown as letters, read as UTF-8; itself where it is no UTF-8."""
    for encoding in ("cp1252", "latin-1"):
        try:
            return run.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
    return run
