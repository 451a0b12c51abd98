"""Secrets in what is recorded: found in every form that is promised, however the output is cut into pieces."""

import base64
import json
import random
import shlex
import subprocess
import urllib.parse
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opencode_tasks.masking import SHORTEST, Mask, forms

VALUE = 's3cr3t/"wörd"+& ~!\'()*\\'
MASK = Mask([("TOKEN", VALUE.encode())])


def straight(mask: Mask, content_b: bytes) -> bytes:
    """What is promised, byte by byte: what belongs to any occurrence of any form goes."""
    covered, starts = [False] * len(content_b), [True] * (len(content_b) + 1)
    labels: dict[int, bytes] = {}
    for form_b in mask._labels:
        for at in range(len(content_b)):
            if content_b.startswith(form_b, at):
                covered[at : at + len(form_b)] = [True] * len(form_b)
                starts[at + 1 : at + len(form_b)] = [False] * (len(form_b) - 1)
                longest = max((len(f) for f in mask._labels if content_b.startswith(f, at)), default=0)
                labels[at] = min(
                    v for f, v in mask._labels.items() if len(f) == longest and content_b.startswith(f, at)
                )
    out = bytearray()
    for at, byte in enumerate(content_b):
        if not covered[at]:
            out.append(byte)
        elif at in labels and starts[at]:
            out += labels[at]
    return bytes(out)


def streamed(mask: Mask, content_b: bytes, cuts: list[int]) -> bytes:
    stream, out, at = mask.stream(), b"", 0
    for cut in [*sorted(cuts), len(content_b)]:
        out += stream.feed(content_b[at:cut])
        at = max(at, cut)
    return out + stream.flush()


letters = st.text("ab=", min_size=SHORTEST, max_size=7).map(str.encode)
secrets = st.lists(letters, min_size=1, max_size=3).map(lambda values: [(f"N{n}", v) for n, v in enumerate(values)])


@st.composite
def outputs(draw: st.DrawFn) -> tuple[Mask, bytes]:
    """Few letters and pieces of the secrets themselves, so that occurrences overlap and touch."""
    mask = Mask(draw(secrets))
    piece = st.one_of(st.sampled_from(sorted(mask._labels)), st.text("ab=", max_size=3).map(str.encode))
    cut = st.tuples(piece, st.integers(0, 12)).map(lambda p: p[0][: p[1]])
    return mask, b"".join(draw(st.lists(st.one_of(piece, cut), max_size=8)))


@settings(max_examples=400, deadline=None)
@given(outputs(), st.lists(st.integers(0, 80), max_size=12))
def test_however_it_is_cut_the_same_is_masked(made: tuple[Mask, bytes], cuts: list[int]) -> None:
    mask, content_b = made
    cuts = [min(cut, len(content_b)) for cut in cuts]
    whole = straight(mask, content_b)
    assert mask.masked(content_b) == whole
    assert streamed(mask, content_b, cuts) == whole
    assert streamed(mask, content_b, list(range(len(content_b)))) == whole


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=6, max_size=80), st.binary(max_size=200), st.binary(max_size=200), st.integers(0, 1 << 30))
def test_no_form_of_any_secret_is_left_in_random_bytes(value_b: bytes, a: bytes, z: bytes, seed: int) -> None:
    if len(value_b.strip()) < SHORTEST or b"*" in value_b or value_b in b"***NAME***":
        return
    mask = Mask([("NAME", value_b)])
    rng = random.Random(seed)
    form_b = rng.choice(forms(value_b))
    content_b = a + form_b + z
    cuts = [rng.randrange(len(content_b) + 1) for _ in range(10)]
    out_b = streamed(mask, content_b, cuts)
    assert form_b not in out_b
    assert b"***NAME***" in out_b


