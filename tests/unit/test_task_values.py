"""Values of tasks as JSON, and back by their annotations."""

from __future__ import annotations

import collections
import collections.abc
import dataclasses
import enum
import ipaddress
import json
import typing
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID

import pytest

from presque.tasks.plain import plain
from presque.tasks.reading import Readers
from presque.tasks.unfit import Unfit

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = ("b", 1)


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    when: date = date(2031, 1, 1)


class Defaults(NamedTuple):
    a: int = 1
    b: int = 2


class Settings(TypedDict, total=False):
    when: typing.Required[datetime]
    ids: list[UUID]


@dataclasses.dataclass(frozen=True)
class Node:
    name: str
    children: list[Node] = dataclasses.field(default_factory=list)
    parent: Node | None = None
    size: int = dataclasses.field(init=False, default=5)


@dataclasses.dataclass
class Box(Generic[T]):
    what: T
    at: time


class Text(str):
    __slots__ = ()


class Other:
    """Nothing that presque knows."""


UserId = NewType("UserId", int)
UUID_1 = UUID("5b3c9e5e-6f0e-4a53-8d7b-3f8f0a2f2b11")
PARIS = timezone(timedelta(hours=1))

SAME: list[tuple[Any, Any, Any]] = [
    (Any, {"a": [1, None, True, 1.5, "x"]}, {"a": [1, None, True, 1.5, "x"]}),
    (int, 5, 5),
    (float, 5, 5),
    (bool, True, True),
    (str, "x", "x"),
    (None, None, None),
    (datetime, datetime(2031, 5, 7, 9, 30, tzinfo=UTC), "2031-05-07T09:30:00+00:00"),
    (datetime, datetime(2031, 5, 7, 9, 30, 0, 5, PARIS), "2031-05-07T09:30:00.000005+01:00"),
    (datetime, datetime(2031, 5, 7, 9, 30), "2031-05-07T09:30:00"),  # noqa: DTZ001
    (date, date(2031, 5, 7), "2031-05-07"),
    (time, time(9, 30), "09:30:00"),
    (timedelta, timedelta(minutes=5), 300),
    (timedelta, timedelta(microseconds=1500), 0.0015),
    (timedelta, -timedelta(hours=1), -3600),
    (UUID, UUID_1, str(UUID_1)),
    (Decimal, Decimal("12.50"), "12.50"),
    (bytes, b"\0\xff", "AP8="),
    (bytearray, bytearray(b"a"), "YQ=="),
    (Path, Path("a/b"), "a/b"),
    (PurePosixPath, PurePosixPath("/a"), "/a"),
    (Colour, Colour.RED, "red"),
    (Colour, Colour.BLUE, ["b", 1]),
    (Level, Level.LOW, 1),
    (UserId, UserId(5), 5),
    (list[date], [date(2031, 5, 7)], ["2031-05-07"]),
    (set[int], {3, 1, 2}, [1, 2, 3]),
    (frozenset[str], frozenset(("b", "a")), ["a", "b"]),
    (tuple[int, date], (1, date(2031, 5, 7)), [1, "2031-05-07"]),
    (tuple[date, ...], (date(2031, 5, 7),), ["2031-05-07"]),
    (tuple[()], (), []),
    (collections.deque[int], collections.deque([1]), [1]),
    (collections.abc.Sequence[Decimal], [Decimal(1)], ["1"]),
    (dict[str, UUID], {"a": UUID_1}, {"a": str(UUID_1)}),
    (dict[int, bool], {5: True}, {"5": True}),
    (dict[UUID, int], {UUID_1: 1}, {str(UUID_1): 1}),
    (dict[date, int], {date(2031, 5, 7): 1}, {"2031-05-07": 1}),
    (collections.abc.Mapping[str, Level], {"a": Level.LOW}, {"a": 1}),
    (datetime | None, None, None),
    (typing.Optional[date], date(2031, 5, 7), "2031-05-07"),  # noqa: UP045
    (int | str, "5", "5"),
    (int | str, 5, 5),
    (float | int, 5, 5),
    (str | UUID, UUID_1, str(UUID_1)),
    (str | UUID, "x", "x"),
    (list[int] | dict[str, int] | None, {"a": 1}, {"a": 1}),
    (Literal["a", 1, None], 1, 1),
    (typing.Annotated[date, "a note"], date(2031, 5, 7), "2031-05-07"),
    (Point, Point(1), [1, "2031-01-01"]),
    (Settings, {"when": datetime(2031, 5, 7, tzinfo=UTC)}, {"when": "2031-05-07T00:00:00+00:00"}),
    (
        Node,
        Node("a", [Node("b")], Node("c")),
        {
            "name": "a",
            "children": [{"name": "b", "children": [], "parent": None}],
            "parent": {"name": "c", "children": [], "parent": None},
        },
    ),
    (Box[int], Box(1, time(1)), {"what": 1, "at": "01:00:00"}),
    (Node | Box[int], Box(1, time(1)), {"what": 1, "at": "01:00:00"}),
    (Other, {"a": 1}, {"a": 1}),
    (object, [1], [1]),
    (T, [1], [1]),
]


