"""Which runs a study needs, and the rate that tuning chooses."""

from dataclasses import replace

from lightning_dlopt.evidence.jobs import best_factor, seed_of, turns
from lightning_dlopt.evidence.runs import A_A, BASELINE, Run, Status, Study

STUDY = Study("acc", "acc", True, "1ep", "last", [4, 7], ["a"], {}, {}, tune=[0.3, 1.0, 3.0])


def tried(factor: float, *values: float | None, arm: str = "a") -> list[Run]:
    status: list[Status] = ["crashed" if value is None else "finished" for value in values]
    return [
        Run(arm, "tune", pair, pair, state, rate_factor=factor, metrics={"acc": value or 0.0})
        for pair, (value, state) in enumerate(zip(values, status, strict=True))
    ]


def chosen(*runs: list[Run], **changes: object) -> float:
    study = replace(STUDY, runs=[run for some in runs for run in some], **changes)  # type: ignore[arg-type]
    return best_factor(study, "a")


def test_the_factor_with_the_best_mean_is_chosen() -> None:
    runs = [tried(0.3, 0.5, 0.9), tried(1.0, 0.75, 0.75), tried(3.0, 0.8, 0.5)]
    assert chosen(*runs) == 1.0
    assert chosen(*runs, larger_is_better=False) == 3.0


def test_of_equals_the_nearest_to_the_configuration_is_chosen() -> None:
    assert chosen(tried(0.3, 0.5), tried(1.0, 0.5), tried(3.0, 0.5)) == 1.0


def test_a_factor_that_fails_is_worse_than_any_that_does_not() -> None:
    assert chosen(tried(0.3, 0.1, 0.1), tried(1.0, 0.9, None)) == 0.3
    assert chosen(tried(0.3, 0.1, None), tried(1.0, 0.9, None)) == 1.0


def test_tuning_does_not_look_at_other_arms_and_other_runs() -> None:
    other = tried(3.0, 0.99, arm="b")
    reported = [replace(run, kind="report") for run in tried(3.0, 0.99)]
    assert chosen(tried(0.3, 0.6), tried(1.0, 0.5), other, reported) == 0.3


def test_the_same_rate_serves_both_baselines() -> None:
    study = replace(STUDY, runs=[*tried(3.0, 0.9, arm=BASELINE), *tried(1.0, 0.5, arm=BASELINE)])
    assert best_factor(study, A_A) == best_factor(study, BASELINE) == 3.0


def test_without_tuning_the_rate_is_the_configurations() -> None:
    assert best_factor(replace(STUDY, tune=[]), "a") == 1.0


def test_a_pair_shares_its_seed_except_for_a_a() -> None:
    assert [seed_of(STUDY, BASELINE, 1), seed_of(STUDY, "a", 1)] == [7, 7]
    assert seed_of(STUDY, A_A, 1) not in (4, 7)


def test_arms_take_turns_at_being_first() -> None:
    order = list(turns(["x", "y", "z"], 4))
    assert [arm for pair, arm in order if pair == 1] == ["y", "z", "x"]
    assert sorted(order) == [(pair, arm) for pair in range(4) for arm in "xyz"]
    for pair in range(4):
        assert [p for p, _ in order[3 * pair : 3 * pair + 3]] == [pair] * 3