@settings(max_examples=200, deadline=None)
@given(outputs(), st.integers(0, 80))
def test_from_a_place_on_it_is_the_end_of_the_whole(made: tuple[Mask, bytes], begin: int) -> None:
    """As for the tail: what was cut off before must not show the rest of a secret."""
    mask, content_b = made
    begin = min(begin, len(content_b))
    window_b = content_b[max(0, begin - mask.longest_b) :]
    tail_b = mask.masked(window_b, begin=min(begin, mask.longest_b))
    assert straight(mask, content_b).endswith(
        tail_b.removeprefix(b"***N0***").removeprefix(b"***N1***").removeprefix(b"***N2***")
    )


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "json": lambda v: json.dumps(v.decode())[1:-1].encode(),
    "json utf-8": lambda v: json.dumps(v.decode(), ensure_ascii=False)[1:-1].encode(),
    "json of PHP": lambda v: json.dumps(v.decode())[1:-1].replace("/", "\\/").encode(),
    "url": lambda v: urllib.parse.quote(v, safe="").encode(),
    "url path": lambda v: urllib.parse.quote(v).encode(),
    "url form": lambda v: urllib.parse.quote_plus(v).encode(),
    "url of JavaScript": lambda v: urllib.parse.quote(v, safe="!'()*~").encode(),
    "url lower case": lambda v: "".join(
        chr(n) if chr(n).isascii() and (chr(n).isalnum() or chr(n) in "-._~") else f"%{n:02x}" for n in v
    ).encode(),
    "hex": lambda v: v.hex().encode(),
    "HEX": lambda v: v.hex().upper().encode(),
    "base64": base64.b64encode,
    "base64 url": base64.urlsafe_b64encode,
}


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoding_is_found(name: str) -> None:
    encoded_b = ENCODERS[name](VALUE.encode())
    assert MASK.masked(b"a " + encoded_b + b" z") == b"a ***TOKEN*** z"


@pytest.mark.parametrize("before", [b"", b"u", b"us", b"use", b"user", b"user:"])
@pytest.mark.parametrize("after", [b"", b"\n", b"ab", b"abc"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_in_base64_at_every_alignment(before: bytes, after: bytes, encode: Callable[[bytes], bytes]) -> None:
    """At most the characters stay that other bytes have a part in: less than a byte of the secret at each end."""
    encoded_b = encode(before + VALUE.encode() + after)
    out_b = MASK.masked(encoded_b)
    assert b"***TOKEN***" in out_b
    head_b, _, tail_b = out_b.partition(b"***TOKEN***")
    assert len(head_b) <= len(before) * 8 // 6 + 1
    assert len(tail_b) <= (len(after) + 2) // 3 * 4 + 4


def test_what_real_programs_print_of_a_long_secret(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Of several lines: a key. With their own line breaks, and those of a terminal."""
    rng = random.Random(1)
    lines = [
        "-----BEGIN KEY-----",
        *(base64.b64encode(rng.randbytes(45)).decode() for _ in range(5)),
        "-----END KEY-----",
    ]
    key_b = "\n".join(lines).encode() + b"\n"
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_bytes(key_b)
    mask = Mask([("key", key_b)])
    for command in (
        "cat KEY",
        "base64 KEY",
        "sed 's/$/\\r/' KEY",
        "head -3 KEY",
        "grep -n . KEY",
        'printf %s "$(cat KEY)"',
    ):
        printed = subprocess.run(
            ["sh", "-c", command.replace("KEY", shlex.quote(str(path)))], check=True, capture_output=True
        )
        out_b = mask.masked(printed.stdout)
        assert b"***key***" in out_b
        for line in printed.stdout.split():
            assert len(line) < 12 or line not in out_b, (command, line)


def test_short_values_are_left_and_say_so() -> None:
    assert not Mask([("A", b"abc"), ("B", b"\n\n\n\n\n"), ("C", b"")])
    assert Mask([("A", b"abcd")]).masked(b"xabcdx") == b"x***A***x"
    assert Mask().masked(b"x") == b"x"
    assert Mask().stream().feed(b"abc") == b"abc"


def test_a_name_does_not_bring_the_value_back() -> None:
    assert Mask([("TOKEN", b"TOKEN"), ("B", b"other")]).masked(b"TOKEN other") == b"*** ***B***"


def test_text_of_a_command_line() -> None:
    assert MASK.text(f"--token={VALUE}\udcff") == "--token=***TOKEN***\udcff"
    assert Mask().text("\ud800") == "\ud800"


def test_byte_by_byte_takes_no_more_looks_than_it_has_to() -> None:
    """A secret of 64 KiB and a program that writes single bytes: not the square of the time."""
    mask = Mask([("BIG", random.Random(2).randbytes(64 * 1024))])
    looks = 0

    class Counting(Mask):
        def spots(self, content_b: bytes):  # type: ignore[no-untyped-def]
            nonlocal looks
            looks += 1
            return mask.spots(content_b)

    counting = Counting()
    counting._labels, counting.longest_b = mask._labels, mask.longest_b
    stream = counting.stream()
    for _ in range(32 * 1024):
        stream.feed(b"x")
    stream.flush()
    assert looks <= 3


def test_what_is_kept_back_is_bounded() -> None:
    """A program that writes byte by byte, and is killed: the log has all but the last of it."""
    stream = MASK.stream()
    told = b"".join(stream.feed(b"x") for _ in range(5000))
    assert len(told) > 5000 - 2 * MASK.longest_b
    assert told + stream.flush() == b"x" * 5000
