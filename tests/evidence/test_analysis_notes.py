"""What a study says beside its numbers."""

from dataclasses import replace
from typing import Any

import pytest

from lightning_dlopt.evidence.analysis import Analysis, analyze
from lightning_dlopt.evidence.runs import A_A, BASELINE, Study
from tests.evidence.studies import study_of

BASE = [0.80, 0.82, 0.79, 0.81, 0.83, 0.78]
ARM = [0.81, 0.81, 0.80, 0.80, 0.84, 0.79]


def changed(arm: str, pair: int, **changes: Any) -> Study:
    """Return a study whose runs are all alike, but for one."""
    study = study_of({BASELINE: BASE, "arm": ARM, "other": ARM})
    alike = {
        "weights": "w",
        "batches": "b",
        "held_out": "h",
        "machine": "m",
        "versions": {"torch": "2.6", "python": "3.12"},
    }
    for i, run in enumerate(study.runs):
        own = changes if (run.arm, run.pair) == (arm, pair) else {}
        study.runs[i] = replace(run, **{**alike, **own})
    return study


def only_note(analysis: Analysis) -> str:
    (note,) = analysis.notes
    return note


def test_a_study_without_fault_has_no_notes() -> None:
    analysis = analyze(changed("arm", 0))
    assert analysis.notes == []
    assert all(arm.same_weights and arm.same_batches for arm in analysis.arms)


def test_other_weights() -> None:
    analysis = analyze(changed("arm", 3, weights="x"))
    assert [arm.same_weights for arm in analysis.arms] == [False, True]
    assert "arm began with other weights" in only_note(analysis)
    analysis = analyze(changed("arm", 3, weights=""))
    assert analysis.arms[0].same_weights


def test_other_batches_of_the_same_data() -> None:
    analysis = analyze(changed("other", 3, batches="x"))
    assert [arm.same_batches for arm in analysis.arms] == [True, False]
    assert "other saw other training batches" in only_note(analysis)
    # a run that crashed may not have come to them all
    crashed = changed("arm", 3, batches="x", status="crashed")
    assert analyze(crashed).arms[0].same_batches
    assert analyze(changed("arm", 3, batches="")).arms[0].same_batches


def test_other_data() -> None:
    note = only_note(analyze(changed("arm", 3, held_out="x", batches="x")))
    assert "arm was validated on other data" in note


def test_a_a_has_other_weights_by_its_nature() -> None:
    study = study_of({BASELINE: BASE, A_A: ARM})
    runs = [replace(run, weights=f"{run.arm}", batches=f"{run.arm}") for run in study.runs]
    analysis = analyze(replace(study, runs=runs))
    assert not analysis.arms[0].same_weights
    assert analysis.notes == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"machine": "n"}, "different machines (m, n)"),
        ({"versions": {"torch": "2.7", "python": "3.12"}}, "versions of torch (2.6, 2.7)"),
        ({"threads": 2}, "different numbers of threads (1, 2)"),
    ],
)
@pytest.mark.parametrize("arm", [BASELINE, "other"])
def test_runs_that_do_not_belong_together(changes: dict[str, Any], words: str, arm: str) -> None:
    assert words in only_note(analyze(changed(arm, 1, **changes)))


def test_what_is_not_known_is_not_mixed() -> None:
    assert analyze(changed("arm", 1, machine="", versions={})).notes == []


def test_pairs_that_have_yet_to_end() -> None:
    study = study_of({BASELINE: BASE, "arm": ARM[:4], "other": ARM, "late": []})
    analysis = analyze(study)
    assert [arm.pairs for arm in analysis.arms] == [4, 6, 0]
    late = analysis.arms[2]
    assert late.mean is late.effect is late.p_t is late.p_flip is late.equal_time is None
    assert only_note(analysis).startswith(
        "The study isn't complete: of 6 pairs, arm has 4, late has 0. With fewer than 6"
    )
    # the baseline's run is what is missing
    analysis = analyze(study_of({BASELINE: BASE, "arm": [*ARM, 0.8]}, seeds=7))
    assert only_note(analysis) == "The study isn't complete: of 7 pairs, arm has 6."


@pytest.mark.parametrize("count", [1, 5])
def test_few_seeds(count: int) -> None:
    analysis = analyze(study_of({BASELINE: BASE[:count], "arm": ARM[:count]}))
    assert "With fewer than 6 seeds nothing can be significant" in only_note(analysis)


def test_nothing_has_run_yet() -> None:
    analysis = analyze(study_of({BASELINE: [], "arm": []}, seeds=6))
    assert (analysis.baseline_mean, analysis.still_improving) == (None, None)
    assert "arm has 0" in only_note(analysis)


def test_a_baseline_whose_rate_is_at_the_edge() -> None:
    study = changed("arm", 0)
    runs = [replace(run, rate_factor=3.0) for run in study.runs if run.arm == BASELINE]
    runs += [run for run in study.runs if run.arm != BASELINE]
    note = only_note(analyze(replace(study, runs=runs, tune=[0.3, 1.0, 3.0])))
    assert "baseline's learning rate (times 3) lies at the edge" in note
    assert analyze(replace(study, runs=runs, tune=[1.0, 3.0, 10.0])).notes == []
