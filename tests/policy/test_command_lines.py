"""Real command lines, labelled by a person before any rule was written: how much of that is found."""

import re
from collections import Counter
from pathlib import Path

from opencode_tasks.policy.risk import LABELS
from tests.policy.lines import BEYOND, READS, lines, scores, table

_PAGE = (Path(__file__).parents[2] / "docs" / "risk-labels.md").read_text()
_FLOOR = 0.97


def test_the_set_is_large_real_and_sound() -> None:
    found = lines()
    sources = Counter(line.source for line in found)
    assert len(found) >= 600
    assert sources["made up"] <= len(found) / 20
    assert len({line.text for line in found}) == len(found)
    assert sum(line.is_held_out for line in found) >= len(found) / 3
    assert all(not (READS in line.facts and line.facts & {*LABELS}) for line in found), "a risk that only reads"
    assert {label for line in found for label in line.facts} >= {*LABELS}, "a label without a line"


def test_precision_and_recall_do_not_fall() -> None:
    found = lines()
    for among in (found, [line for line in found if line.is_held_out]):
        measured = scores(among)
        for name in ("", BEYOND, READS):
            precision, recall = measured[name].precision, measured[name].recall
            assert precision is not None
            assert recall is not None
            assert min(precision, recall) >= _FLOOR, (name, measured[name])
    # To say of a command that it only reads, and be wrong, loses work.
    assert scores(found)[READS].surplus == 0


def test_the_page_says_what_is_measured() -> None:
    assert table() in _PAGE, "python -m tests.policy.lines prints the table"
    assert f"{len(lines())} lines" in _PAGE
    described = set(re.findall(r"^\| `([a-z-]+)` \| [A-Za-z`]", _PAGE, re.MULTILINE))
    assert described >= {*LABELS}, "each label is explained"
