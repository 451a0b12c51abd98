"""What must be there before a Dockerfile is built, told without an engine."""

import pytest

from opencode_tasks.containers.dockerfile import Needs, needs

TOLD: dict[str, tuple[str, Needs]] = {
    "plain": ("FROM debian:12\nRUN true\n", Needs(("debian:12",), context=False)),
    "lower case, comments, flags": (
        "# hi\n\nfrom --platform=linux/amd64 debian:12 as one\n",
        Needs(("debian:12",), context=False),
    ),
    "stages": (
        "FROM a AS one\nFROM b\nCOPY --from=one /x /x\nCOPY --from=0 /y /y\nFROM ONE\n",
        Needs(("a", "b"), context=False),
    ),
    "copied from an image": ("FROM a\nCOPY --chown=1 --from=tools:1 /x /x\n", Needs(("a", "tools:1"), context=False)),
    "from files of ours": ("FROM scratch\nCOPY . .\n", Needs((), context=True)),
    "added": ("FROM a\nADD x /\n", Needs(("a",), context=True)),
    "an argument's default": ("ARG V=12\nARG B=debian:$V\nFROM ${B}\n", Needs(("debian:12",), context=False)),
    "an argument that is given": ("ARG GIVEN=no\nFROM ${GIVEN:-x}\n", Needs(("yes",), context=False)),
    "a default in place": ("ARG E\nFROM ${E:-debian}${E:+no}:12\n", Needs(("debian:12",), context=False)),
    "on two lines": ("FROM \\\n  # between\n  debian:12\n", Needs(("debian:12",), context=False)),
    "another escape": ("# escape=`\nFROM `\n debian:12\nRUN dir c:\\\n", Needs(("debian:12",), context=False)),
    "an argument of a stage is none of FROM": ("ARG B=x\nFROM $B\nARG B=y\nFROM $B\n", Needs(("x",), context=False)),
}


@pytest.mark.parametrize("name", TOLD)
def test_images_and_whether_files_are_read(name: str) -> None:
    text, told = TOLD[name]
    assert needs(text, {"GIVEN": "yes"}) == told


def test_only_up_to_the_stage_that_is_wanted() -> None:
    text = "FROM a AS one\nFROM b AS two\nCOPY x /\n"
    assert needs(text, {}, "one") == Needs(("a",), context=False)
    assert needs(text, {}, "two") == Needs(("a", "b"), context=True)


@pytest.mark.parametrize(
    "text", ["", "RUN x\n", "FROM\n", "FROM $NONE\n", "FROM a b\n", "FROM ${A/b}\n", "FROM a \\\n"]
)
def test_what_cannot_be_told_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        needs(text, {})
