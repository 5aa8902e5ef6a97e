"""What queues and workers may be called, and what a queue list stands for."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presque import names
from presque.errors import InvalidName
from presque.names import QueueList


@pytest.mark.parametrize("name", ["a", "Z", "0", "a" * 128, "a._:@~+-", "mail.high", "1-2", "A" + "~" * 127])
def test_a_name_within_the_rule_is_taken(name: str) -> None:
    assert names.queue(name) == name
    assert names.queue_list(name) == QueueList((name,), (), name)


@pytest.mark.parametrize(
    "name",
    ["", "a" * 129, ".a", "_a", ":a", "-", "+a", "a b", "a/b", "a{b}", "a\n", "\na", "a\x00", "é", "a,b",
     "a*", "!a", "a?", "\uff41", "a\u200b", "a\u0301", "\u0661"],
)  # fmt: skip
def test_a_name_that_breaks_the_rule_is_refused(name: str) -> None:
    with pytest.raises(InvalidName, match=re.escape(f"is not a valid queue name: use {names.QUEUE_RULE}")):
        names.queue(name)


def test_the_error_shows_a_name_short_and_harmless() -> None:
    with pytest.raises(InvalidName) as caught:
        names.queue("\x1b[31m\r\n" + "x" * 1000)
    assert str(caught.value).startswith("`?[31m??" + "x" * 57 + "…`")


@given(st.text(max_size=140))
def test_no_name_that_is_taken_can_move_a_key_or_split_a_line(name: str) -> None:
    try:
        names.queue(name)
    except InvalidName:
        return
    assert name.isascii()
    assert name.isprintable()
    assert not set(name) & set("{}/ ,*?!")


@pytest.mark.parametrize("id", ["w", "host.example:123:foo,bar", "x" * 256, "!~{}"])
def test_a_worker_may_be_called_anything_visible(id: str) -> None:
    assert names.worker(id) == id


@pytest.mark.parametrize("id", ["", "a b", "a\n", "\t", "é", "x" * 257, "\x7f"])
def test_a_worker_id_that_breaks_the_rule_is_refused(id: str) -> None:
    with pytest.raises(InvalidName, match="is not a valid worker id: use 1 to 256 visible ASCII characters"):
        names.worker(id)


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a", QueueList(("a",), (), "a")),
        ("a,b", QueueList(("a", "b"))),
        ("a,a", QueueList(("a",), (), "a")),
        ("a,!b", QueueList(("a",), ("b",), "a")),
        ("*", QueueList(("*",))),
        ("critical,*,!bulk_*", QueueList(("critical", "*"), ("bulk_*",))),
        ("!x?,a*", QueueList(("a*",), ("x?",))),
    ],
)
def test_a_queue_list_is_read(text: str, read: QueueList) -> None:
    assert names.queue_list(text) == read


@pytest.mark.parametrize(
    "text", ["", ",", "a,", ",a", "a,,b", "!", "!!a", "a!b,", "a b", "[a]", "a{b}*", "*" * 129, ".*", "é*"]
)
def test_a_queue_list_with_a_part_that_breaks_the_rule_is_refused(text: str) -> None:
    with pytest.raises(InvalidName, match="is not a queue name or pattern"):
        names.queue_list(text)


@pytest.mark.parametrize("text", ["!a", "!*", "!a,!b"])
def test_a_queue_list_that_only_excludes_is_refused(text: str) -> None:
    with pytest.raises(InvalidName, match="this list only excludes"):
        names.queue_list(text)


def test_a_queue_list_has_64_parts_at_most() -> None:
    assert len(names.queue_list(",".join(f"q{n}" for n in range(64))).items) == 64
    with pytest.raises(InvalidName, match="at most 64 parts, this one has 65"):
        names.queue_list(",".join(f"q{n}" for n in range(65)))


@pytest.mark.parametrize(
    ("text", "known", "order"),
    [
        ("b,a", [], "b a"),
        ("*", ["c", "a", "b"], "a b c"),
        ("c,*", ["c", "a", "b"], "c a b"),
        ("*,c", ["c", "a"], "a c"),
        ("*,x", ["a"], "a x"),
        ("x,*", ["a"], "x a"),
        ("b?,*", ["a", "b1", "b22", "c"], "b1 a b22 c"),
        ("*,!b*", ["a", "b", "bb"], "a"),
        ("!b*,*", ["a", "b", "bb"], "a"),
        ("b,*,!b*", ["a", "b", "bb"], "b a"),
        ("*", [], ""),
        ("A*", ["a", "A"], "A"),
        ("*.b", ["a.b", "ab", "a.b.b"], "a.b a.b.b"),
    ],
)
def test_a_glob_stands_for_known_queues_in_alphabetical_order(
    text: str, known: list[str], order: str
) -> None:
    assert " ".join(names.queue_list(text).expand(known)) == order


def _fits(pattern: str, name: str) -> bool:
    """Whether a glob matches, worked out letter by letter."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return any(_fits(pattern[1:], name[skipped:]) for skipped in range(len(name) + 1))
    return bool(name) and pattern[0] in ("?", name[0]) and _fits(pattern[1:], name[1:])


def _order(parts: list[str], known: set[str]) -> list[str]:
    """What a queue list stands for, in the slowest and plainest way."""
    out = [part[1:] for part in parts if part.startswith("!")]
    order: list[str] = []
    for part in parts:
        if part.startswith("!"):
            continue
        if "*" in part or "?" in part:
            order += [n for n in sorted(known) if _fits(part, n) and not any(_fits(o, n) for o in out)]
        else:
            order.append(part)
    return [name for at, name in enumerate(order) if name not in order[:at]]


_name = st.text("ab.", min_size=1, max_size=4).filter(lambda text: text[0] != ".")
_glob = st.text("ab.*?", min_size=1, max_size=4).filter(lambda text: text[0] != ".")
_part = st.one_of(_name, _glob, _glob.map(lambda glob: f"!{glob}"))


@given(st.lists(_part, min_size=1, max_size=6), st.sets(_name, max_size=12))
def test_a_queue_list_stands_for_what_the_plain_model_says(parts: list[str], known: set[str]) -> None:
    if all(part.startswith("!") for part in parts):
        return
    wanted = names.queue_list(",".join(parts))
    order = _order(parts, known)

    assert wanted.expand(known) == order
    assert {name for name in known if wanted.matches(name)} == known & set(order)
    assert wanted.single in (None, *order)
    if wanted.single is not None:
        assert order == [wanted.single]
    if not wanted.globs:
        assert wanted.expand(()) == order
