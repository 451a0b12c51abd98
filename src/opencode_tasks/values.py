"""Frozen values: what `@dataclass(frozen=True)` is, without compiling code for each class.

A frozen dataclass costs 0.5 to 1.5 ms when its module is imported, and `dataclasses` itself
another 5 to 15 (it imports `inspect`). A git hook and every command import some thirty of
them: together more than the interpreter takes to start.
"""

from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def value(cls: type[T]) -> type[T]:
    """The annotated names are the fields, in their order; what is assigned to one is its default, and is shared."""
    names = tuple(vars(cls).get("__annotations__", {}))
    defaults = {name: vars(cls)[name] for name in names if name in vars(cls)}
    setattr(cls, "__fields__", names)  # noqa: B010 (mypy knows no such attribute)
    cls.__init__ = _initialiser(cls.__name__, names, defaults)  # type: ignore[method-assign]
    for name, method in _METHODS.items():
        setattr(cls, name, method)
    return cls


def _initialiser(kind: str, names: tuple[str, ...], defaults: dict[str, Any]) -> Callable[..., None]:
    known, required = frozenset(names), frozenset(names) - frozenset(defaults)
    # In the order of the fields, which is the order of every document that is made from one.
    template = {name: defaults.get(name) for name in names}

    def __init__(self: object, *args: object, **kwargs: object) -> None:  # noqa: N807
        own = self.__dict__
        if len(args) == len(names) and not kwargs:
            own.update(zip(names, args, strict=True))
            return
        given = dict(zip(names, args, strict=False))
        if len(args) > len(names) or not given.keys().isdisjoint(kwargs):
            raise TypeError(f"{kind} got a field twice, or more than it has")
        given.update(kwargs)
        if not given.keys() <= known or not required <= given.keys():
            missing, surplus = sorted(required - given.keys()), sorted(given.keys() - known)
            raise TypeError(f"{kind}: missing {missing}, unknown {surplus}")
        own.update(template)
        own.update(given)

    return __init__


def replace(instance: T, **changes: object) -> T:
    """A copy with other values in some fields."""
    return type(instance)(**{**vars(instance), **changes})


def names_of(kind: type[object]) -> tuple[str, ...]:
    """The fields of a value, in their order."""
    found: tuple[str, ...] = getattr(kind, "__fields__")  # noqa: B009 (mypy knows no such attribute)
    return found


def _eq(self: object, other: object) -> bool:
    return type(self) is type(other) and vars(self) == vars(other)


def _hash(self: object) -> int:
    return hash((type(self), *vars(self).values()))


def _repr(self: object) -> str:
    return f"{type(self).__name__}({', '.join(f'{name}={held!r}' for name, held in vars(self).items())})"


def _refuse(self: object, name: str, *_: object) -> None:
    raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be changed")


_METHODS = {
    "__eq__": _eq,
    "__hash__": _hash,
    "__repr__": _repr,
    "__setattr__": _refuse,
    "__delattr__": _refuse,
}
