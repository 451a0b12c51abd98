"""`tests/data/command-lines.jsonl`, and how well the labels that a person gave are found.

`python -m tests.policy.lines` prints the table of docs/risk-labels.md.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from opencode_tasks.policy.risk import LABELS, Assessment, assess

WORKSPACE = PurePosixPath("/home/dev/app")
_DATA = Path(__file__).parents[1] / "data" / "command-lines.jsonl"
# What a person wrote in short, and how an assessment begins to say it.
_REASONS = {
    "outside": "outside the workspace",
    "git": "git's own files",
    "remote": "remote",
    "database": "a database",
    "ignored": "ignored files",
    "volumes": "docker's volumes",
}
READS, BEYOND = "only reads", "undo does not help"


class Line(NamedTuple):
    text: str
    source: str
    is_held_out: bool
    facts: frozenset[str]  # labels, `READS`, reasons


class Score(NamedTuple):
    right: int = 0
    surplus: int = 0
    missed: int = 0

    @property
    def lines(self) -> int:
        return self.right + self.missed

    @property
    def precision(self) -> float | None:
        return self.right / (self.right + self.surplus) if self.right + self.surplus else None

    @property
    def recall(self) -> float | None:
        return self.right / self.lines if self.lines else None


def lines() -> list[Line]:
    found = [json.loads(row) for row in _DATA.read_text().splitlines()]
    return [Line(d["line"], d["source"], d.get("held_out", False), _said(d)) for d in found]


def _said(row: Mapping[str, list[str]]) -> frozenset[str]:
    beyond = [_REASONS[word] for word in row.get("beyond", ())]
    return frozenset((*row["labels"], *beyond, *([READS] if row.get("reads") else [])))


def assessed(text: str) -> Assessment:
    return assess(["bash", "-c", text], workspace=WORKSPACE, cwd=WORKSPACE)


def facts(found: Assessment) -> frozenset[str]:
    reasons = [reason.partition(":")[0] for reason in found.beyond]
    return frozenset((*found.labels, *reasons, *([] if found.mutates else [READS])))


def scores(among: Iterable[Line]) -> dict[str, Score]:
    """By fact; `BEYOND` is all reasons together, "" all labels."""
    counted = dict.fromkeys(("", *LABELS, BEYOND, READS), Score())
    for line in among:
        found = facts(assessed(line.text))
        for fact in found | line.facts:
            names = ("", fact) if fact in LABELS else (READS,) if fact == READS else (BEYOND,)
            hit, expected = fact in found and fact in line.facts, fact in line.facts
            for name in names:
                was = counted[name]
                counted[name] = Score(
                    was.right + hit, was.surplus + (not expected), was.missed + (expected and not hit)
                )
    return counted


def table() -> str:
    """One row a label: all lines, then the part that was held out."""
    whole, held = scores(lines()), scores(line for line in lines() if line.is_held_out)
    rows = ["| | lines | precision | recall | held out | precision | recall |", "|---|---|---|---|---|---|---|"]
    for name in (*LABELS, "", BEYOND, READS):
        title = f"`{name}`" if name in LABELS else name or "**all labels**"
        rows.append(f"| {title} | {_cells(whole[name])} | {_cells(held[name])} |")
    return "\n".join(rows)


def _cells(score: Score) -> str:
    shown = ["-" if part is None else f"{part:.3f}" for part in (score.precision, score.recall)]
    return " | ".join([str(score.lines), *shown])


if __name__ == "__main__":
    print(table())  # noqa: T201