@pytest.mark.parametrize(("annotation", "value", "said"), SAME, ids=range(len(SAME)))
def test_a_value_becomes_json_and_comes_back(annotation: Any, value: Any, said: Any) -> None:
    found = plain(value)
    assert found == said
    assert json.loads(json.dumps(found)) == found
    reader = Readers().reader_of(annotation)
    again = found if reader is None else reader(found)
    assert again == value
    assert type(again) is type(value) or reader is None or annotation is float


@pytest.mark.parametrize(
    ("annotation", "said", "value"),
    [
        (timedelta, "1h30m", timedelta(hours=1, minutes=30)),
        (timedelta, 1.5, timedelta(seconds=1.5)),
        (datetime, "2031-05-07T09:30:00Z", datetime(2031, 5, 7, 9, 30, tzinfo=UTC)),
        (datetime, 0, datetime(1970, 1, 1, tzinfo=UTC)),
        (int, 5.0, 5),
        (Decimal, 12.5, Decimal("12.5")),
        (Point, {"x": 1}, Point(1)),
        (Defaults, {"b": 5}, Defaults(1, 5)),
        (Node, {"name": "a"}, Node("a")),
    ],
)
def test_what_other_languages_say_is_understood(annotation: Any, said: Any, value: Any) -> None:
    reader = Readers().reader_of(annotation)
    assert reader is not None
    assert reader(said) == value


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        (int, "5", "should be a whole number, not the text `5`"),
        (int, 5.5, "should be a whole number, not `5.5`"),
        (int, None, "should be a whole number, not null"),
        (str, 5, "should be a text, not `5`"),
        (bool, 1, "should be true or false, not `1`"),
        (float, "x", "should be a number, not `x`"),
        (datetime, "yesterday", "should be a date and time such as 2031-05-07T09:30:00Z, not `yesterday`"),
        (datetime, 1e300, "should be a date and time such as"),
        (date, "2031-13-01", "should be a date such as 2031-05-07, not `2031-13-01`"),
        (time, 5, "should be a time such as 09:30:00, not `5`"),
        (timedelta, "5x", "should be a number of seconds, or a duration such as 90s or 1h30m, not `5x`"),
        (timedelta, 1e300, "should be a number of seconds"),
        (UUID, "x", "should be a UUID, not `x`"),
        (Decimal, "x", "should be a decimal number such as 12.50, not `x`"),
        (Decimal, [], "should be a decimal number, not a list"),
        (bytes, "?", "should be bytes in Base64, not `?`"),
        (Colour, "green", "should be `red` or a list, not `green`"),
        (Literal["a", "b"], "c", "should be `a` or `b`, not `c`"),
        (list[int], {}, "should be a list, not an object"),
        (set[Any], [[1]], "should be a list without lists or objects in it, not a list"),
        (tuple[int, int], [1], "should be a list of 2 values, not a list of 1 value"),
        (tuple[int, int], 5, "should be a list of 2 values, not `5`"),
        (dict[str, int], [], "should be an object, not a list"),
        (int | date, "x", "should be a whole number or a date such as 2031-05-07, not `x`"),
        (Node, 5, "should be an object with `name`, `children`, `parent`, not `5`"),
        (Node, {"nam": 1}, "has an unknown field `nam`, did you mean `name`?"),
        (Node, {}, "has no `name`, which it needs"),
        (bool | None, "x", "should be true or false or null, not `x`"),
        (list[int] | dict[str, int], "x", "should be a list or an object, not `x`"),
        (UUID | None, "x", "should be a UUID or null, not `x`"),
        (Node | None, {}, "has no `name`, which it needs"),
        (Literal[True, None, 3], 4, "should be `true` or null or `3`, not `4`"),
        (dict[int, int], {"x": 1}, "has the key `x`, which should be a whole number, not `x`"),
        (Point, 5, "should be a list of 2 values, not `5`"),
        (Point, [], "has no `x`, which it needs"),
        (Point, {"x": 1, "wen": "2031-01-01"}, "has an unknown field `wen`, did you mean `when`?"),
        (Point, [1, "2031-01-01", 3], "should be a list of 2 values, not a list of 3 values"),
        (Settings, {}, "has no `when`, which it needs"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(annotation: Any, value: Any, said: str) -> None:
    reader = Readers().reader_of(annotation)
    assert reader is not None
    with pytest.raises(Unfit) as raised:
        reader(value)
    assert str(raised.value).startswith(said)


@pytest.mark.parametrize(
    ("annotation", "value", "path"),
    [
        (list[dict[str, date]], [{}, {"a": "x"}], "[1].a"),
        (Node, {"name": "a", "children": [{"name": 1}]}, ".children[0].name"),
        (Node | None, {"name": "a", "children": [{"name": 1}]}, ".children[0].name"),
        (tuple[int, int], [1, "x"], "[1]"),
        (dict[str, int], {"a b": "x"}, '["a b"]'),
        (dict[int, int], {"x": 1}, ""),
        (Settings, {"when": 5, "ids": ["x"]}, ".ids[0]"),
        (Point, [1, "x"], ".when"),
    ],
)
def test_a_refusal_says_where(annotation: Any, value: Any, path: str) -> None:
    reader = Readers().reader_of(annotation)
    assert reader is not None
    with pytest.raises(Unfit) as raised:
        reader(value)
    assert raised.value.path == path


G = TypeVar("G")


@dataclasses.dataclass
class Chain(Generic[G]):
    item: G
    more: list[G] = dataclasses.field(default_factory=list)
    next: Chain[G] | None = None


@dataclasses.dataclass
class Dated(Chain[date]):
    name: str = ""


@dataclasses.dataclass
class Lists(Chain[list[G]], Generic[G]):
    own: G | None = None


class Pair(NamedTuple, Generic[G]):
    a: G
    b: G


class Entry(TypedDict, Generic[G]):
    value: G


DAY = date(2031, 5, 7)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Chain[date], Chain(DAY, [DAY], Chain(DAY))),
        (list[Chain[UUID]], [Chain(UUID(int=1))]),
        (Chain[Chain[date]], Chain(Chain(DAY))),
        (Dated, Dated(DAY, [DAY], name="x")),
        (Lists[date], Lists([DAY], [[DAY]], own=DAY)),
        (Pair[date], Pair(DAY, DAY)),
        (Entry[date], {"value": DAY}),
        (Chain[typing.Annotated[int, ["no hash"]]], Chain(5)),
    ],
)
def test_what_stands_in_brackets_holds_inside(annotation: Any, value: Any) -> None:
    reader = Readers().reader_of(annotation)
    assert reader is not None
    assert reader(json.loads(json.dumps(plain(value)))) == value


