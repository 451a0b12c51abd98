"""What a Dockerfile needs to be there before it is built. Pure.

An engine's builder pulls what a FROM names and is not there, whatever it was told: so we look first.
"""

import re
import shlex
from collections.abc import Iterator, Mapping

from opencode_tasks.values import value


@value
class Needs:
    """`images`: what it begins from or copies from, less its own stages. `context`: whether it reads files of ours."""

    images: tuple[str, ...]
    context: bool


def needs(text: str, args: Mapping[str, str], target: str = "") -> Needs:
    """Up to the stage `target`. Raises `ValueError` for what cannot be told without building."""
    known: dict[str, str] = {}
    stages: list[str] = []
    images: list[str] = []
    context = False
    for name, said in _instructions(text):
        if name == "ARG" and not stages:
            known.update(_arguments(said, known, args))
        elif name == "FROM":
            if target and stages and target.lower() in (stages[-1], str(len(stages) - 1)):
                break
            image, stage = _from(said, known)
            if image.lower() not in (*stages, "scratch"):
                images.append(image)
            stages.append(stage or str(len(stages)))
        elif name in ("COPY", "ADD"):
            source = re.match(r"(?:--\S+\s+)*?--from=(\S+)", said)
            if source is None:
                context = True
            elif source[1].lower() not in stages and not source[1].isdigit():
                images.append(_expanded(source[1], known))
    if not stages:
        raise ValueError("it has no FROM")
    return Needs(tuple(dict.fromkeys(images)), context)


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    directive = re.match(r"(?:#[^\n]*\n)*?#\s*escape\s*=\s*([`\\])\s*\n", text, re.IGNORECASE)
    escape = directive[1] if directive else "\\"
    whole = ""
    for line in text.splitlines():
        bare = line.strip()
        if not bare or bare.startswith("#"):
            continue
        goes_on = bare.endswith(escape)
        whole += bare.removesuffix(escape) + " " if goes_on else bare
        if not goes_on:
            name, _, said = whole.replace("\t", " ").partition(" ")
            yield name.upper(), said.strip()
            whole = ""
    if whole:
        raise ValueError("its last line does not end")


def _arguments(said: str, known: Mapping[str, str], given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for word in shlex.split(said):
        name, _, default = word.partition("=")
        yield name, given[name] if name in given else _expanded(default, known)


def _from(said: str, known: Mapping[str, str]) -> tuple[str, str]:
    words = [word for word in said.split() if not word.startswith("--")]
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise ValueError(f"FROM {said[:80]!r} is not understood")
    image = _expanded(words[0].strip("\"'"), known)
    if not image:
        raise ValueError(f"FROM {said[:80]!r} names no image; give it with build.args")
    return image, words[2].lower() if len(words) == 3 else ""


def _expanded(text: str, known: Mapping[str, str]) -> str:
    def put(found: re.Match[str]) -> str:
        name, how, other = found[1] or found[2], found[3], found[4] or ""
        held = known.get(name, "")
        if how == ":+":
            return other if held else ""
        return held or (other if how == ":-" else "")

    made = re.sub(r"\$(?:(\w+)|\{(\w+)(?:(:[-+])([^}]*))?\})", put, text)
    if "$" in made:
        raise ValueError(f"{text[:80]!r} is not understood")
    return made
