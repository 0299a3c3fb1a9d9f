"""What the cards say of measured effects, against scipy and sums by hand."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks.cards.card import card
from benchmarks.cards.measured import Evidence, measure
from benchmarks.cards.overview import family_table
from benchmarks.cards.techniques import entries
from lightning_dlopt.evidence.runs import A_A
from tests.cards.invented import ADDED, BASE, TECHNIQUES, plan, study


def evidence(**changes: Any) -> Evidence:
    return Evidence([measure(plan(), study(**changes))])


def card_of(technique: str, **changes: Any) -> str:
    return card(entries()[technique], evidence(**changes), [])


def cells(text: str, first: str, number: int = 0) -> list[str]:
    """Return the n-th row of a table that begins with these words."""
    rows = [line for line in text.splitlines() if line.startswith(f"| {first}")]
    return [cell.strip() for cell in rows[number].strip("|").split("|")]


def t_interval(differences: Any) -> tuple[float, float, float]:
    mean, half = np.mean(differences), stats.sem(differences) * stats.t.ppf(0.975, 5)
    return 100 * mean, 100 * (mean - half), 100 * (mean + half)


def flip_p(differences: Any) -> float:
    sums = [abs(np.dot(signs, differences)) for signs in product([1, -1], repeat=6)]
    return float(np.mean([s >= abs(sum(differences)) - 1e-12 for s in sums]))


@pytest.mark.parametrize("arm", ["good", "bad", "null"])
def test_the_numbers_are_those_of_the_tests(arm: str) -> None:
    differences = ADDED[arm]
    row = cells(card_of(TECHNIQUES[arm]).split("## Measured effect")[1], f"`{arm}`")
    effect, low, high = t_interval(differences)
    assert row[1] == f"{effect:+.2f} ({low:+.2f} to {high:+.2f})"
    assert row[3] == "6"
    assert float(row[4]) == pytest.approx(flip_p(differences), rel=0.05)
    p = stats.ttest_1samp(differences, 0).pvalue
    assert row[5] == ("< 0.001" if p < 0.001 else f"{p:.2g}")
    assert row[8:] == ["0", "not tuned"]


def test_p_values_are_adjusted_for_all_arms_of_the_study() -> None:
    finished = {arm: [d for d in ADDED[arm] if d is not None] for arm in TECHNIQUES}
    p = {arm: stats.ttest_1samp(differences, 0).pvalue for arm, differences in finished.items()}
    ordered, adjusted, largest = sorted(p, key=lambda arm: p[arm]), {}, 0.0
    for place, arm in enumerate(ordered):
        largest = max(largest, min(1.0, (len(p) - place) * p[arm]))
        adjusted[arm] = largest
    for arm, technique in TECHNIQUES.items():
        row = cells(card_of(technique).split("## Measured effect")[1], f"`{arm}`")
        expected = adjusted[arm]
        assert row[6] == ("< 0.001" if expected < 0.001 else f"{expected:.2g}")


def test_good_bad_and_no_effects_are_shown_alike() -> None:
    said = {
        arm: card_of(technique).split("## Measured effect")[1]
        for arm, technique in TECHNIQUES.items()
    }
    assert "`good` **helps** here: +1.08 points" in said["good"]
    assert "`bad` **hurts** here: -2.05 points" in said["bad"]
    mean, low, high = t_interval(ADDED["null"])
    null = f"{mean:+.2f} points; by its interval the true difference may be anything from "
    null += f"{low:+.2f} to {high:+.2f}, 0 included."
    assert f"`null`: *can't tell* is not *no effect*. 6 pairs show {null}" in said["null"]
    heads = {cells(text, "arm")[1] for text in said.values()}
    assert heads == {"effect, points (95 % interval)"}
    for text in said.values():
        assert cells(text, "A/A")[1].startswith(f"{t_interval(ADDED[A_A])[0]:+.2f} (")
        assert "baseline: [`recipes/quickstart.yaml`](../../recipes/quickstart.yaml)" in text
        assert f"test_accuracy {100 * np.mean(BASE):.2f} %" in text
        assert "data: `FashionMNIST`; budget: 3 epochs a run; 6 seeds" in text
        assert "machine: a small machine; threads of torch: 1; torch 2.14" in text
        assert "and `trainer.max_epochs=3`" in text
        assert "```bash\ndlopt compare --seeds 6\n```" in text


def test_an_interval_without_0_may_still_be_chance() -> None:
    near = {"good": [0.004, 0.001, -0.0005, 0.003, 0.002, 0.003], "null": ADDED["null"]}
    _, low, high = t_interval(near["good"])
    assert low > 0
    said = card_of("EMA", added=near)
    assert "can't tell" in cells(said.split("## Measured effect")[1], "`good`")[2]
    assert f"its interval from {low:+.2f} to {high:+.2f} leaves 0 out, but not so clearly" in said


def test_a_long_command_has_a_line_for_each_option() -> None:
    long = "dlopt compare " + " ".join(f"--arm name{i}=file{i}.yaml" for i in range(5))
    lines = card_of("EMA", command=long).split("```bash\n")[1].split("\n```")[0].splitlines()
    assert lines[:2] == ["dlopt compare \\", "    --arm name0=file0.yaml \\"]
    assert " ".join(line.strip(" \\") for line in lines) == long


def test_costs_are_ratios_to_the_baseline() -> None:
    text = card_of("EMA").split("## Cost in time and memory")[1]
    assert cells(text, "`good`") == ["`good`", "1.50x", "1.50x", "1.50x", "1.00x", "invented"]
    assert cells(text, "A/A")[1:3] == ["1.00x", "1.00x"]


def test_failed_runs_are_told_where_they_belong() -> None:
    text = card_of("Muon")
    assert "failed runs: **2 crashed**" in text.split("## What changes")[0]
    assert cells(text.split("## Measured effect")[1], "`broken`")[8] == "**2 crashed**"
    assert "Runs of broken failed" in text
    assert "Runs of broken failed" not in card_of("EMA")


def test_the_rate_is_told() -> None:
    row = cells(card_of("EMA", tune=[0.3, 1.0]).split("## Measured effect")[1], "`good`")
    assert row[9] == "tuned: 1x, at the edge"
    row = cells(card_of("EMA", tune=[0.3, 1.0, 3.0]).split("## Measured effect")[1], "`good`")
    assert row[9] == "tuned: 1x"


def test_other_metrics_keep_their_unit() -> None:
    text = card_of("EMA", outcome="test_loss", larger_is_better=False)
    row = cells(text.split("## Measured effect")[1], "`good`")
    assert row[1].startswith("+0.0108 (")
    assert row[2] == "**hurts**"
    assert "effect, of test_loss (95 % interval)" in text
    assert "test_loss (less is better)" in text


def test_arms_that_have_not_been_run_are_told() -> None:
    fewer = {arm: values for arm, values in ADDED.items() if arm != "good"}
    text = card_of("EMA", added=fewer)
    assert "**Measured**: not measured yet." in text
    assert "`good`: not measured yet." in text
    assert Evidence().of("EMA") == []
    assert "## Measured effect\n\nNot measured yet.\n" in card(entries()["EMA"], Evidence(), [])
    assert not Evidence([measure(plan(), study(fewer))]).is_measured("EMA")
    assert evidence().is_measured("EMA")


def test_the_table_of_a_family_has_a_row_for_every_arm_and_technique() -> None:
    table = family_table("optimizers", evidence(), "docs/techniques/")
    effect, low, high = t_interval(ADDED["good"])
    assert cells(table, "[`EMA`](docs/techniques/ema.md)") == [
        "[`EMA`](docs/techniques/ema.md)",
        "invented, good",
        f"{effect:+.2f} ({low:+.2f} to {high:+.2f})",
        "**helps**",
        "1.50x",
    ]
    assert "failed: **2 crashed**" in cells(table, "[`Muon`]")[3]
    assert cells(table, "[`FullBatch`]")[2] == "not measured yet"
    own = [entry for entry in entries().values() if entry.family == "optimizers"]
    assert len(table.splitlines()) == 2 + len(own)