def test_the_same_class_with_other_brackets_is_read_otherwise() -> None:
    readers = Readers()
    dates, numbers, anything = (readers.reader_of(one) for one in (Chain[date], Chain[int], Chain))
    assert dates is not None
    assert numbers is not None
    assert anything is not None
    said = {"item": "2031-05-07"}
    assert (dates(said).item, anything(said).item) == (DAY, "2031-05-07")
    with pytest.raises(Unfit, match="should be a whole number"):
        numbers(said)


@pytest.mark.parametrize("annotation", [date | datetime, datetime | date, datetime | date | None])
def test_a_day_stays_a_day_beside_a_moment(annotation: Any) -> None:
    reader = Readers().reader_of(annotation)
    assert reader is not None
    assert reader("2031-05-07") == DAY
    assert type(reader("2031-05-07")) is date
    assert reader("2031-05-07T09:30:00") == datetime(2031, 5, 7, 9, 30)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        (int, "1", "should be a whole number, not the text `1`"),
        (float, "1.5", "should be a number, not the text `1.5`"),
        (bool, "true", "should be true or false, not the text `true`"),
        (type(None), "null", "should be null, not the text `null`"),
        (int, "one", "should be a whole number, not `one`"),
    ],
)
def test_a_text_that_looks_like_what_is_wanted_is_called_one(annotation: Any, value: str, said: str) -> None:
    reader = Readers().reader_of(annotation)
    assert reader is not None
    with pytest.raises(Unfit) as raised:
        reader(value)
    assert str(raised.value) == said


