"""``dlopt advise``."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_dlopt.cli.advise import AdviseCLI, budget_options, metric_of, subject_of
from lightning_dlopt.cli.compared_arms import read_arms, resolve_all
from lightning_dlopt.cli.train import run_cli
from lightning_dlopt.evidence.advise.finding import ALARM
from tests.cli.conftest import Run

#: So much that no probe is cut off on a slow machine.
TIME = ["--budget", "10min"]
QUESTIONS = ["optimizer", "rate", "regularizer", "augmentation", "generalization"]
FAULTY = "tests.evidence.advise.faulty"


def other_peoples(path: Path, module: dict[str, Any], data: dict[str, Any]) -> Path:
    """Write the configuration of a module whose rate stands in its code."""
    config = {
        "seed_everything": 1,
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
        "model": {"class_path": f"{FAULTY}.Net", "init_args": module},
        "data": {"class_path": f"{FAULTY}.Blobs", "init_args": data},
    }
    path.write_text(yaml.safe_dump(config))
    return path


def read_advice(folder: Path = Path("advice")) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "advice.json").read_text())
    return found


def findings(advice: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    questions = advice["questions"]
    assert list(questions) == QUESTIONS
    found = [one for question in questions.values() for one in question["findings"]]
    return {(one["probe"], one["question"]): one for one in found}


def check_commands(advice: dict[str, Any]) -> dict[str, str]:
    """Check that every command can be used and changes something; return the configurations."""
    configs: dict[str, str] = {}
    for command in advice["commands"].values():
        words = shlex.split(command)
        assert words[:2] == ["dlopt", "compare"]
        arms = [words[i + 1] for i, word in enumerate(words) if word == "--arm"]
        end = words.index("--arm")
        configs |= resolve_all(words[2:end], read_arms(arms))
        assert words[words.index("--seeds") + 1] == "6"
    return configs


def test_a_healthy_setup_gets_no_alarm(dlopt: Run, recipes: Path) -> None:
    code, printed = dlopt("advise", "--config", recipes / "quickstart.yaml", *TIME)
    assert code == 0
    advice = read_advice()
    assert all(one["severity"] < ALARM for one in findings(advice).values())
    assert all(one["not_done"] is one["cut_off"] is None for one in advice["probes"])
    assert "No alarm: nothing was found amiss." in printed
    assert sorted(path.name for path in Path().iterdir()) == ["advice"]
    report = Path("advice/advice.md").read_text()
    for text in ("Advice is a prior", "**Which optimizer?** No finding: ", "rate 0.003: loss 2."):
        assert text in report
    check_commands(advice)


@pytest.mark.slow
def test_a_rate_a_hundred_times_too_high(dlopt: Run, recipes: Path) -> None:
    high = ["--model.init_args.optimizer.init_args.lr", "0.3"]
    code, printed = dlopt("advise", "--config", recipes / "quickstart.yaml", *high, *TIME)
    assert code == 0
    advice = read_advice()
    found = findings(advice)["rate range", "rate"]
    assert found["severity"] == 1
    configs = check_commands(advice)
    rates = [
        yaml.safe_load(configs[arm])["model"]["init_args"]["optimizer"]["init_args"]["lr"]
        for arm in ("baseline", "rate_range")
    ]
    assert rates[0] == 0.3
    assert rates[1] == found["overlay"]["model"]["init_args"]["optimizer"]["init_args"]["lr"]
    command = advice["commands"]["rate_range"]
    assert "--metric val_accuracy --direction max" in command
    assert command in printed
    assert command in Path("advice/advice.md").read_text()
    overlay = yaml.safe_load(Path("advice/overlays/rate_range.yaml").read_text())
    assert overlay == found["overlay"]
    arguments = [
        "--config",
        recipes / "quickstart.yaml",
        "--config",
        "advice/overlays/rate_range.yaml",
    ]
    code, printed = dlopt("fit", *arguments, "--print_config")
    assert code == 0
    assert f"lr: {rates[1]}" in printed


@pytest.mark.slow
def test_other_peoples_module_with_faults(dlopt: Run, tmp_path: Path) -> None:
    module, data = {"rate": 1e-5}, {"outliers": 1000.0}
    config = other_peoples(tmp_path / "base.yaml", module, data)
    options = ["--output", "told", "--metric", "val_loss", *TIME]
    code, printed = dlopt("advise", "--config", config, *options)
    assert code == 0, printed
    advice = read_advice(Path("told"))
    assert findings(advice)["gradient-norm tail", "optimizer"]["severity"] > 0.5
    configs = check_commands(advice)
    (clip,) = yaml.safe_load(configs["clip_grad_norm"])["trainer"]["callbacks"]
    assert clip["class_path"].endswith("ClipGradNorm")
    assert "--metric val_loss --direction min" in advice["commands"]["clip_grad_norm"]
    arms = ["--config", config, "--config", "told/overlays/clip_grad_norm.yaml"]
    code, printed = dlopt("fit", *arms, "--trainer.max_steps=2", "--trainer.logger=false")
    assert code == 0, printed


@pytest.mark.slow
def test_a_network_too_large_for_its_data(dlopt: Run, tmp_path: Path) -> None:
    module = {"features": 256, "width": 1024, "rate": 0.001}
    data = {"samples": 200, "features": 256, "signal": 0.15}
    config = other_peoples(tmp_path / "base.yaml", module, data)
    code, _ = dlopt("advise", "--config", config, *TIME)
    assert code == 0
    advice = read_advice()
    found = findings(advice)
    for question in ("regularizer", "generalization"):
        assert found["train/validation gap", question]["severity"] > 0.5
    configs = check_commands(advice)
    assert {"l2", "mix_up"} <= set(configs)
    assert "--arm l2=" in advice["commands"]["all"]
    assert "--arm mix_up=" in advice["commands"]["all"]
    assert "All of them at once:" in Path("advice/advice.md").read_text()


def test_earlier_advice_is_not_overwritten(dlopt: Run, recipes: Path) -> None:
    Path("advice/overlays").mkdir(parents=True)
    Path("advice/advice.json").write_text('{"commands": {"old": ""}}')
    Path("advice/overlays/old.yaml").touch()
    Path("advice/overlays/mine.yaml").touch()
    arguments = ["advise", "--config", recipes / "quickstart.yaml", "--budget", "1"]
    code, printed = dlopt(*arguments)
    assert code == 2
    assert "advice/advice.json is there already: say --overwrite" in printed
    assert dlopt(*arguments, "--overwrite")[0] == 0
    there = {path.name for path in Path("advice/overlays").iterdir()}
    suggested = {f"{arm}.yaml" for arm in read_advice()["commands"] if arm != "all"}
    assert there == {"mine.yaml"} | suggested
    assert "old.yaml" not in there
    assert "questions" in read_advice()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config is missing"),
        (["--config", "none.yaml"], "none.yaml"),
        (["--config", "none.yaml", "--budget", "1h"], "--budget 1h: must be seconds"),
        (["--config", "none.yaml", "--budget", "0s"], "--budget 0s: must be seconds"),
        (["--config", "none.yaml", "--output", "file"], "--output: file is a file"),
    ],
)
def test_mistakes_are_one_line(dlopt: Run, arguments: list[str], message: str) -> None:
    Path("file").touch()
    code, printed = dlopt("advise", *arguments)
    assert code == 2
    (line,) = printed.splitlines()
    assert message in line


def test_help_says_what_it_does(dlopt: Run) -> None:
    code, printed = dlopt("advise", "--help")
    assert code == 0
    assert "--budget" in printed
    assert "advise" in dlopt()[1]


def test_a_module_that_fails_in_every_probe_is_told_of(dlopt: Run, tmp_path: Path) -> None:
    config = other_peoples(tmp_path / "base.yaml", {"features": 7}, {})
    code, printed = dlopt("advise", "--config", config, *TIME)
    assert code == 0, printed
    outcomes = {one["probe"]: one["not_done"] for one in read_advice()["probes"]}
    for name in ("rate range", "one-batch overfit", "loader time", "gradient-norm tail"):
        assert "RuntimeError: mat1 and mat2 shapes" in outcomes[name]
        assert f"{name}: not done: RuntimeError" in printed
    assert "Not answered: " in printed


def test_the_metric_is_what_a_callback_monitors(recipes: Path) -> None:
    arguments = ["fit", "--config", str(recipes / "quickstart.yaml")]
    cli = run_cli(AdviseCLI, arguments, save_config_callback=None)
    subject = subject_of(cli)
    assert metric_of(subject) == "val_accuracy"
    (callback,) = [
        one
        for one in subject.config["trainer"]["callbacks"]
        if (one["init_args"] or {}).get("monitor")
    ]
    callback["init_args"]["monitor"] = "val_loss"
    assert metric_of(subject) == "val_loss"
    callback["init_args"]["monitor"] = "nothing that is logged"
    assert metric_of(subject) == "val_accuracy"


def test_a_comparison_needs_an_end() -> None:
    assert budget_options({"trainer": {"max_epochs": 3, "max_steps": -1}}) == []
    assert budget_options({"trainer": {"max_epochs": None, "max_steps": 9}}) == []
    assert budget_options({"trainer": {"max_epochs": None, "max_steps": -1}})[0] == "--budget"
