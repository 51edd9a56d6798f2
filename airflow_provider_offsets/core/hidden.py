"""Characters that a person does not see: blanks at the ends of a text, and characters without a shape anywhere.

Programs disagree on them. Kafka's consumer trims a group id and its admin client does not: one text, two groups.
"""

from __future__ import annotations

import unicodedata

_SHAPELESS = {"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"}
"""Unicode categories of control characters, format characters (such as a byte order mark), halves of characters, and
blanks."""

_FILLERS = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and symbols that are drawn as nothing."""


def hidden_character(text: str, *, inside_only: bool = False) -> str:
    """Return where a text has a character that nobody sees; empty if it has none. A single space inside is no such one.

    :param text: the text, as a person wrote it.
    :param inside_only: ignore spaces at both ends, which the syntax of the text may allow.
    :returns: for example ``a no-break space (U+00A0) at its end``.
    """
    if text.isascii() and text.isprintable() and (inside_only or text.strip(" ") == text):
        return ""
    for place, character in enumerate(text):
        is_end = place in (0, len(text) - 1)
        if character == " " and (inside_only or not is_end):
            continue
        if character in _FILLERS or unicodedata.category(character) in _SHAPELESS:
            where = "at its start" if place == 0 else "at its end" if is_end else f"after {text[:place]!r}"
            return f"{_named(character)} {where}"
    return ""


def _named(character: str) -> str:
    name = {"\n": "line break", "\t": "tab", "\ufeff": "byte order mark"}.get(character)
    name = name or ("half of a character" if unicodedata.category(character) == "Cs" else None)
    name = name or unicodedata.name(character, "control character").lower()
    return f"{'an' if name[0] in 'aeio' else 'a'} {name} (U+{ord(character):04X})"
