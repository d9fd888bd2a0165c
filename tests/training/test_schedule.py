"""Numbers as expressions, and the learning rate over time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custom_llm.config.training import TrainConfig, parse_count
from custom_llm.training.clock import SCHEDULES, Clock, learning_rate_at


@pytest.mark.parametrize(
    ("text", "value"), [("2**15", 32768), (" 4*(8+1) ", 36), ("1_000", 1000), ("7//2", 3), ("10-3", 7), ("0x10", 16)]
)
def test_expressions(text, value):
    assert parse_count(text) == value


@given(st.one_of(st.text(), st.text("0123456789+-*/() .e_")))
def test_any_text_is_a_number_or_refused(text):
    try:
        assert 1 <= parse_count(text) <= 10**15
    except ValueError as error:
        assert str(error).startswith("is not")


@pytest.mark.parametrize(
    "text",
    ["", "a", "2**-1", "1.5", "2/1", "print(1)", "[1]", "True", "-1", "9**9**9**9", "(" * 200, "1" * 200, "1//0"],
)
def test_what_is_no_number(text):
    with pytest.raises(ValueError, match=r"^is not"):
        parse_count(text)


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(st.floats(0, 1), st.floats(1e-6, 1), st.floats(0, 1), st.floats(0, 1))
def test_the_learning_rate_stays_between_its_bounds(schedule, progress, peak, share, warm_up):
    floor = peak * share
    rate = learning_rate_at(progress, peak, floor, schedule, warm_up)
    assert min(floor, 0.02 * peak) * (1 - 1e-9) <= rate <= peak * (1 + 1e-9)
    assert learning_rate_at(1.0, peak, floor, schedule, 0.5) == pytest.approx(peak if schedule == "constant" else floor)
    assert learning_rate_at(0.5, peak, floor, schedule, 0.5) == pytest.approx(peak)


def test_where_the_schedules_are_half_way():
    rates = {name: learning_rate_at(0.5, 1.0, 0.0, name, 0.0) for name in SCHEDULES}
    assert rates == {"cosine": pytest.approx(0.5), "linear": 0.5, "wsd": 1.0, "constant": 1.0}
    assert learning_rate_at(0.9, 1.0, 0.0, "wsd", 0.0) == pytest.approx(0.5)


def test_warm_up_in_steps():
    clock = Clock(TrainConfig(max_iters=100, warmup_steps=10), 7)
    assert clock.warm_up == 0.1
    clock = Clock(TrainConfig(minutes=60.0, warmup_steps=10), 7)
    clock.steps, clock._start = 5, clock._start - 36
    assert clock.progress == pytest.approx(0.01, rel=1e-3)
    assert clock.warm_up == pytest.approx(0.02, rel=1e-3), "five more steps will take as long"


def test_accumulation():
    assert TrainConfig(batch_size=4, total_batch_size="2**10").accumulation(32) == 8
    assert TrainConfig(batch_size=4).accumulation(32) == 1
