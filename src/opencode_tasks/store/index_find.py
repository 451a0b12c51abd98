"""Words in the tasks' texts: which tasks have them, where, and the line to show."""

import re
import sqlite3
from collections.abc import Iterator, Sequence

from opencode_tasks.store.index_rows import task_of
from opencode_tasks.store.index_schema import PARTS
from opencode_tasks.task import Task
from opencode_tasks.values import value

# Where all the words stand, best first; "": some here and some there.
_RANKS = {"title": 10.0, "branch": 6.0, "decisions": 4.0, "plan": 3.0, "commands": 1.0, "": 0.5}
_BEST = "title"
_LOOKED_AT = 100
_MOST_WORDS = 32
_PART = re.compile(r"[^\W_]+")


@value
class Match:
    """`part`: where the words were found; `line`: the line that has most of them."""

    task: Task
    part: str
    line: str
    score: float


class Search:
    """`where` and `values`: which tasks count."""

    def __init__(self, db: sqlite3.Connection, where: str, values: list[object], limit: int) -> None:
        self._db, self._where, self._values, self._limit = db, where, values, limit

    def matches(self, words: Sequence[str], *, is_beginning: bool) -> list[Match]:
        """The best first, at most so many. `is_beginning`: of the last word."""
        fts = " ".join(f'"{w}"' for w in words) + ("*" if is_beginning else "")
        chosen = self._with(f"{{{_BEST}}} : ({fts})")[: self._limit]
        if len(chosen) < self._limit:
            chosen = self._of_other_parts(fts, chosen)
        return sorted(self._looked_at(chosen, words, is_beginning), key=_rank, reverse=True)[: self._limit]

    def _of_other_parts(self, fts: str, best: list[int]) -> list[int]:
        found = dict.fromkeys(self._with(fts))
        if len(found) < _LOOKED_AT:
            return list(found)
        # Too many to look at each: those that have them in the best part.
        chosen = dict.fromkeys(best)
        for part in _RANKS:
            if part not in ("", _BEST) and len(chosen) < self._limit:
                chosen |= dict.fromkeys(self._with(f"{{{part}}} : ({fts})"))
        return list(chosen | found)[: self._limit]

    def _with(self, fts: str) -> list[int]:
        """The last ones made, as far as that is known without looking at all of them."""
        asked = (
            "select tasks.created_at, tasks.id, tasks.n from texts join tasks on tasks.n = texts.rowid "
            f"where texts match ? and {self._where} order by texts.rowid desc limit ?"
        )
        rows = self._db.execute(asked, (fts, *self._values, max(self._limit, _LOOKED_AT))).fetchall()
        return [n for _, _, n in sorted(rows, reverse=True)]

    def _looked_at(self, chosen: Sequence[int], words: Sequence[str], is_beginning: bool) -> Iterator[Match]:
        asked = (
            f"select doc, crc, {', '.join(PARTS)} from docs join texts on texts.rowid = docs.n "
            f"where docs.n in ({', '.join('?' * len(chosen))})"
        )
        rows = self._db.execute(asked, chosen).fetchall()
        if len(rows) != len(chosen):
            raise sqlite3.DatabaseError("a task's row is missing")
        for doc, crc, *texts in rows:
            by_part = dict(zip(PARTS, texts, strict=True))
            part = next((p for p in _RANKS if p and _count(by_part[p], words, is_beginning) == len(words)), "")
            where, line = _line({part: by_part[part]} if part else by_part, words, is_beginning)
            yield Match(task_of(doc, crc), where, line.strip()[:200], _RANKS[part])


def _rank(match: Match) -> tuple[float, str, str]:
    return match.score, match.task.created_at, match.task.id


def _line(texts: dict[str, str], words: Sequence[str], is_beginning: bool) -> tuple[str, str]:
    """The part and the line that have most of the words; the first among equals."""
    best = (0, "title", "")
    for part, text in texts.items():
        for line in text.splitlines():
            count = _count(line, words, is_beginning)
            if count > best[0]:
                best = (count, part, line)
            if count == len(words):
                return part, line
    return best[1:]


def _count(text: str, words: Sequence[str], is_beginning: bool) -> int:
    """How many of the words are in it."""
    if not text:
        return 0
    there = f" {' '.join(_PART.findall(_folded(text)))} "
    ends = [" "] * (len(words) - 1) + ["" if is_beginning else " "]
    return sum(f" {word}{end}" in there for word, end in zip(words, ends, strict=True))


def words_of(text: str) -> list[str]:
    """As the index splits texts: letters and digits, without accents. `max_size` is two words that stand together."""
    found = [" ".join(_PART.findall(word)) for word in re.findall(r"\w+", _folded(text))]
    return [word for word in found if word][:_MOST_WORDS]


def _folded(text: str) -> str:
    if text.isascii():
        return text.lower()
    import unicodedata

    return re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFD", text)).lower()
