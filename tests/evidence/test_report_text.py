"""What the report says, in Markdown and on the page: the same, and what the analysis says."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from lightning_dlopt.evidence.analysis import Analysis, ArmResult
from lightning_dlopt.evidence.report import page
from lightning_dlopt.evidence.report.figures import DRAWINGS
from lightning_dlopt.evidence.report.markdown import write_markdown
from lightning_dlopt.evidence.runs import BASELINE, Run, Study
from tests.evidence.report_reader import Reader, number, read_markdown
from tests.evidence.report_studies import FOUR, fail, make_large, make_study

Read = Callable[[Study, Analysis], Reader]
#: Of a picture of no size: these tests don't look at pictures.
HEADER = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(8)
EVIL = "<script>alert(1)</script> | `x` **b** $y_1$ [l](http://e.org) \\| \n# & &amp;"
SHOWN = "<script>alert(1)</script> | `x` **b** $y_1$ [l](http://e.org) \\| # & &amp;"


@pytest.fixture(params=["markdown", "page"])
def read(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Read:
    if request.param == "markdown":
        return lambda study, analysis: read_markdown(write_markdown(study, analysis))
    monkeypatch.setattr(page, "draw", lambda *_: HEADER)
    return lambda study, analysis: Reader(
        page.write_page(study, analysis, dict.fromkeys(DRAWINGS, HEADER))
    )


def close(cell: str, value: float | None, unit: float) -> bool:
    """Whether a cell shows a value to half a unit of its last digit."""
    shown = number(cell)
    if shown is None or value is None:
        return shown is value
    return abs(shown - value) <= 0.5 * unit * (1 + 1e-9)


def by_name(analysis: Analysis) -> dict[str, ArmResult]:
    return {f"{r.arm} (noise)" if r.arm == "A/A" else r.arm: r for r in analysis.arms}


@pytest.mark.parametrize("larger", [True, False], ids=["accuracy", "loss"])
def test_the_numbers_are_those_of_the_analysis(larger: bool, read: Read) -> None:
    study, analysis = make_study(larger=larger)
    document = read(study, analysis)
    unit = 1e-4  # 0.01 percentage points; of the loss, four digits
    rows = document.table("verdict")
    assert set(rows) == set(by_name(analysis))
    for name, result in by_name(analysis).items():
        row = rows[name]
        low, high = row["95 % interval"].split(" to ")
        share = " pp" if larger else ""
        assert row["effect"].endswith("pp") == row[study.outcome].endswith("%") == larger
        assert close(row[study.outcome], result.mean, unit)
        assert close(row["effect"], result.effect, unit)
        assert close(low + share, result.low, unit)
        assert close(high + share, result.high, unit)
        assert close(row["p (sign flip)"], result.p_flip, 1e-3)
        assert close(row["p (t, Holm)"], result.p_t_holm, 1e-3)
        assert number(row["seeds needed"]) == result.seeds_needed
        assert row["pairs"] == "6"
        verdict = row["verdict"].lstrip(
            "\N{BLACK UP-POINTING TRIANGLE}\N{BLACK DOWN-POINTING TRIANGLE} "
        )
        assert verdict == ("\N{EN DASH}" if result.arm == "A/A" else result.verdict)
    costs = document.table("step time")
    for name, result in by_name(analysis).items():
        row = costs[name]
        assert close(row["effect at equal time"], result.equal_time, unit)
        assert close(row["step time"], result.step_ratio, 0.01)
        assert close(row["training time"], result.time_ratio, 0.01)
        assert close(row["peak memory"], result.memory_ratio, 0.01)
        assert close(row["steps"], result.steps_ratio, 0.01)
        assert row["failed runs"] == "0"
        assert "learning rate" not in row


def test_noise_first_then_from_best_to_worst(read: Read) -> None:
    study, analysis = make_large()
    for column in ("verdict", "step time"):
        first, *names = read(study, analysis).table(column)
        assert first == "A/A (noise)"
        effects = [by_name(analysis)[name].effect for name in names]
        assert effects.pop() is None, "what has no effect stands last"
        assert effects == sorted(effects, key=lambda effect: -float(effect or 0))


def test_less_of_a_loss_is_better(read: Read) -> None:
    study, analysis = make_study(larger=False)
    document = read(study, analysis)
    _, *names = document.table("verdict")
    assert names == sorted(FOUR, key=lambda name: FOUR[name][0])
    assert "less is better" in document.text


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (
            ["helps", "hurts", "can't tell", "can't tell"],
            "of 4 arms, 1 helps, 1 hurts, the rest (2)",
        ),
        (["helps", "helps"], "of 2 arms, 2 help, 0 hurt."),
        (["can't tell"] * 3, "of 3 arms, 0 help, 0 hurt, all can't be told apart"),
        (["hurts"], ": it hurts."),
        (["can't tell"], ": it can't be told apart from the baseline at this many seeds."),
    ],
    ids=["all kinds", "helps", "none told", "one hurts", "one untold"],
)
def test_the_headline(verdicts: list[str], said: str, read: Read) -> None:
    arms = {f"arm {i}": (0.01 * i, 0.1, verdict) for i, verdict in enumerate(verdicts)}
    document = read(*make_study(arms))  # type: ignore[arg-type]
    assert said in document.text
    start = "against the baseline on test_accuracy (more is better), 6 seeds, 10 epochs for each"
    assert start in document.text


def test_failures_are_shown_with_their_reasons(read: Read) -> None:
    study, analysis = fail(*make_study(), arm="L1 too strong", number=2)
    crash = Run(BASELINE, "tune", 0, 77, "crashed", why="ValueError: no | such `thing`")
    document = read(replace(study, runs=[*study.runs, crash]), analysis)
    assert document.table("failed runs")["L1 too strong"]["failed runs"] == "2 of 6: 2 diverged"
    assert document.table("verdict")["L1 too strong"]["pairs"] == "4 of 6"
    failures = document.table("reason")
    assert failures["L1 too strong"] == {
        "arm": "L1 too strong",
        "failure": "2 runs diverged",
        "seeds": "1, 2",
        "reason": "val_accuracy was nan at step 500",
    }
    assert failures["baseline (tuning)"]["reason"] == "ValueError: no | such `thing`"
    assert "Failures" in document.headings


def test_a_rate_at_the_edge_is_flagged(read: Read) -> None:
    study, analysis = make_study()
    arms = [replace(r, rate_factor=3.0, rate_at_edge=r.arm == "CosineLR") for r in analysis.arms]
    study = replace(study, tune=[0.3, 1, 3])
    rows = read(study, replace(analysis, arms=arms)).table("learning rate")
    times = "\N{MULTIPLICATION SIGN}3"
    assert rows["CosineLR"]["learning rate"] == f"{times} (at edge)"
    assert rows["LabelSmoothing"]["learning rate"] == times


def test_how_it_was_measured(read: Read) -> None:
    study, analysis = make_study()
    arms = [replace(r, same_weights=r.arm != "CosineLR") for r in analysis.arms]
    analysis = replace(analysis, arms=arms, still_improving=0.0123, notes=["Read <this> first."])
    document = read(replace(study, select="best", tune=[0.3, 1.0]), analysis)
    for said in (
        *(study.command, "torch 2.9.1", "x86_64, 2 cores", "1, 2, 3, 4, 5, 6", "10 epochs"),
        *("The best weights by val_accuracy", "tested once", "\N{MULTIPLICATION SIGN}0.3"),
        *("recipes/2.yaml", "equal initial weights in every arm but CosineLR", "91.23 %"),
        *("Read <this> first.", "still improving", "1.23 pp", "2026-11-24T20:00:00Z"),
    ):
        assert said in document.text, said
    assert document.headings == [
        *("Comparison on test_accuracy", "Notes", "Effects", "Time, memory and failed runs"),
        *("Learning curves", "What each arm changes", "How it was measured", "How to read it"),
    ]


def test_names_and_messages_are_text(read: Read) -> None:
    numbers = FOUR["L1 too strong"]
    study, analysis = fail(*make_study({EVIL: numbers, "- 1. x": numbers}), arm=EVIL, number=1)
    runs = [replace(r, why=EVIL) if r.status == "diverged" else r for r in study.runs]
    changes = {EVIL: [EVIL], "- 1. x": ["``````\n<b>: |\n  1", "a`b"]}
    study = replace(study, runs=runs, changes=changes, metric=EVIL, command=EVIL)
    document = read(study, replace(analysis, notes=[EVIL, "# no heading"]))
    for table in document.tables:
        assert len({len(row) for row in table}) == 1
    for column in ("verdict", "step time", "reason"):
        assert SHOWN in document.table(column)
    assert document.table("reason")[SHOWN]["reason"] == SHOWN
    assert document.text.count(SHOWN) >= 8
    assert "``````\n<b>: |\n  1" in document.text
    tags = {tag for tag, _ in document.tags}
    assert not tags & {"script", "b", "a", "em"}
    assert len(document.headings) == 9
    assert "- 1. x" in document.text


@pytest.mark.parametrize("kind", ["nothing", "baseline only", "all failed", "no arms"])
def test_studies_without_results(kind: str, read: Read) -> None:
    study, analysis = make_study()
    if kind == "all failed":
        for arm in FOUR:
            study, analysis = fail(study, analysis, arm, 6)
        analysis = replace(
            analysis,
            arms=[replace(r, verdict="hurts") if not r.finished else r for r in analysis.arms],
        )
    else:
        runs = [r for r in study.runs if kind == "baseline only" and r.arm == BASELINE]
        study = replace(study, runs=runs if kind != "no arms" else study.runs)
        empty = [
            replace(
                r,
                **dict.fromkeys(["mean", "effect", "low", "high", "p_t", "p_t_holm", "p_flip"]),
                **dict.fromkeys(["equal_time", "step_ratio", "time_ratio", "memory_ratio"]),
                **{"steps_ratio": None, "pairs": 0, "finished": 0, "verdict": "can't tell"},
                seeds_needed=None,
            )
            for r in analysis.arms
        ]
        analysis = Analysis(empty if kind != "no arms" else [], None, None, None, [])
    document = read(study, analysis)
    if kind == "all failed":
        assert "of 4 arms, 0 help, 4 hurt." in document.text
        assert document.table("failed runs")["CosineLR"]["failed runs"] == "6 of 6: 6 diverged"
        row = document.table("verdict")["CosineLR"]
        assert (row["effect"], row["95 % interval"], row["pairs"]) == (*"\N{EN DASH}" * 2, "0 of 6")
    elif kind == "no arms":
        assert "0 arms against the baseline" in document.text
    else:
        assert "no pair of runs has ended yet" in document.text


def test_one_seed(read: Read) -> None:
    study, analysis = make_study(seeds=1)
    gone = dict.fromkeys(["low", "high", "p_t", "p_t_holm"])
    arms = [replace(r, **gone, verdict="can't tell") for r in analysis.arms]  # type: ignore[arg-type]
    analysis = replace(analysis, arms=arms, baseline_spread=None)
    document = read(study, analysis)
    row = document.table("verdict")["CosineLR"]
    assert (row["effect"], row["95 % interval"]) == ("+0.19 pp", "\N{EN DASH}")
    assert "1 seed," in document.text
    assert "The baseline reaches 91.23 %." in document.text
