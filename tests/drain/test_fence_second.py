"""A second epoch proves something only when it was written after the first was seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tidegate.drain.fence import Second
from tidegate.model.epoch import SIZE, Epoch

numbers = st.integers(0, SIZE - 1)


def at(number):
    return Epoch("main", number % SIZE)


@given(numbers)
def test_the_first_alone_proves_nothing_and_asks_for_another(number):
    second = Second(at(number))
    assert not second.wants(at(number)), "nobody has shown the first yet"
    assert not second.saw(at(number), at(number))
    assert second.wants(at(number)) and not second.wants(at(number + 1))


@given(numbers, st.integers(1, 50))
def test_an_epoch_that_was_on_its_way_when_the_first_was_seen_does_not_count(number, sent):
    second = Second(at(number))
    assert not second.saw(at(number), at(number + sent))
    for ahead in range(1, sent + 1):
        assert not second.saw(at(number + ahead), at(number + sent))
    assert second.wants(at(number + sent))
    assert second.saw(at(number + sent + 1), at(number + sent + 1))


@given(numbers, st.integers(1, 1000))
def test_an_epoch_of_before_the_drain_is_neither_first_nor_second(number, behind):
    second = Second(at(number))
    assert not second.saw(at(number - behind), at(number))
    assert not second.wants(at(number))


@given(numbers)
def test_a_lower_epoch_after_a_restart_starts_over(number):
    second = Second(at(number))
    second.saw(at(number), at(number))
    assert second.saw(at(number + 1), at(number + 1))
    assert not second.saw(at(number - 1), at(number + 1))
    assert not second.saw(at(number + 1), at(number + 1)), "what it is shown anew has to be doubled anew"
    assert second.wants(at(number + 1))
