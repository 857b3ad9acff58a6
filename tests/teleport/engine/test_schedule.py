"""When teleports happen, against a plain enumeration."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teleport import Schedule


@settings(derandomize=True, max_examples=25, deadline=None)
@given(
    st.lists(st.integers(0, 6), max_size=5),
    st.lists(st.integers(0, 40), max_size=5),
    st.integers(0, 20),
    st.integers(1, 7),
)
def test_events_are_numbered_in_order_and_none_is_before_the_warm_up(epochs, at_steps, warmup_steps, steps_per_epoch):
    schedule = Schedule(iter(epochs), iter(at_steps), warmup_steps, steps_per_epoch)
    due = set()
    for step in range(60):
        if (step % steps_per_epoch == 0 and step // steps_per_epoch in epochs) or step in at_steps:
            due.add(max(step, warmup_steps))
    events = [(step, schedule.event_before(step)) for step in range(80)]
    assert {step for step, event in events if event is not None} == due
    assert [event for _, event in events if event is not None] == list(range(len(due)))


def test_the_papers_schedule():
    schedule = Schedule(epochs=range(5), warmup_steps=50, steps_per_epoch=250)
    assert schedule.steps == [50, 250, 500, 750, 1000]


@pytest.mark.parametrize(
    "arguments", [{"epochs": [-1]}, {"at_steps": [3, -2]}, {"warmup_steps": -1}, {"steps_per_epoch": 0}]
)
def test_negative_entries_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Schedule(**arguments)
