"""Reading studies, rewriting pages, and telling which have drifted."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from benchmarks.cards import __main__ as command
from benchmarks.cards.measured import Evidence, measure, read_evidence, read_plans
from benchmarks.cards.overview import rewritten
from benchmarks.cards.pages import FOLDER, drifted, not_measured, pages, write
from lightning_dlopt.evidence.runs import Study
from tests.cards.invented import plan, study

PLANS = {
    "quick": {"seeds": 2},
    "first": {
        "title": "First",
        "base": ["a.yaml", "b.yaml"],
        "arms": {
            "good": {"technique": "EMA", "changes": ["x.yaml"]},
            "both": {"technique": ["SAM", "Muon"], "changes": "KEY=1"},
        },
    },
    "second": {"title": "Second", "base": "a.yaml", "arms": {"bad": {"technique": "SAM"}}},
}


def plans_in(folder: Path, plain: object = PLANS) -> Path:
    file = folder / "studies.yaml"
    file.write_text(yaml.safe_dump(plain, sort_keys=False))
    return file


def keep(made: Study, file: Path) -> None:
    header = asdict(replace(made, runs=[]))
    del header["runs"]
    lines = [{"study": header}, *({"run": run.to_json()} for run in made.runs)]
    file.parent.mkdir(exist_ok=True)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_plans_are_read(tmp_path: Path) -> None:
    first, second = read_plans(plans_in(tmp_path))
    assert (first.name, first.title, first.base) == ("first", "First", ("a.yaml", "b.yaml"))
    assert [arm.techniques for arm in first.arms] == [("EMA",), ("SAM", "Muon")]
    assert [arm.changes for arm in first.arms] == [("x.yaml",), ("KEY=1",)]
    assert second.base == ("a.yaml",)
    assert read_plans(tmp_path / "none.yaml") == []


def test_an_unknown_technique_is_refused(tmp_path: Path) -> None:
    arms = {"arm": {"technique": "EAM", "changes": []}}
    file = plans_in(tmp_path, {"study": {"title": "t", "base": [], "arms": arms}})
    with pytest.raises(ValueError, match="study: there is no technique EAM"):
        read_plans(file)


def test_results_are_read_where_there_are_any(tmp_path: Path) -> None:
    made = study({"good": [0.01, 0.02, 0.01, 0.01, 0.02, 0.01]})
    folder = tmp_path / "results"
    folder.mkdir()
    keep(replace(made, metric="test_accuracy"), folder / "first" / "results.jsonl")
    evidence = read_evidence(plans_in(tmp_path), folder)
    first, second = evidence.studies
    result = first.result("good")
    assert result is not None
    assert result.effect == pytest.approx(0.08 / 6)
    assert first.result("both") is None
    assert second.study is None
    assert evidence.is_measured("EMA")
    assert not evidence.is_measured("SAM")
    assert {"SAM", "Muon", "CosineLR"} <= set(not_measured(evidence, []))
    assert "EMA" not in not_measured(evidence, [])


def test_results_of_no_planned_study_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    keep(study(), folder / "third" / "results.jsonl")
    with pytest.raises(ValueError, match=r"of no planned study: third"):
        read_evidence(plans_in(tmp_path), folder)


def test_results_of_unplanned_arms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unplanned arms: \['null'\]"):
        measure(plan(arms=["good", "bad", "broken"]), study())


README = """\
# Title

<!-- cards:begin optimizers -->
old | text
<!-- cards:end optimizers -->

Between.

<!-- cards:begin studies --><!-- cards:end studies -->
End.
"""


def test_what_is_between_markers_is_made_anew() -> None:
    evidence = Evidence([measure(plan(), study())])
    text = rewritten(README, evidence, [])
    assert text.startswith("# Title\n\n<!-- cards:begin optimizers -->\n\n| technique | study |")
    assert "old | text" not in text
    assert "\n\n<!-- cards:end optimizers -->\n\nBetween.\n\n<!-- cards:begin studies -->" in text
    assert "[`EMA`](docs/techniques/ema.md) | invented, good | +1.08" in text
    assert "| `invented`: Invented numbers | `recipes/quickstart.yaml` | 3 epochs | 6 |" in text
    assert text.endswith("<!-- cards:end studies -->\nEnd.\n")
    assert rewritten(text, evidence, []) == text
    assert rewritten("no markers", evidence, []) == "no markers"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<!-- cards:begin optimisers --><!-- cards:end optimisers -->", "no such table"),
        ("<!-- cards:begin optimizers -->", "1 parts begin .* only 0 end"),
        ("<!-- cards:begin optimizers --><!-- cards:end structure -->", "only 0 end"),
    ],
)
def test_bad_markers_are_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        rewritten(text, Evidence(), [])


def test_drift_is_found_and_written_away(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(README)
    made = pages(Evidence(), [], tmp_path)
    assert set(drifted(made, tmp_path)) == made.keys()
    assert set(write(made, tmp_path)) == made.keys()
    assert drifted(made, tmp_path) == []
    ema, stray = FOLDER / "ema.md", FOLDER / "gone.md"
    (tmp_path / ema).write_text(made[ema].replace("average", "mean"))
    (tmp_path / stray).write_text("no technique")
    assert drifted(made, tmp_path) == [ema, stray]
    assert write(made, tmp_path) == [ema, stray]
    assert not (tmp_path / stray).exists()
    assert drifted(pages(Evidence(), [], tmp_path), tmp_path) == []
    measured = pages(Evidence([measure(plan(), study())]), [], tmp_path)
    assert ema in drifted(measured, tmp_path)


def test_the_command_tells_what_has_drifted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = FOLDER / "nothing.md"
    monkeypatch.setattr(command, "everything", lambda: ({page: "text"}, ["EMA", "SAM"]))
    monkeypatch.setattr(command, "drifted", lambda _: [page])
    monkeypatch.setattr("sys.argv", ["cards", "--check"])
    with pytest.raises(SystemExit, match="--write makes them anew"):
        command.main()
    assert capsys.readouterr().out.splitlines() == [
        "out of date: docs/techniques/nothing.md",
        "not measured yet (2): EMA, SAM",
    ]
    monkeypatch.setattr(command, "drifted", lambda _: [])
    command.main()
    assert capsys.readouterr().out == "not measured yet (2): EMA, SAM\n"
