"""Values that do not fit, in sentences: where the value is, what it should be, and what it is.

Whoever wrote the job reads them, often in another language: they name no types of Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from presque import misfits
from presque.errors import shown
from presque.quantities import counted, quoted

Reader = Callable[[Any], Any]


class Unfit(ValueError):
    """A value does not fit its annotation. `path` says where it is, the text what is wrong with it; `wanted`
    is what it should be, if that is all there is to say."""

    def __init__(self, text: str, path: str = "", wanted: str = "") -> None:
        self.path, self.wanted = path, wanted
        super().__init__(text)

    def within(self, piece: str) -> Unfit:
        """The same, seen from one level further out."""
        return Unfit(str(self), f"{piece}{self.path}")


def wrong(wanted: str, value: Any) -> Any:
    kind = "the text " if isinstance(value, str) and _looks_like_another(value) else ""
    got = list_of(len(value)) if type(value) is list and wanted.startswith("a list of") else quoted(value)
    raise Unfit(f"should be {wanted}, not {kind}{got}", wanted=wanted)


def list_of(count: int) -> str:
    return f"a list of {counted(count, 'value')}"


def object_with(names: Sequence[str]) -> str:
    """What a class is in JSON, with as many of its fields as a sentence holds."""
    few = ", ".join(f"`{one}`" for one in names[:_NAMES_SHOWN])
    return f"an object with {few}{', …' if len(names) > _NAMES_SHOWN else ''}" if few else "an object"


_NAMES_SHOWN = 8


def one_of(options: Sequence[Any]) -> str:
    few = " or ".join(quoted(one) for one in options[:_NAMES_SHOWN])
    return few + (" or …" if len(options) > _NAMES_SHOWN else "")


def _looks_like_another(text: str) -> bool:
    """Whether a text, written as it is, would be taken for a number or the like."""
    return type(number(text)) is not str or text == "null"


def number(text: str) -> Any:
    """What a text stands for, such as a key: a number, true or false, or itself."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return text


def at(reader: Reader, value: Any, piece: str) -> Any:
    try:
        return reader(value)
    except Unfit as error:
        raise error.within(piece) from None


def member(name: str) -> str:
    """How a path goes on to a member of an object."""
    return f".{name}" if name.isidentifier() else f'["{shown(name)}"]'


def made_by(kind: type, make: Callable[[], Any], value: Any) -> Any:
    """What a class, or a hook, makes of a value: whatever it raises, the value does not fit."""
    try:
        return make()
    except Unfit:
        raise
    except Exception as error:  # noqa: BLE001  (a class of the job's own may raise anything)
        raise _unfit(kind, error, value) from None


def _unfit(kind: type, error: Exception, value: Any) -> Unfit:
    """The refusal of a class. Those of msgspec and of pydantic say where, and are told like our own."""
    text = " ".join(str(error).split())
    if said := misfits.should_be(text):
        return Unfit(said, misfits.place(text))
    if missing := misfits.missing_field(text):
        return Unfit(f"has no `{missing}`, which it needs", misfits.place(text))
    if callable(details := getattr(error, "errors", None)) and hasattr(kind, "__pydantic_validator__"):
        first = details()[0]
        path = "".join(f"[{one}]" if type(one) is int else member(str(one)) for one in first["loc"])
        return Unfit(f"does not fit: {first['msg'][:1].lower()}{first['msg'][1:]}", path)
    return Unfit(f"should be a valid `{kind.__name__}`, not {quoted(value)}: {text[:300]}")
