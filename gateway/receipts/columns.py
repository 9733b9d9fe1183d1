"""Text in columns of a receipt printer: a Chinese character takes two. Pure."""

from __future__ import annotations

import unicodedata


def width(text: str) -> int:
    """How many columns a text takes."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def wrapped(text: str, columns: int) -> list[str]:
    """The text in lines of at most so many columns: broken at blanks where there are some."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if width(joined) <= columns:
            line = joined
            continue
        if line:
            lines.append(line)
        while width(word) > columns:
            head = _head(word, columns)
            lines.append(head)
            word = word[len(head) :]
        line = word
    return [*lines, line]


def paired(label: str, value: str, columns: int) -> list[str]:
    """A label at the left and its value at the right; on lines of its own if both don't fit."""
    gap = columns - width(label) - width(value)
    if gap >= 1:
        return [label + " " * gap + value]
    return [*wrapped(label, columns), *(right(line, columns) for line in wrapped(value, columns))]


def right(text: str, columns: int) -> str:
    """The text at the right edge."""
    return " " * (columns - width(text)) + text


def centred(text: str, columns: int) -> str:
    """The text in the middle; without blanks behind it."""
    return " " * ((columns - width(text)) // 2) + text


def _head(word: str, columns: int) -> str:
    taken = 0
    for number, character in enumerate(word):
        taken += width(character)
        if taken > columns:
            return word[: max(1, number)]
    return word
