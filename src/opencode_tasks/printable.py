"""Text that anybody may have written, as it can be shown: nothing in it steers a terminal."""


def printable(text: str, *, keep: str = "") -> str:
    """Escaped as Python would, but for `keep`; on one line unless that has a line break."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)
