"""`@value` is a frozen dataclass in everything the source relies on."""

from dataclasses import dataclass
from typing import Any

import pytest

from opencode_tasks.values import names_of, replace, value


@value
class Point:
    x: int
    y: int = 2
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Peer:
    x: int
    y: int = 2
    names: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1,), {}), ((1, 5), {}), ((), {"x": 1}), ((1,), {"names": ("a",)}), ((), {"names": ("a",), "x": 3, "y": 4})],
)
def test_made_as_a_dataclass_is(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    made, peer = Point(*args, **kwargs), Peer(*args, **kwargs)
    assert list(vars(made).items()) == list(vars(peer).items())
    assert repr(made) == repr(peer).replace("Peer", "Point")


@pytest.mark.parametrize(
    ("args", "kwargs"), [((), {}), ((1, 2, (), 4), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((), {"y": 1})]
)
def test_refused_as_a_dataclass_refuses(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for kind in (Point, Peer):
        with pytest.raises(TypeError):
            kind(*args, **kwargs)


def test_equal_by_kind_and_fields() -> None:
    assert Point(1) == Point(1, 2)
    assert Point(1) != Point(2)
    other: object = Peer(1)
    assert Point(1) != other
    assert len({Point(1), Point(1, 2), Point(3)}) == 2


def test_frozen() -> None:
    made = Point(1)
    with pytest.raises(AttributeError, match="frozen"):
        made.x = 3  # type: ignore[misc]
    with pytest.raises(AttributeError, match="frozen"):
        del made.x
    assert made == Point(1)


def test_replace_keeps_the_rest_and_refuses_what_is_no_field() -> None:
    made = Point(1, 7)
    assert replace(made, x=5) == Point(5, 7)
    assert made == Point(1, 7)
    with pytest.raises(TypeError):
        replace(made, z=1)


def test_fields_in_their_order() -> None:
    assert names_of(Point) == ("x", "y", "names")
    assert Point.y == 2
