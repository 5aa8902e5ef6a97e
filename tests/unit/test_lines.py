"""Who waits, in which order, and for which queues."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from presque import names
from presque.engine.lines import EMPTY_MOST, MATCHES_MOST, Lines, Waiter
from presque.job import Ask


def waiter(wanted: str) -> Waiter:
    return Waiter(names.queue_list(wanted), lambda _found: True, Ask(for_good=True))


def join(lines: Lines, wanted: str) -> Waiter:
    found = waiter(wanted)
    lines.join(found)
    return found


def everybody_for(lines: Lines, queue: str) -> list[Waiter]:
    return lines.first(queue, 1000)


def test_nobody_waits_at_first() -> None:
    lines = Lines()
    assert lines.next("a") is None
    assert everybody_for(lines, "a") == []
    assert lines.queues() == []
    assert lines.everybody() == []
    assert not lines.patterns


def test_the_one_who_came_first_is_next_whatever_list_they_ask_for() -> None:
    lines = Lines()
    first, second, third = join(lines, "b,a"), join(lines, "a"), join(lines, "*")
    assert everybody_for(lines, "a") == [first, second, third]
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
    assert everybody_for(lines, "a") == [stays]
    assert lines.everybody() == [stays]


def test_one_who_leaves_before_joining_takes_nobody_elses_place() -> None:
    lines = Lines()
    stays, never_joined = join(lines, "a"), waiter("a")
    lines.leave(never_joined)
    assert lines.next("a") is stays
    assert everybody_for(lines, "a") == [stays]


def test_a_glob_waits_for_whatever_it_matches() -> None:
    lines = Lines()
    everyone = join(lines, "*,!b*")
    for queue in "a", "c":
        assert lines.next(queue) is everyone
        assert lines.anybody(queue)
    for queue in "b", "bb":
        assert lines.next(queue) is None
        assert not lines.anybody(queue)


def test_whoever_stands_in_several_lines_of_a_queue_counts_once() -> None:
    lines = Lines()
    both, other = join(lines, "a,a*,*"), join(lines, "*a")
    assert everybody_for(lines, "a") == [both, other]
    lines.leave(both)
    assert everybody_for(lines, "a") == [other]


def test_the_first_and_the_last_for_a_queue_or_for_any_pattern_are_told() -> None:
    told: list[tuple[str, str | None]] = []
    lines = Lines(
        lambda queue: told.append(("wanted", queue)), lambda queue: told.append(("unwanted", queue))
    )
    one, other = join(lines, "a,b*,c*"), join(lines, "a,d*")
    lines.leave(one)
    assert told == [("wanted", "a"), ("wanted", None)]
    lines.leave(other)
    assert sorted(told[2:], key=str) == [("unwanted", "a"), ("unwanted", None)]


def test_a_waiter_costs_the_same_whatever_number_of_queues_there_is() -> None:
    lines = Lines()
    joined = join(lines, "*,own")
    for number in range(10_000):
        assert lines.find(f"q{number}")
    assert len(joined.lines) == 2
    assert lines.remembers <= MATCHES_MOST


def test_patterns_are_compared_in_pieces_and_once_for_each_queue() -> None:
    lines = Lines()
    everyone = [join(lines, f"*{number},!a,!b") for number in range(100)]
    pieces = 1
    while not lines.find("q7", 30):
        pieces += 1
    assert pieces == 10
    assert lines.find("q7", 0)
    assert lines.next("q7") is everyone[7]
    late = join(lines, "q*")
    assert not lines.find("q7", 0)
    assert lines.find("q7", 1)
    lines.leave(everyone[7])
    assert lines.next("q7") is late


def test_patterns_that_nobody_waits_for_any_more_are_let_go() -> None:
    lines = Lines()
    stays = join(lines, "q*")
    for number in range(1000):
        lines.leave(join(lines, f"*{number}"))
        assert lines.next("q1") is stays
    assert lines.known_patterns <= EMPTY_MOST + 2
    assert lines.patterns


_wanted = st.sampled_from(["a", "b", "a,b", "*", "*,!a", "b,*", "c*", "*,!c*,a"])
_queue = st.sampled_from(["a", "b", "c", "c1"])
_step = st.one_of(
    st.tuples(st.just("join"), _wanted),
    st.tuples(st.just("leave"), st.integers(0, 20)),
    st.tuples(st.just("forget"), _queue),
    st.tuples(st.just("next"), _queue),
)


@given(st.lists(_step, max_size=40))
def test_the_lines_agree_with_one_plain_list(steps: list[tuple[str, str | int]]) -> None:
    lines = Lines()
    here: list[Waiter] = []
    for what, detail in steps:
        if what == "join":
            here.append(join(lines, str(detail)))
        elif what == "leave" and here:
            lines.leave(here.pop(int(detail) % len(here)))
        elif what == "forget":
            lines.forget(str(detail))
        elif what == "next":
            first = next((w for w in here if w.queues.matches(str(detail))), None)
            assert lines.next(str(detail)) is first
        for queue in ("a", "b", "c", "c1"):
            assert everybody_for(lines, queue) == [w for w in here if w.queues.matches(queue)]
        assert lines.patterns is any(w.queues.globs for w in here)
    assert sorted(map(id, lines.everybody())) == sorted(map(id, here))
    for waiting in here:
        lines.leave(waiting)
    assert lines.queues() == []
    assert not lines.patterns
