"""Who waits, in which order, and for which queues."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from presque import names
from presque.engine.lines import Lines, Waiter
from presque.job import Ask


def waiter(wanted: str) -> Waiter:
    return Waiter(names.queue_list(wanted), lambda _found: True, Ask(for_good=True))


def join(lines: Lines, wanted: str, known: tuple[str, ...] = ()) -> Waiter:
    found = waiter(wanted)
    lines.join(found, known)
    return found


def test_nobody_waits_at_first() -> None:
    lines = Lines()
    assert lines.next("a") is None
    assert lines.waiting("a") == 0
    assert lines.queues() == []
    assert lines.everybody() == []


def test_the_one_who_came_first_is_next_whatever_list_they_ask_for() -> None:
    lines = Lines()
    first, second, third = join(lines, "b,a"), join(lines, "a"), join(lines, "*", ("a", "c"))
    assert lines.waiting("a") == 3
    for expected in first, second, third:
        assert lines.next("a") is expected
        lines.leave(expected)
    assert lines.next("a") is None
    assert lines.queues() == []


def test_one_who_left_is_never_next() -> None:
    lines = Lines()
    gone, stays = join(lines, "a"), join(lines, "a")
    lines.leave(gone)
    lines.leave(gone)
    assert lines.next("a") is stays
    assert lines.waiting("a") == 1
    assert lines.everybody() == [stays]


def test_one_who_leaves_before_joining_takes_nobody_elses_place() -> None:
    lines = Lines()
    stays, never_joined = join(lines, "a"), waiter("a")
    lines.leave(never_joined)
    assert lines.next("a") is stays
    assert lines.waiting("a") == 1


def test_a_glob_waits_for_the_queues_that_exist_and_for_new_ones() -> None:
    lines = Lines()
    everyone = join(lines, "*,!b*", ("a", "b"))
    assert lines.queues_of(everyone) == {"a"}
    assert lines.next("b") is None
    assert lines.new_queue("c") is True
    assert lines.new_queue("c") is False
    assert lines.new_queue("bb") is False
    assert lines.next("c") is everyone
    assert lines.queues_of(everyone) == {"a", "c"}


def test_a_named_queue_need_not_exist() -> None:
    lines = Lines()
    named = join(lines, "a,b")
    assert lines.queues_of(named) == {"a", "b"}
    assert lines.new_queue("a") is False
    assert lines.next("b") is named


_wanted = st.sampled_from(["a", "b", "a,b", "*", "*,!a", "b,*", "c*"])
_queue = st.sampled_from(["a", "b", "c", "c1"])
_step = st.one_of(
    st.tuples(st.just("join"), _wanted),
    st.tuples(st.just("leave"), st.integers(0, 20)),
    st.tuples(st.just("new"), _queue),
    st.tuples(st.just("next"), _queue),
)


@given(st.lists(_step, max_size=40))
def test_the_lines_agree_with_one_plain_list(steps: list[tuple[str, str | int]]) -> None:
    lines = Lines()
    here: list[Waiter] = []
    known: list[str] = []
    for what, detail in steps:
        if what == "join":
            here.append(join(lines, str(detail), tuple(known)))
        elif what == "leave" and here:
            lines.leave(here.pop(int(detail) % len(here)))
        elif what == "new" and detail not in known:
            known.append(str(detail))
            lines.new_queue(str(detail))
        elif what == "next":
            first = next((w for w in here if detail in w.queues.expand(known)), None)
            assert lines.next(str(detail)) is first
        for queue in ("a", "b", "c", "c1"):
            assert lines.waiting(queue) == sum(queue in w.queues.expand(known) for w in here)
    assert sorted(map(id, lines.everybody())) == sorted(map(id, here))
    for waiting in here:
        lines.leave(waiting)
    assert lines.queues() == []
