"""The fields of a request: what is taken, what it becomes, and what is said of the rest."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from presque import codec, fields
from presque.commands import leases
from presque.commands.jobs import push_options
from presque.engine.engine import pack
from presque.errors import CallerError, UnknownParameter
from presque.fields import Kind
from presque.job import PLAIN, PushOptions
from presque.verbs import COMMANDS, LIVE_COMMANDS, VERBS, bounds
from presque.verbs.verb import Verb
from presque.verbs.vocabulary import OF_A_SETTLE, QUEUES

PUSH = VERBS["push"].parameters


def options_of(texts: dict[str, str]) -> PushOptions:
    return push_options(fields.read_texts(PUSH, texts))


def test_no_fields_are_the_plain_options_themselves() -> None:
    assert push_options({"queue": "q", "job": b"1"}) is PLAIN  # the engine has a short cut for exactly these


@pytest.mark.parametrize(
    ("texts", "options"),
    [
        ({"priority": "9"}, PushOptions(priority=9)),
        ({"delay": "1.5"}, PushOptions(delay=1500)),
        ({"delay": "1h30m"}, PushOptions(delay=5_400_000)),
        ({"delay": "0.0001"}, PushOptions(delay=1)),
        ({"delayed": "1700000000"}, PushOptions(delayed=1_700_000_000_000)),
        ({"delayed": "2023-11-14T22:13:20Z"}, PushOptions(delayed=1_700_000_000_000)),
        ({"delayed": "2023-11-14 23:13:20 01:00"}, PushOptions(delayed=1_700_000_000_000)),
        ({"delayed": ""}, PushOptions()),
        ({"ttl": "0.001"}, PushOptions(ttl=1)),
        ({"ttl": "1209600"}, PushOptions(ttl=1_209_600_000)),
        ({"attempts": "1000", "keep": "0"}, PushOptions(attempts=1000, keep=0)),
        ({"keep": "1.2"}, PushOptions(keep=2)),
        ({"uniq": "a|b\n", "uniq_until": "done"}, PushOptions(uniq="a|b\n", uniq_until="done")),
    ],
)
def test_push_options_are_read(texts: dict[str, str], options: PushOptions) -> None:
    assert options_of(texts) == options


@given(st.dictionaries(st.sampled_from(list(PUSH)), st.text(max_size=12) | st.from_regex(r"[0-9]{1,12}\Z")))
@example({"priority": "1"})
def test_push_options_are_within_bounds_or_refused(texts: dict[str, str]) -> None:
    with contextlib.suppress(CallerError):
        options = options_of(texts)
        assert 1 <= options.priority <= 9
        for number in options.delayed, options.delay, options.ttl, options.attempts, options.keep:
            assert number is None or 0 <= number < 2**48
        assert codec.unpack(pack(options)).get("priority", 5) == options.priority


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"priority": "0"}, "`priority` should be a whole number from 1 to 9, not `0`"),
        ({"priority": "high"}, "`priority` should be a whole number from 1 to 9, not `high`"),
        ({"priority": "5.0"}, "`priority` should be a whole number from 1 to 9, not `5.0`"),
        (
            {"ttl": "0"},
            "`ttl` should be seconds from 0.001 to 315360000, or a duration such as 90s or 1h30m, not `0`",
        ),
        (
            {"delayed": "soon"},
            "`delayed` should be epoch seconds or a time such as 2031-05-07T09:30:00Z, not `soon`",
        ),
        ({"uniq_until": "never", "uniq": "k"}, "`uniq_until` should be `fetch` or `done`, not `never`"),
        ({"group": ""}, "`group` should not be empty"),
        ({"group": "x" * 256}, "`group` should be at most 255 bytes, not 256"),
    ],
)
def test_what_is_out_of_bounds_is_said_with_the_bounds(texts: dict[str, str], said: str) -> None:
    with pytest.raises(CallerError) as caught:
        options_of(texts)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("given_fields", "said"),
    [
        ({"delay": 1, "delayed": 2}, "give `delay` or `delayed`, not both"),
        ({"uniq_until": "done"}, "`uniq_until` goes with `uniq`: give `uniq` too"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(given_fields: dict[str, Any], said: str) -> None:
    with pytest.raises(CallerError) as caught:
        fields.check_together(PUSH, given_fields)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("wiat", ("wait",), "unknown parameter `wiat`, did you mean `wait`?"),
        ("zzz", ("batch_size", "limit"), "unknown parameter `zzz`, expected one of `batch_size`, `limit`"),
        ("zzz", (), "unknown parameter `zzz`, this route takes none"),
        ("x" * 100, (), f"unknown parameter `{'x' * 64}…`, this route takes none"),
    ],
)
def test_an_unknown_field_is_named_with_its_nearest_neighbour(
    name: str, known: tuple[str, ...], said: str
) -> None:
    rows = {field.name: field for field in _all_fields() if field.name in known}
    with pytest.raises(UnknownParameter) as caught:
        fields.read_texts(rows, {name: "1"})
    assert str(caught.value) == said


def _all_fields() -> list[fields.Field]:
    return [field for verb in VERBS.values() for field in verb.fields.values()]


@given(
    st.sampled_from([field for field in _all_fields() if field.kind != Kind.JSON]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    ),
)
def test_any_value_is_read_or_refused_with_a_sentence(field: fields.Field, value: Any) -> None:
    try:
        field.read(value)
    except CallerError as error:
        assert str(error)  # noqa: PT017


@given(
    st.sampled_from([f for f in _all_fields() if f.kind in (Kind.WHOLE, Kind.DURATION, Kind.FLAG)]), st.data()
)
def test_text_and_json_mean_the_same(field: fields.Field, data: st.DataObject) -> None:
    if field.kind is Kind.FLAG:
        value: Any = data.draw(st.booleans())
        text = str(value).lower()
    else:
        value = data.draw(st.integers(int(field.least) + 1, int(min(field.most, 10**9))))
        text = str(value)
    assert field.read(value) == field.read_text(text)


def test_huge_numbers_are_refused_by_every_field() -> None:
    for field in _all_fields():
        if field.kind in (Kind.WHOLE, Kind.NUMBER, Kind.DURATION, Kind.MOMENT):
            for huge in (10**309, -(10**309), 10**4299, 1e308):
                with pytest.raises(CallerError):
                    field.read(huge)


# --- the page of verbs


def test_no_two_verbs_have_one_route() -> None:
    seen: dict[tuple[str | None, str | None], str] = {}
    for verb in VERBS.values():
        if verb.route is not None:
            other = seen.setdefault((verb.route, verb.when), verb.name)
            assert other == verb.name


def test_what_stands_in_a_path_is_a_field_of_the_verb() -> None:
    for verb in VERBS.values():
        assert set(verb.in_path) <= set(verb.fields)


def test_a_field_that_goes_with_another_names_one_that_is_there() -> None:
    for verb in VERBS.values():
        for field in verb.fields.values():
            assert field.needs is None or field.needs in verb.fields
            assert field.instead_of is None or field.instead_of in verb.fields


def test_what_is_wrong_in_a_list_says_where_and_an_error_that_others_share_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = UnknownParameter("x", ["y"])
    text = str(shared)

    def refuse(_field: fields.Field, _value: Any) -> Any:
        raise shared

    monkeypatch.setitem(fields._VALUES, Kind.TEXT, refuse)
    rule = fields.Field(name="rule", kind=Kind.TEXT, means="A rule.")
    rules = fields.Field(name="rules", kind=Kind.LIST, means="Some rules.", of=rule, most=9)
    for _ in range(2):
        with pytest.raises(UnknownParameter) as raised:
            rules.read(["a"])
        assert str(raised.value) == f"rules[0]: {text}"
    assert str(shared) == text


def test_every_verb_says_what_it_means_and_who_may_ask_it() -> None:
    for verb in VERBS.values():
        assert verb.means.endswith(".")
        assert verb.scope in ("push", "fetch", "lease", "read", "control", "admin", "any")
        assert not (verb.reads and verb.method not in ("GET", "")), verb.name
        assert not (verb.reads and verb.scope not in ("read", "admin", "any")), verb.name


def test_a_get_reads_or_takes_or_streams() -> None:
    for verb in VERBS.values():
        if verb.method == "GET":
            assert verb.reads or verb.takes or verb.streams, verb.name


def test_every_verb_has_its_function_and_every_function_its_verb() -> None:
    from presque.commands.carrying import RUN

    assert set(RUN) | {"commands", "stream", "events", "export", "openapi", "login", "logout"} == set(VERBS)
    assert set(COMMANDS) <= set(RUN)
    assert set(LIVE_COMMANDS) == set(COMMANDS) | {"hello"}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"scope": ""}, "has no scope"),
        ({"scope": "write", "over": "all"}, "has no scope"),
        ({"scope": "read"}, "names no queue"),
        (
            {"scope": "control", "fields": {"queues": replace(QUEUES, required=False)}},
            "names no queue",
        ),
    ],
)
def test_a_row_that_does_not_say_what_a_token_must_allow_does_not_load(
    fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        Verb(name="new", means="Something.", **fields)
    with pytest.raises(TypeError, match="scope"):
        Verb(name="new", means="Something.")  # type: ignore[call-arg]


def test_the_decoder_of_settlements_knows_the_fields_of_their_rows() -> None:
    kinds = {"ack": leases.Ack, "fail": leases.Fail, "release": leases.Release, "extend": leases.Extend}
    assert set(leases.SettleRequest.__struct_fields__) == set(OF_A_SETTLE) == set(kinds)
    for name, kind in kinds.items():
        rows = {field.name for field in OF_A_SETTLE[name][1]}
        assert set(kind.__struct_fields__) == rows | {"queue", "id", "ids", "lease"}


def test_the_bounds_are_those_of_the_rows() -> None:
    assert VERBS["fetch"].fields["wait"].most == bounds.WAIT_MOST
    assert VERBS["lease"].fields["count"].most == bounds.BATCH_MOST
