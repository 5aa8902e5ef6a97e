"""The signature of a task: whether arguments fit it, and how they become JSON and come back."""

from __future__ import annotations

import functools
import inspect
import itertools
import typing
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any, NamedTuple

from presque.tasks.errors import WrongTask
from presque.tasks.plain import Encode, plain
from presque.tasks.reading import Readers
from presque.tasks.single import null
from presque.tasks.unfit import Reader, Unfit

_Place = tuple[str, Reader | None]
_ANYTHING: _Place = ("", None)


class _Places(NamedTuple):
    """The parameters of a function, each with what reads its argument."""

    by_place: Sequence[_Place]
    by_name: Mapping[str, _Place]
    more: _Place
    more_named: _Place
    result: Reader | None


class Signature:
    """What a function takes. Annotations are resolved when they are first needed, so they may look ahead."""

    def __init__(
        self, function: Callable[..., Any], name: str, encode: Encode | None, readers: Readers
    ) -> None:
        self._function, self._name, self._encode, self._readers = function, name, encode, readers
        try:
            self._signature = inspect.signature(function)
        except (TypeError, ValueError):
            raise WrongTask(f"Python cannot tell what `{name}` takes: wrap it in a function") from None
        self._parameters = list(self._signature.parameters.values())
        by_place = [one for one in self._parameters if one.kind in _BY_PLACE]
        self._most = len(by_place)
        self._fits = [] if self._has_special else [self._names_left(count) for count in range(self._most + 1)]

    def __str__(self) -> str:
        bare = [one.replace(annotation=one.empty) for one in self._parameters]
        return f"`{self._name}{inspect.Signature(bare)}`"

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise `TypeError` with a sentence unless the function can be called so."""
        if len(args) < len(self._fits):  # quicker than to bind: it is on the way of every job
            takes, needs = self._fits[len(args)]
            if takes.issuperset(kwargs) and needs.issubset(kwargs):
                return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{error}: the task is {self}") from None

    @property
    def _has_special(self) -> bool:
        """Whether it takes any number of arguments, or some that cannot be named."""
        special = (Parameter.POSITIONAL_ONLY, Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
        return any(one.kind in special for one in self._parameters)

    def _names_left(self, count: int) -> tuple[frozenset[str], frozenset[str]]:
        """Which arguments may, and which must, be named when `count` are not."""
        left = self._parameters[count:]
        takes = frozenset(one.name for one in left)
        return takes, frozenset(one.name for one in left if one.default is one.empty)

    def encoded(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Arguments as JSON can say them, and as the worker will be able to read them.

        Raises `TypeError` or `ValueError` with a sentence that names the argument.
        """
        self.check(args, kwargs)
        places = self._places
        said = [self._said(name, one) for (name, _), one in zip(self._slots(len(args)), args, strict=True)]
        said_named = {name: self._said(name, one) for name, one in kwargs.items()}
        self._read(places, said, said_named)
        return said, said_named

    def decoded(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The arguments of a job. Raises `TypeError` or `ValueError` if they do not fit the signature."""
        self.check(args, kwargs)
        return self._read(self._places, args, kwargs)

    def result(self, value: Any) -> Any:
        """A result as the annotation of the function says it. One that does not fit stays as JSON has it."""
        reader = self._places.result
        if reader is None or value is None:
            return value
        try:
            return reader(value)
        except Unfit:
            return value

    @property
    def returns_nothing(self) -> bool:
        """Whether its annotation says that it returns nothing."""
        return self._places.result is null

    def resolve(self) -> None:
        """Resolve the annotations now. Raises `WrongTask` for one that cannot be."""
        _ = self._places

    def _slots(self, count: int) -> list[_Place]:
        places = self._places
        return list(itertools.islice(itertools.chain(places.by_place, itertools.repeat(places.more)), count))

    def _said(self, name: str, value: Any) -> Any:
        try:
            return plain(value, self._encode)
        except (TypeError, ValueError) as error:
            raise type(error)(f"`{name}` of `{self._name}`: {error}") from None

    def _read(
        self, places: _Places, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        name = ""
        try:
            if args:
                slots = places.by_place if len(args) <= self._most else self._slots(len(args))
                read = []
                for (name, reader), one in zip(slots, args, strict=False):  # noqa: B007
                    read.append(one if reader is None else reader(one))
                args = read
            if kwargs:
                read_named = {}
                for name, one in kwargs.items():
                    _, reader = places.by_name.get(name, places.more_named)
                    read_named[name] = one if reader is None else reader(one)
                kwargs = read_named
        except Unfit as error:
            raise ValueError(f"`{name}{error.path}` of `{self._name}` {error}") from None
        return args, kwargs

    @functools.cached_property
    def _places(self) -> _Places:
        hints = self._hints()
        places = {one.name: (one.name, self._reader(one, hints)) for one in self._parameters}
        more = [places[one.name] for one in self._parameters if one.kind is one.VAR_POSITIONAL]
        more_named = [places[one.name] for one in self._parameters if one.kind is one.VAR_KEYWORD]
        return _Places(
            by_place=[places[one.name] for one in self._parameters if one.kind in _BY_PLACE],
            by_name={one.name: places[one.name] for one in self._parameters if one.kind in _BY_NAME},
            more=more[0] if more else _ANYTHING,
            more_named=more_named[0] if more_named else _ANYTHING,
            result=self._readers.reader_of(hints["return"]) if "return" in hints else None,
        )

    def _reader(self, parameter: Parameter, hints: Mapping[str, Any]) -> Reader | None:
        if parameter.name not in hints:
            return None
        hint = hints[parameter.name]
        return self._readers.reader_of(hint | None if parameter.default is None and _is_type(hint) else hint)

    def _hints(self) -> dict[str, Any]:
        function = inspect.unwrap(self._function)
        if not inspect.isroutine(function):
            function = getattr(type(function), "__call__", function)  # noqa: B004  (an object to call)
        try:
            return typing.get_type_hints(function, include_extras=True)
        except NameError as error:
            raise WrongTask(
                f"`{self._name}`: the annotation `{error.name}` means nothing when the task runs: import it"
                " at the top of the module, not under TYPE_CHECKING nor inside of a function"
            ) from None
        except Exception as error:  # noqa: BLE001  (an annotation may be any expression)
            raise WrongTask(f"`{self._name}`: its annotations cannot be read: {error}") from None


def _is_type(hint: Any) -> bool:
    return isinstance(hint, type) and hint is not type(None)


_BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
