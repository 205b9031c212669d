"""Personal data and secrets in texts: patterns, each with the checksum or the context that keeps it precise.

Precision comes first: a number is a telephone's only where it is written as one, a card's where Luhn's sum is right, an
IBAN where ISO 7064's is. Names and addresses of people are not looked for.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

SECRETS = frozenset({"api_key", "private_key"})


@dataclass(frozen=True, slots=True)
class Found:
    """What was found, and where in the text."""

    kind: str
    start: int
    end: int


def _digits(text: str) -> str:
    return "".join(letter for letter in text if letter.isdigit())


def luhn(text: str) -> bool:
    """Whether the digits of a card number add up, and are not all alike (ISO/IEC 7812)."""
    digits = [int(digit) for digit in _digits(text)]
    if len(set(digits)) < 2:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[::-2]) + sum(doubled)) % 10 == 0


def iban(text: str) -> bool:
    """Whether an IBAN's check digits are right (ISO 13616, ISO 7064 mod 97)."""
    letters = text.replace(" ", "").upper()
    if not 15 <= len(letters) <= 34:
        return False
    turned = letters[4:] + letters[:4]
    return int("".join(str(int(letter, 36)) for letter in turned)) % 97 == 1


def _phone(text: str) -> bool:
    return 8 <= len(_digits(text)) <= 13


def _key(text: str) -> bool:
    """Random letters, and no placeholder such as sk-xxxxxxxx."""
    return len(set(text)) >= 10 and any(letter.isdigit() for letter in text)


def _always(text: str) -> bool:
    return True


_CARD = (
    r"(?<![\d.,-])(?:4\d|5[1-5]|2[2-7]|6[0245])\d\d(?:[ -]?\d{4}){3}(?![\d.,-]?\d)"
    r"|(?<![\d.,-])3[47]\d{2}[ -]?\d{6}[ -]?\d{5}\b"
)
_NAMED_PHONE = (
    r"(?i:\b(?:tele)?(?:phone|fon|fax|mobile|cell|tel|call|ring)\b\W{1,3}?(?:(?:me|us|at|on|is|no|number)\W{1,3}?){0,3})"
    r"(?P<it>\(?0?\d{2,4}\)?(?:[ /-]?\d{2,}){1,4})"
)
_PATTERNS: tuple[tuple[str, str, Callable[[str], bool], str], ...] = (
    (
        "private_key",
        r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----(?:[\s\S]*?-----END (?:[A-Z]+ )*PRIVATE KEY-----)?",
        _always,
        "-----BEGIN",
    ),
    ("api_key", r"\b(?:sk|rk|pk)-(?:[a-z]+-)*[A-Za-z0-9_-]{20,}", _key, "k-"),
    ("api_key", r"\b(?:sk|rk)_live_[A-Za-z0-9]{16,}\b", _key, "_live_"),
    ("api_key", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", _key, "IA"),
    ("api_key", r"\bgh[pousr]_[A-Za-z0-9]{36,}\b", _key, "gh"),
    ("api_key", r"\bgithub_pat_[A-Za-z0-9_]{22,}\b", _key, "github_pat_"),
    ("api_key", r"\bhf_[A-Za-z0-9]{30,}\b", _key, "hf_"),
    ("api_key", r"\bxox[abprs]-[A-Za-z0-9-]{20,}", _key, "xox"),
    ("api_key", r"\bAIza[A-Za-z0-9_-]{35}", _key, "AIza"),
    ("email", r"[A-Za-z0-9][\w.+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}\b", _always, "@"),
    ("iban", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", iban, ""),
    ("card", _CARD, luhn, ""),
    ("phone", r"(?<![\w.+-])(?<!\d )(?:\+|00)[1-9]\d{0,2}(?:[ .-]?\(?\d{1,5}\)?){2,6}(?![\w.-]?\d)", _phone, ""),
    ("phone", _NAMED_PHONE, _phone, ""),
    ("phone", r"(?<![\w.+-])(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4}(?![\w.-]?\d)", _phone, ""),
)  # fmt: skip
_COMPILED = [(kind, re.compile(pattern), holds, cue) for kind, pattern, holds, cue in _PATTERNS]
_NUMBERS = re.compile(r"\d[\d .()/-]{5}")


def find(text: str) -> list[Found]:
    """Everything personal or secret in a text, in order, nothing twice."""
    found: list[Found] = []
    numbers = _NUMBERS.search(text) is not None or not text.isascii()
    for kind, pattern, holds, cue in _COMPILED:
        if (cue and cue not in text) or not (cue or numbers):
            continue
        number = "it" if "it" in pattern.groupindex else 0
        for match in pattern.finditer(text):
            start, end = match.span(number)
            taken = any(start < other.end and other.start < end for other in found)
            if not taken and holds(match.group(number)):
                found.append(Found(kind, start, end))
    return sorted(found, key=lambda one: one.start)


def redact(text: str) -> str:
    """The text with `[EMAIL]`, `[PHONE]`, `[IBAN]`, `[CARD]`, `[API_KEY]` or `[PRIVATE_KEY]` where something was found."""
    parts, start = [], 0
    for one in find(text):
        parts += [text[start : one.start], f"[{one.kind.upper()}]"]
        start = one.end
    return "".join([*parts, text[start:]])


def strings(value: object) -> Iterator[str]:
    """Every text in a row, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from strings(inner)
