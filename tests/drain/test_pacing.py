"""The fence's writes cost every kube-proxy a sync: how often they may be, and that no drain is held up for nothing."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidegate.drain.pacing import CPU_SHARE, SAVED_CPU_SECONDS_MAX, Pacing


def written(pacing, services, seconds, began=0.0, stirred_every=0.0):
    """The instants of writes where one is wanted all the time."""
    found, now, stir = [], began, began
    while now < began + seconds:
        while stirred_every and stir <= now:
            pacing.stirred(stir)
            stir += stirred_every
        due = pacing.due_at(now, services)
        if due > now + 1e-9:
            now = min(due, stir) if stirred_every else due
            continue
        pacing.sent(now, services)
        found.append(now)
        now += 1e-6
    return found


def syncs(instants):
    """How often a proxy syncs for these, once a second at most."""
    count, last = 0, float("-inf")
    for at in instants:
        if at - last >= 1.0:
            count, last = count + 1, at
    return count


def test_the_first_is_written_at_once_and_the_next_a_tenth_of_a_second_later():
    pacing = Pacing()
    assert pacing.due_at(5.0, 10) == 5.0
    pacing.sent(5.0, 10)
    assert pacing.due_at(5.01, 10) == pytest.approx(5.1)


@pytest.mark.parametrize("services", [10, 1000, 10_000])
def test_writes_without_end_cost_one_percent_and_what_was_saved(services):
    hours = 6 * 3600.0
    instants = written(Pacing(), services, hours)
    spent = syncs(instants) * (0.01 + services * 0.0002)
    assert spent <= CPU_SHARE * hours + SAVED_CPU_SECONDS_MAX + 3.0
    assert spent > 0.5 * CPU_SHARE * hours, "the allowance is used"


def test_after_a_quiet_hour_a_rollout_of_a_large_cluster_is_not_held_up():
    pacing = Pacing()
    assert all(pacing.due_at(float(at), 1000) == at and not pacing.sent(float(at), 1000) for at in range(0, 120, 2))


def test_where_slices_change_all_the_time_the_fence_costs_nothing_and_is_never_held_up():
    instants = written(Pacing(), 10_000, 60.0, stirred_every=0.5)
    assert len(instants) > 500
    assert Pacing().saved == SAVED_CPU_SECONDS_MAX


@example([0.0] * 10 + [1.0] * 6 + [0.0], 18_744)
@given(st.lists(st.floats(0.0, 50.0), min_size=1, max_size=60), st.integers(0, 20_000))
def test_it_is_due_some_time_and_never_before_it_is_wanted(pauses, services):
    pacing, now = Pacing(), 0.0
    for pause in pauses:
        now += pause
        due = pacing.due_at(now, services)
        assert now <= due <= now + 100 * (0.01 + services * 0.0002) + 1.0
        pacing.sent(due, services)
        assert pacing.saved > -1e-6
        now = due
