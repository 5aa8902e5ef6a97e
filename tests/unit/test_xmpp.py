"""Addresses, the parser, words and stanzas of the XMPP door: no I/O."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presque.errors import CallerError, InvalidName, NotPermitted
from presque.verbs import COMMANDS
from presque.verbs.verb import Verb
from presque.xmpp import stanzas, words
from presque.xmpp.accounts import Accounts
from presque.xmpp.addresses import address, queue_of
from presque.xmpp.parsing import TOO_LARGE, BadStream, Parser

HEAD = (
    b"<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' id='1'>"
)
QUEUES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:@~+-]{0,127}", fullmatch=True)


# --- addresses


@pytest.mark.parametrize(
    ("queue", "jid"),
    [
        ("mail", "mail@presque.example"),
        ("Mail", r"\4dail@presque.example"),
        ("a:b@c", r"a\3ab\40c@presque.example"),
        ("a.b~c+d-e_f", "a.b~c+d-e_f@presque.example"),
    ],
)
def test_a_queue_has_one_address_and_the_address_one_queue(queue: str, jid: str) -> None:
    assert address(queue, "presque.example") == jid
    assert queue_of(jid) == queue
    assert queue_of(f"{jid}/anything@at/all") == queue


@given(QUEUES)
def test_every_name_survives_what_servers_do_to_addresses(queue: str) -> None:
    jid = address(queue, "presque.example")
    assert jid == jid.lower()
    assert queue_of(jid) == queue


def test_the_address_without_a_name_is_that_of_presque_itself() -> None:
    assert queue_of("presque.example") is None


@pytest.mark.parametrize(
    "local", ["-a", "Mail", r"\6dail", r"a\20b", r"a\zz", "a b", r"\2a", "é", "x" * 129, r"a\\"]
)
def test_what_is_not_the_address_of_a_queue_is_refused(local: str) -> None:
    with pytest.raises(InvalidName, match="not the address of a queue"):
        queue_of(f"{local}@presque.example")


# --- who


def test_an_account_has_its_own_rules_or_else_those_of_its_domain() -> None:
    accounts = Accounts(
        {"ana@a.example": ["push:mail*"], "a.example": ["*:*"], "b.example": ["read:*"]},
        {"a.example": ["control:*"]},
    )
    ana, bob = accounts.who("ana@a.example/desk"), accounts.who("bob@a.example")
    assert ana is not None
    assert bob is not None
    ana.may("push", "mail1")
    bob.may("admin", "mail1")
    for who, scope, queue in ((ana, "push", "other"), (ana, "read", "mail1"), (bob, "control", "mail1")):
        with pytest.raises(NotPermitted, match=f"{who.name} is not allowed to `{scope}:{queue}`"):
            who.may(scope, queue)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "jid",
    ["eve@c.example", "ana@a.example.evil", "ana@x.a.example", "a.example@evil/a.example", "", "@",
     "/a.example", "ana@a.example@evil", "evil/ana@a.example", "ana%a.example@evil", "ANA@a.example"],
)  # fmt: skip
def test_whoever_is_not_in_the_map_is_a_stranger(jid: str) -> None:
    assert Accounts({"ana@a.example": ["*:*"]}, {}).who(jid) is None


# --- the parser


def read(parts: list[bytes], most: int = 100_000) -> list[Element]:
    """The stanzas in some bytes."""
    parser, found = Parser(most), []
    for part in parts:
        parser.feed(part)
        depth = 0
        for event, element in parser.read_events():
            depth += 1 if event == "start" else -1
            if event == "end":
                found.append(element)
    return found


def test_stanzas_come_whole_however_they_are_cut() -> None:
    text = HEAD + "<message a='é'>x<body>1 &lt; 2</body>y<z xmlns='u'><w/></z></message><iq/>".encode()
    whole = read([text])
    assert [one.tag for one in whole] == [f"{{jabber:component:accept}}{name}" for name in ("message", "iq")]
    [message, _] = whole
    assert stanzas.text_of(stanzas.child(message, "body")) == "1 < 2"
    assert message.find("{u}z/{u}w") is not None
    bytes_by_bytes = read([bytes([one]) for one in text])
    assert [ElementTree.tostring(one) for one in bytes_by_bytes] == [
        ElementTree.tostring(one) for one in whole
    ]


@pytest.mark.parametrize(
    "bad",
    [
        b"<!DOCTYPE a [<!ENTITY x 'y'>]><a/>",
        HEAD + b"<!-- a comment -->",
        HEAD + b"<?php evil ?>",
        HEAD + b"<message>&lol;</message>",
        HEAD + b"<message><body></message>",
        HEAD + b"<message>\x00</message>",
        HEAD + b"<message>\xff</message>",
        HEAD + b"<message a='1' a='2'/>",
        HEAD + b"<x:message/>",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_what_is_not_a_stream_ends_it(bad: bytes) -> None:
    with pytest.raises(BadStream):
        read([bad])


@pytest.mark.parametrize(
    "inside",
    [b"x" * 2000, b"<a/>" * 5000, b"<a>" * 100 + b"</a>" * 100, b"<a b='%b'/>" % (b"c" * 2000)],
    ids=["text", "elements", "depth", "attribute"],
)
def test_of_a_stanza_beyond_the_bounds_only_its_outside_is_kept_and_the_next_one_is_whole(
    inside: bytes,
) -> None:
    stanza = b"<message from='a@b' id='7'><body>%b</body></message><iq id='8'/>" % inside
    large, following = read([HEAD, stanza[:100], stanza[100:]], most=1000)
    assert (large.get("id"), len(large), large.get(TOO_LARGE)) == ("7", 0, "1")
    assert (following.get("id"), following.get(TOO_LARGE)) == ("8", None)


def test_a_stanza_cannot_say_of_itself_that_it_is_too_large_and_be_kept() -> None:
    [stanza] = read([HEAD + f"<message {TOO_LARGE}='1'><body>stop</body></message>".encode()])
    assert len(stanza) == 0


# --- writing


def test_what_is_written_reads_back_as_it_was() -> None:
    words_ = "a <b> & 'c' \"d\" ]]> \r\n\t é 🙂"
    [found] = read([HEAD, stanzas.tag("message", stanzas.body(words_), to=words_).encode()])
    assert stanzas.text_of(stanzas.child(found, "body")) == words_
    assert found.get("to") == words_


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_survives_xml_and_keeps_its_value(value: Any) -> None:
    document = json.dumps(value, ensure_ascii=False)
    try:
        encoded = document.encode()
    except UnicodeEncodeError:
        return  # half a character: presque takes no such job
    [found] = read([HEAD, stanzas.tag("message", stanzas.payload(encoded)).encode()], most=10**7)
    text = stanzas.text_of(found.find("{urn:presque:0}json"))
    assert text is not None
    assert json.loads(text) == value


def test_a_character_that_xml_cannot_have_does_not_end_the_stream() -> None:
    said = stanzas.tag("message", stanzas.body("a\x00\x0b\ufffe\uffffb"), to="\x00").encode()
    [found] = read([HEAD, said])
    assert stanzas.text_of(stanzas.child(found, "body")) == "a\ufffd\ufffd\ufffd\ufffdb"


# --- words


def asked(line: str, queue: str | None = "mail") -> tuple[str, dict[str, str]]:
    found = words.read(line, queue)
    return found.verb.name, found.given


@pytest.mark.parametrize(
    ("line", "verb", "given"),
    [
        ("stats", "stats", {}),
        ("  STATS  ", "stats", {}),
        ("jobs dead", "jobs", {"state": "dead"}),
        ("jobs dead 5", "jobs", {"state": "dead", "limit": "5"}),
        ("jobs limit=5 state=dead", "jobs", {"state": "dead", "limit": "5"}),
        ("retry 42", "retry", {"id": "42"}),
        ("retry", "retry_all", {}),
        ("peek 3", "peek", {"count": "3"}),
        ("policy", "policy", {}),
        ("policy lease=30s rate.count=5", "change_policy", {"lease": "30s", "rate.count": "5"}),
        ("purge forget", "purge", {"forget": "true"}),
        ('push {"a": "b = c"}', "push", {"job": '{"a": "b = c"}'}),
        ('push priority=9 delay=5m {"a": 1}', "push", {"priority": "9", "delay": "5m", "job": '{"a": 1}'}),
        ('push "a text"', "push", {"job": '"a text"'}),
        ("push 42", "push", {"job": "42"}),
        ("ack", "ack", {}),
        ("ack 42", "ack", {"id": "42"}),
        ('ack 42 {"sent": true}', "ack", {"id": "42", "result": '{"sent": true}'}),
        ("fail the disk is full", "fail", {"error": "the disk is full"}),
        ("fail 42 a=b is wrong", "fail", {"id": "42", "error": "a=b is wrong"}),
        ("fail retry=false no such user", "fail", {"retry": "false", "error": "no such user"}),
        ("release 42 delay=5m", "release", {"id": "42", "delay": "5m"}),
        ("extend seconds=60", "extend", {"seconds": "60"}),
        ("change 42 priority=9", "change", {"id": "42", "priority": "9"}),
        ('put_cron nightly schedule="0 3 * * *" {"n": 1}', "put_cron",
         {"name": "nightly", "schedule": "0 3 * * *", "body": '{"n": 1}'}),
        ("tell_worker w1 quiet", "tell_worker", {"worker_id": "w1", "status": "quiet"}),
    ],
)  # fmt: skip
def test_a_line_says_a_command(line: str, verb: str, given: dict[str, str]) -> None:
    assert asked(line) == (verb, given)


def test_without_a_queue_in_the_address_the_line_names_it() -> None:
    assert asked("stats mail", None) == ("stats", {"queue": "mail"})
    assert asked("stats", None) == ("all_stats", {})
    assert asked("peek mail 3", None) == ("peek", {"queue": "mail", "count": "3"})
    assert asked('push mail {"a":1}', None) == ("push", {"queue": "mail", "job": '{"a":1}'})


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("statz", "there is no command `statz`: did you mean `stats`?"),
        ("xyzzy", "expected one of"),
        ("stop it now", "`it` is too much: say stop"),
        ("jobs stat=dead", "unknown field `stat`, did you mean `state`?"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(line: str, says: str) -> None:
    with pytest.raises(CallerError) as error:
        asked(line)
    assert says in str(error.value)


def test_values_are_read_as_everywhere() -> None:
    verb = words.IN_WORDS["change_policy"]
    found = words.fields_of(
        verb, {"lease": "30s", "ttl": "null", "rate.count": "5", "rate.seconds": "1m"}, "mail"
    )
    assert found == {"queue": "mail", "lease": 30_000, "ttl": None, "rate": {"count": 5, "seconds": 60_000}}
    for said, says in (
        ({"lease": "soon"}, "`lease` should be seconds"),
        ({"rate.count": "5"}, "`seconds` is missing"),
        ({"rate": "5"}, "say them one by one, as in rate.count="),
        ({"rate.sec": "5"}, "did you mean `rate.seconds`?"),
    ):
        with pytest.raises(CallerError) as error:
            words.fields_of(verb, said, "mail")
        assert says in str(error.value), said


@given(st.sampled_from(sorted(words.IN_WORDS)), st.text(max_size=60))
def test_whatever_is_typed_is_understood_or_refused(word: str, rest: str) -> None:
    try:
        found = words.read(f"{word} {rest}", "mail")
        words.fields_of(found.verb, found.given, "mail")
    except CallerError:
        pass


@pytest.mark.parametrize("verb", words.IN_WORDS.values(), ids=lambda one: one.name)
def test_every_command_has_help(verb: Verb) -> None:
    text = words.help_about(verb, "mail")
    assert verb.means in text
    for name in verb.members.keys() - {"queue"}:
        assert name in text


def test_every_command_can_be_typed_but_those_that_only_programs_need() -> None:
    lists = {
        name
        for name, verb in COMMANDS.items()
        if any(one.kind.value == "list" for one in verb.fields.values())
    }
    assert lists <= set(words._FOR_PROGRAMS)


def test_answers_keep_the_jobs_as_they_are() -> None:
    big = b'{"n":123456789012345678901234567890.5}'
    assert words.readable("fetch", b'{"queue":"q","id":"1","body":%b}' % big) == big.decode()
    assert big.decode() in words.readable("peek", b'{"queue":"q","ready":1,"jobs":[%b]}' % big)
    assert big.decode() in words.readable("jobs", b'{"jobs":[{"id":"1","body":%b}],"cursor":null}' % big)
