"""A program's arguments, as most programs read them. Pure."""

from collections.abc import Iterable, Iterator

from opencode_tasks.values import value


@value
class Given:
    """`options`: each as `-x` or `--name`, and what was given to it, as far as that is known; `operands`: the rest."""

    options: tuple[tuple[str, str], ...]
    operands: tuple[str, ...]

    def has(self, *names: str) -> bool:
        return any(name in names for name, _ in self.options)

    def of(self, *names: str) -> str | None:
        """What was given to the last of these options."""
        return next((said for name, said in reversed(self.options) if name in names), None)


def given(words: Iterable[str], *, with_value: str = "", valued: Iterable[str] = ()) -> Given:
    """`with_value`: letters of short options that take a value; `valued`: long ones that take the next word."""
    options: list[tuple[str, str]] = []
    operands: list[str] = []
    long = frozenset(valued)
    rest = iter(words)
    for word in rest:
        if word == "--":
            operands += rest
        elif word.startswith("--"):
            name, is_given, said = word.partition("=")
            options.append((name, said if is_given or name not in long else next(rest, "")))
        elif word.startswith("-") and len(word) > 1:
            options += _short(word[1:], with_value, rest)
        else:
            operands.append(word)
    return Given(tuple(options), tuple(operands))


def _short(letters: str, with_value: str, rest: Iterator[str]) -> Iterator[tuple[str, str]]:
    for at, letter in enumerate(letters):
        if letter in with_value:
            yield f"-{letter}", letters[at + 1 :] or next(rest, "")
            return
        yield f"-{letter}", ""


def after_options(words: tuple[str, ...], with_value: Iterable[str] = ()) -> tuple[str, ...]:
    """What begins at the first word that is neither an option nor what one of `with_value` takes."""
    taking, at = frozenset(with_value), 0
    while at < len(words) and words[at].startswith("-") and words[at] != "-":
        if words[at] == "--":
            return words[at + 1 :]
        at += 2 if words[at] in taking else 1
    return words[at:]


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def executed(words: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The commands that `find` runs, with their `{}`."""
    found: list[tuple[str, ...]] = []
    at, end = 0, len(words)
    while at < end:
        if words[at] in {"-exec", "-execdir", "-ok", "-okdir"}:
            begin = at + 1
            while at < end and words[at] not in {";", "+"}:
                at += 1
            found.append(words[begin:at])
        at += 1
    return found
