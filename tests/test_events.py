"""A line says what was written, or is refused: never something else."""

import hashlib
import json
from typing import Any

import pytest

from opencode_tasks import events
from opencode_tasks.errors import TaskError
from opencode_tasks.events import GENESIS, LARGEST_BYTES, CorruptError, Event, decode, encode

_CREATED = {
    "id": "fix-7k3q9m",
    "title": "Fix",
    "branch": "task/fix",
    "base": {"branch": "main", "commit": "a" * 40},
    "workspace": {"kind": "in-place", "path": "/src/repo"},
    "image": None,
}
_FIELDS = ["v", "w", "seq", "lam", "ts", "actor", "epoch", "type", "data", "prev", "h"]


def _made(type_: str, data: dict[str, Any], *, more: int = 0, **fields: Any) -> tuple[Event, bytes]:
    known: dict[str, Any] = {"w": "c0ffee-host", "seq": 1, "lam": 1, "actor": "user:me", "epoch": 0, **fields}
    w, seq, lam, actor, epoch = known.values()
    return encode(w, seq, lam, "2026-01-01T00:00:01.000Z", actor, epoch, type_, data, GENESIS, more=more)


def _line(data: dict[str, Any]) -> bytes:
    return _made("note.added", data)[1]


def _signed(fields: dict[str, Any]) -> bytes:
    """A line as another program might write it: its hash is right."""
    body = json.dumps(fields, separators=(",", ":"), ensure_ascii=False)
    return _signed_body(body.encode())


def _signed_body(body_b: bytes) -> bytes:
    return body_b[:-1] + f',"h":"{hashlib.sha256(body_b).hexdigest()}"}}\n'.encode()


def _unsigned(line_b: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(line_b)
    del fields["h"]
    return fields


def test_a_line_has_the_fields_of_the_design_in_their_order() -> None:
    event, line_b = _made("task.created", _CREATED)
    assert line_b.endswith(b"\n")
    assert line_b.count(b"\n") == 1
    assert list(json.loads(line_b)) == _FIELDS
    assert len(event.h) == 64


def test_the_hash_is_that_of_the_line_without_it() -> None:
    event, line_b = _made("task.created", _CREATED)
    without = line_b.decode().replace(f',"h":"{event.h}"', "").rstrip("\n")
    assert hashlib.sha256(without.encode()).hexdigest() == event.h
    assert _signed(_unsigned(line_b)) == line_b


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"text": "line\nbreak\r\n\x00 and \u2028"},
        {"text": "日本語 é 🎉"},
        {"path": "caf\udce9"},
        {"text": '","h":"0000","prev":"', "h": "f" * 64},
        {"nested": {"h": "f" * 64}},
        {"deep": [[{"a": [None, True, 1.5, -3]}]]},
        {"text": ',"more":3}'},
        {"nested": {"more": 3}},
    ],
)
def test_a_record_survives_being_written_and_read(data: dict[str, Any]) -> None:
    event, line_b = _made("note.added", data, actor='agent "é" \\ \udce9\n')
    assert decode(line_b) == event
    assert (decode(line_b).data, decode(line_b).follow_on) == (data, 0)
    assert line_b.decode().count("\n") == 1


@pytest.mark.parametrize("data", [{}, {"text": "x"}, {"nested": {"more": 7}}])
@pytest.mark.parametrize("more", [1, 31, 999_999])
def test_a_record_of_a_batch_says_how_many_follow_and_keeps_its_data(data: dict[str, Any], more: int) -> None:
    event, line_b = _made("note.added", data, more=more)
    assert decode(line_b) == event
    assert (event.follow_on, event.data) == (more, data)


def test_the_stores_own_key_is_refused_in_data() -> None:
    with pytest.raises(ValueError, match="`more`"):
        _line({"text": "x", "more": 1})


def test_a_record_of_the_largest_size_is_written_and_one_byte_more_is_not() -> None:
    empty_b = _line({"text": ""})
    room = LARGEST_BYTES - len(empty_b) + len(f',"h":"{GENESIS}"}}\n')
    event, line_b = _made("note.added", {"text": "x" * room})
    assert decode(line_b) == event
    with pytest.raises(TaskError) as refused:
        _line({"text": "x" * (room + 1)})
    assert refused.value.code == "too_large"
    assert str(LARGEST_BYTES) in refused.value.message
    assert "file" in refused.value.hint


