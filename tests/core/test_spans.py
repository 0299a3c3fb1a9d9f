import math
from fractions import Fraction
from typing import Any

import pytest

from lightning_dlopt.core import ArgumentError, ArgumentTypeError, Duration, RunLength, parse_span
from lightning_dlopt.core.spans import parse_period

GOOD: list[tuple[Any, float, str]] = [
    (500, 500, "step"),
    ("500", 500, "step"),
    (" 500 ", 500, "step"),
    (0, 0, "step"),
    ("0", 0, "step"),
    ("5ep", 5, "ep"),
    ("0.5ep", 0.5, "ep"),
    (" 2.5 ep ", 2.5, "ep"),
    ("0ep", 0, "ep"),
    ("30%", 30, "%"),
    ("12.5 %", 12.5, "%"),
    ("100%", 100, "%"),
    ("0%", 0, "%"),
]


@pytest.mark.parametrize(("value", "amount", "unit"), GOOD)
def test_good_spans(value: Any, amount: float, unit: Any) -> None:
    assert parse_span(value) == Duration(amount, unit)


BAD: list[Any] = ["abc", "", " ", "120%", "100.1%", "-5ep", "-5", "-5%", -1, "1.5", "5 miles"]
BAD += ["ep", "%", "5e3", "5epochs", "1,5ep", "nan%", "inf", "+5", "1_000", "0x5", "5%%", "5ep%"]
WRONG_TYPE: list[Any] = [1.5, 1.0, True, False, None, [5], b"5", math.inf]


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_bad_text_and_numbers(value: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        parse_span(value, "CosineLR", "warmup")
    assert str(caught.value) == (
        f"CosineLR: warmup={value!r} is no span of training; "
        'allowed are steps (500), epochs ("5ep") and a share of the run ("30%")'
    )


@pytest.mark.parametrize("value", WRONG_TYPE, ids=repr)
def test_bad_types(value: Any) -> None:
    with pytest.raises(ArgumentTypeError, match="is no span of training; allowed are"):
        parse_span(value)


@pytest.mark.parametrize("value", [0, "0", "0ep", "0.0%"])
def test_a_period_is_not_empty(value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"StepLR: every={value!r} must be longer"):
        parse_period(value, "StepLR", "every")


@pytest.mark.parametrize("value", ["500", "0.5ep", "12.5%", "2ep"])
def test_text_form_is_what_was_written(value: str) -> None:
    assert str(parse_span(value)) == value


def test_a_share_is_rounded_to_the_nearest_step() -> None:
    for total in range(1, 300):
        for percent in (1, 5, 10, 30, 33, 50, 99, 100):
            exact = math.floor(Fraction(percent * total, 100) + Fraction(1, 2))
            assert parse_span(f"{percent}%").steps(RunLength(total)) == exact


def test_epochs_are_rounded_to_the_nearest_step() -> None:
    for batches in range(1, 100):
        for tenths in range(1, 40):
            exact = math.floor(Fraction(tenths * batches, 10) + Fraction(1, 2))
            run = RunLength(None, batches)
            assert parse_span(f"{tenths / 10}ep").steps(run) == exact


def test_steps_need_no_run() -> None:
    assert parse_span(70).steps(RunLength(None)) == 70


def test_a_share_needs_an_end() -> None:
    with pytest.raises(ArgumentError, match=r"30% needs a run of known length.*max_steps"):
        parse_span("30%").steps(RunLength(None, 10))


def test_epochs_need_data_with_a_length() -> None:
    with pytest.raises(ArgumentError, match=r"no length.*give the span in steps"):
        parse_span("3ep").steps(RunLength(100, None))


SPANS = [(7, Fraction(7)), ("0.5ep", Fraction(11, 2)), ("1ep", Fraction(11)), ("7%", Fraction(7))]
SPANS += [("0.3ep", Fraction(33, 10)), ("12.5%", Fraction(25, 2))]


@pytest.mark.parametrize(("span", "length"), SPANS)
@pytest.mark.parametrize("begin", [0, 13])
def test_count_is_whole_exactly_where_a_span_ends(span: Any, length: Fraction, begin: int) -> None:
    count = parse_span(span).count(RunLength(100, 11), begin)
    for step in range(begin, 100):
        exact = (step - begin) / length
        assert count(step) == pytest.approx(float(exact), rel=1e-11, abs=1e-11)
        assert math.floor(count(step)) == math.floor(exact)


@pytest.mark.parametrize("share", [Fraction(1, 2), Fraction(1), Fraction(7, 10), Fraction(3)])
def test_count_in_epochs_of_different_length(share: Fraction) -> None:
    run = RunLength(total=None, epoch_batches=13, accumulation={0: 1, 2: 4, 5: 20})
    lengths = [13, 13, 4, 4, 4, 1, 1, 1]
    epochs = [epoch + Fraction(k, n) for epoch, n in enumerate(lengths) for k in range(n)]
    count = parse_span(f"{float(share)}ep").count(run)
    for step, epoch in enumerate(epochs):
        assert math.floor(count(step)) == math.floor(epoch / share)
        assert count(step) == pytest.approx(float(epoch / share), abs=1e-9)


def test_spans_shorter_than_a_step_are_no_period_but_in_a_trial() -> None:
    with pytest.raises(ArgumentError, match="1% is less than one optimizer step"):
        parse_span("1%").count(RunLength(20))
    assert parse_span("50%").count(RunLength(1, trial=True))(1) == 2