@pytest.mark.parametrize("value", [object(), Other(), 1j, {(1, 2): 1}, [object()], Node])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="JSON cannot represent a"):
        plain(value)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": -float("inf")}])
def test_what_json_has_no_number_for_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON cannot represent"):
        plain(value)


@pytest.mark.parametrize(
    "value",
    ["\ud800", ["caf\udce9"], {"a": "\ud83d and more"}, {"\udce9": 1}, Path("caf\udce9"), Text("\udce9")],
)
def test_half_a_character_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="the text has half a character at "):
        plain(value)


@pytest.mark.parametrize(
    ("annotation", "missing"),
    [
        (collections.defaultdict[str, int], 0),
        (collections.defaultdict[str, list[date]], []),
        (typing.DefaultDict[str, dict[str, int]], {}),  # noqa: UP006
    ],
)
def test_a_defaultdict_has_something_for_a_key_that_is_missing(annotation: Any, missing: Any) -> None:
    reader = Readers().reader_of(annotation)
    assert reader is not None
    found = reader({})
    assert type(found) is collections.defaultdict
    assert found["new"] == missing
    with pytest.raises(Unfit):
        reader({"a": "x"})


@pytest.mark.parametrize("annotation", [collections.defaultdict, collections.defaultdict[str, int | None]])
def test_a_defaultdict_of_anything_has_nothing_for_a_key_that_is_missing(annotation: Any) -> None:
    reader = Readers().reader_of(annotation)
    assert reader is not None
    with pytest.raises(KeyError):
        reader({"a": 1})["new"]


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(ValueError, match="nested too deep"):
        plain(value)


def test_one_pair_of_hooks_is_asked_for_what_is_not_known() -> None:
    kind = ipaddress.IPv4Address

    def encode(value: Any) -> Any:
        if isinstance(value, kind):
            return str(value)
        raise TypeError(f"not a {type(value).__name__}")

    def decode(of: type, value: Any) -> Any:
        return of(value)

    address = kind("10.0.0.1")
    assert plain({"a": [address]}, encode) == {"a": ["10.0.0.1"]}
    reader = Readers(decode).reader_of(list[kind])  # type: ignore[valid-type]
    assert reader is not None
    assert reader(["10.0.0.1"]) == [address]
    with pytest.raises(Unfit, match=r"should be a valid `IPv4Address`, not `x`: Expected"):
        reader(["x"])
    with pytest.raises(TypeError, match="not a Other"):
        plain(Other(), encode)


def test_models_of_pydantic_are_said_and_read() -> None:
    pydantic = pytest.importorskip("pydantic")

    class User(pydantic.BaseModel):  # type: ignore[misc,name-defined]
        name: str
        born: date
        ids: set[UUID]

    user = User(name="ana", born=date(2000, 1, 1), ids={UUID_1})
    said = plain([user])
    assert said == [{"name": "ana", "born": "2000-01-01", "ids": [str(UUID_1)]}]
    reader = Readers().reader_of(list[User])
    assert reader is not None
    assert reader(said) == [user]
    with pytest.raises(Unfit, match=r"^does not fit: field required$") as raised:
        reader([{"name": "ana"}])
    assert raised.value.path == "[0].born"


def test_structs_of_msgspec_are_said_and_read() -> None:
    msgspec = pytest.importorskip("msgspec")
    kind = msgspec.defstruct("Kind", [("name", str), ("born", date)])
    value = kind("ana", date(2000, 1, 1))
    assert plain(value) == {"name": "ana", "born": "2000-01-01"}
    reader = Readers().reader_of(kind)
    assert reader is not None
    assert reader(plain(value)) == value
    with pytest.raises(Unfit, match=r"^should be a text, not a whole number$") as raised:
        reader({"name": 5})
    assert raised.value.path == ".name"
    with pytest.raises(Unfit, match=r"^has no `born`, which it needs$"):
        reader({"name": "ana"})


def test_classes_of_attrs_are_said_and_read() -> None:
    attrs = pytest.importorskip("attrs")

    user_class: Any = attrs.make_class(
        "User", {"name": attrs.field(type=str), "_born": attrs.field(type=date)}
    )
    user_class.__annotations__ = {"name": str, "_born": date}
    user = user_class("ana", born=date(2000, 1, 1))
    assert plain(user) == {"name": "ana", "_born": "2000-01-01"}
    reader = Readers().reader_of(user_class)
    assert reader is not None
    assert reader(plain(user)) == user