@pytest.mark.parametrize(
    "fields",
    [{"lam": 10**18}, {"epoch": 10**18}, {"epoch": -1}, {"epoch": 1.5}, {"w": "C0FFEE-host"}, {"w": 'a"b'}, {"w": ""}],
)
def test_what_could_not_be_read_again_is_not_written(fields: dict[str, Any]) -> None:
    with pytest.raises(TaskError) as refused:
        _made("note.added", {}, **fields)
    assert "not written" in refused.value.message
    assert refused.value.hint


def test_every_flipped_bit_of_a_line_is_noticed() -> None:
    line_b = _line({"n": 1, "text": "é"})
    for at in range(len(line_b)):
        for bit in range(8):
            damaged = bytearray(line_b)
            damaged[at] ^= 1 << bit
            with pytest.raises(TaskError) as refused:
                decode(bytes(damaged))
            # A flip in the schema's number looks like a newer one: refused as well.
            assert refused.value.code in ("corrupt", "newer_schema"), (at, bit)


@pytest.mark.parametrize(
    "line_b",
    [
        b"",
        b"\n",
        b"null\n",
        b"[]\n",
        b"{}\n",
        b'"text"\n',
        b"\xff\xfe\n",
        b'{"v":1}\n',
        b'{"h":"x"}\n',
        b'{"v":null,"h":"x"}\n',
        b'{"v":Infinity,"h":"x"}\n',
        b'{"v":1,"h":"x"}\n',
        b"[" * 100_000 + b"\n",
        _line({})[:-1],
        _line({})[:-2] + b"\n",
        _line({}) * 2,
        _line({}).replace(b',"data"', b', "data"'),
    ],
)
def test_what_is_no_record_is_corrupt(line_b: bytes) -> None:
    with pytest.raises(CorruptError):
        decode(line_b)


@pytest.mark.parametrize("at", range(len(_FIELDS) - 2))
def test_keys_in_another_order_are_refused_although_the_hash_is_right(at: int) -> None:
    fields = _unsigned(_line({"n": 1}))
    names = list(fields)
    names[at], names[at + 1] = names[at + 1], names[at]
    with pytest.raises(CorruptError):
        decode(_signed({name: fields[name] for name in names}))


@pytest.mark.parametrize("missing", _FIELDS[:-1])
def test_a_missing_key_is_refused_although_the_hash_is_right(missing: str) -> None:
    fields = _unsigned(_line({"n": 1}))
    del fields[missing]
    with pytest.raises(CorruptError):
        decode(_signed(fields))


@pytest.mark.parametrize("damage", ["spaces", "upper", "digits", "float", "string", "prev"])
def test_values_of_another_form_are_refused_although_the_hash_is_right(damage: str) -> None:
    body_b = json.dumps(_unsigned(_line({"n": 1})), separators=(",", ":")).encode()
    old_b, new_b = {
        "spaces": (b'"seq":1', b'"seq": 1'),
        "upper": (b"c0ffee", b"C0FFEE"),
        "digits": (b'"lam":1', b'"lam":1' + b"0" * 18),
        "float": (b'"epoch":0', b'"epoch":0.5'),
        "string": (b'"seq":1', b'"seq":"1"'),
        "prev": (b"0" * 64, b"0" * 63),
    }[damage]
    assert old_b in body_b
    with pytest.raises(CorruptError):
        decode(_signed_body(body_b.replace(old_b, new_b)))


@pytest.mark.parametrize(
    "data_b", [b"[1]", b"1", b"null", b'{"n":}', b'{"n":"\xff"}', b'{"n":1},"extra":2', b"[" * 9999]
)
def test_data_that_is_no_object_is_noticed_when_somebody_asks(data_b: bytes) -> None:
    body_b = json.dumps(_unsigned(_line({"n": 1})), separators=(",", ":")).encode()
    event = decode(_signed_body(body_b.replace(b'{"n":1}', data_b)))
    with pytest.raises(CorruptError, match="record 1 of c0ffee-host"):
        _ = event.data


def test_a_newer_schema_is_refused_with_the_way_out() -> None:
    with pytest.raises(TaskError) as refused:
        decode(_signed({"v": events.SCHEMA + 1, "unheard": "of"}))
    assert refused.value.code == "newer_schema"
    assert f"schema {events.SCHEMA + 1}" in refused.value.message
    assert "upgrade" in refused.value.hint
