"""What quotes and backslashes of a shell leave of a text. Pure."""

import re

_SLASHED = re.compile(r"\\(\n|.)", re.DOTALL)
_ANSI = re.compile(r"\\(?:x([0-9A-Fa-f]{1,2})|([0-7]{1,3})|u([0-9A-Fa-f]{1,4})|(.))", re.DOTALL)
_ANSI_NAMES = {"n": "\n", "t": "\t", "r": "\r", "e": "\x1b", "E": "\x1b", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def unescaped(text: str, *, is_quoted: bool = False) -> str:
    """`is_quoted`: between double quotes, where only some signs can be escaped."""
    if "\\" not in text:
        return text

    def one(found: re.Match[str]) -> str:
        sign = found[1]
        if sign == "\n":
            return ""
        return sign if not is_quoted or sign in '$`"\\' else found[0]

    return _SLASHED.sub(one, text)


def ansi(text: str) -> str:
    """What stands between `$'` and `'`."""

    def one(found: re.Match[str]) -> str:
        number = found[1] or found[3]
        if number or found[2]:
            return chr(int(number, 16) if number else int(found[2], 8) & 0xFF)
        return _ANSI_NAMES.get(found[4], found[4])

    return _ANSI.sub(one, text) if "\\" in text else text
