"""Bytes of answers on their way: in turn, none refused, small ones never behind large ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from presque.store.budget import LARGE_MOST, SMALL, SMALL_MOST, Budget
from presque.store.wire import Call, ignore

MIB = 1024 * 1024


def asking(size: int, name: str = "") -> Call:
    return Call(name.encode(), ignore, size)


def names(calls: list[Call]) -> list[str]:
    return [call.command.decode() for call in calls]


def test_large_answers_take_turns_first_come_first_served() -> None:
    budget = Budget()
    assert budget.take(asking(LARGE_MOST - 2 * MIB), 0)

    assert not budget.take(asking(8 * MIB, "first"), 0)
    assert not budget.take(asking(MIB, "second, though it would fit"), 0)

    assert names(budget.free(LARGE_MOST - 2 * MIB)) == ["first", "second, though it would fit"]


def test_small_answers_never_stand_behind_large_ones() -> None:
    budget = Budget()
    budget.take(asking(LARGE_MOST), 0)
    budget.take(asking(LARGE_MOST), 0)

    assert all(budget.take(asking(SMALL), 0) for _ in range(SMALL_MOST // SMALL))
    assert not budget.take(asking(SMALL, "one more"), 0)
    assert names(budget.free(SMALL)) == ["one more"]


def test_an_answer_larger_than_all_the_room_goes_alone() -> None:
    budget = Budget()
    budget.take(asking(MIB), 0)
    assert not budget.take(asking(10 * LARGE_MOST, "huge"), 0)
    assert not budget.take(asking(MIB, "after"), 0)

    assert names(budget.free(MIB)) == ["huge"]
    assert names(budget.free(10 * LARGE_MOST)) == ["after"]


def test_who_waits_too_long_waits_no_more() -> None:
    budget = Budget()
    budget.take(asking(LARGE_MOST), 0)
    for moment in range(3):
        budget.take(asking(MIB, f"{moment}"), moment)

    assert names(budget.late(1)) == ["0", "1"]
    assert names(budget.free(LARGE_MOST)) == ["2"]


def test_a_lost_connection_has_nothing_under_way() -> None:
    budget = Budget()
    budget.take(asking(LARGE_MOST), 0)
    budget.take(asking(MIB, "waits"), 0)

    assert names(budget.reset()) == ["waits"]
    assert len(budget) == 0
    assert budget.take(asking(LARGE_MOST), 0)


@given(st.lists(st.integers(1, 2 * LARGE_MOST), max_size=60))
def test_all_are_served_in_order_within_the_bound(sizes: list[int]) -> None:
    budget = Budget()
    under_way = [size for n, size in enumerate(sizes) if budget.take(asking(size, f"{n}"), n)]
    served: list[int] = []
    while under_way:
        large = [size for size in under_way if size > SMALL]
        assert sum(large) <= LARGE_MOST or len(large) == 1
        for call in budget.free(under_way.pop(0)):
            under_way.append(call.answer)
            served.append(int(call.command))
    assert len(budget) == 0
    for kind in (True, False):
        of_a_kind = [n for n in served if (sizes[n] <= SMALL) is kind]
        assert of_a_kind == sorted(of_a_kind)
