"""Every technique has a card, and the cards say what is so."""

import functools
import importlib
import json
import re
from statistics import fmean
from typing import Any

import pytest
import yaml
from lightning.pytorch import Trainer

import lightning_dlopt
from benchmarks.cards.conflicts import conflicts
from benchmarks.cards.docstrings import docstring_of
from benchmarks.cards.pages import FOLDER, drifted, everything
from benchmarks.cards.techniques import ROOT, entries
from lightning_dlopt.core import Technique
from tests.contract.table import TABLE

NAMES = list(entries())
CALLBACKS = [name for name in NAMES if entries()[name].kind == "callback"]
NETWORKS = ["AttentionNet", "ConvNet", "MLP", "RecurrentNet", "ResNet9"]


def text_of(name: str) -> str:
    return (ROOT / FOLDER / entries()[name].file).read_text(encoding="utf-8")


def block(text: str, language: str, number: int = 0) -> str:
    found: str = re.findall(rf"```{language}\n(.*?)\n```", text, re.DOTALL)[number]
    return found


def test_every_technique_has_a_card_of_its_own() -> None:
    assert set(NAMES) == {*TABLE, "Muon", *NETWORKS}
    files = [entry.file for entry in entries().values()]
    assert len(set(files)) == len(files)
    assert {path.name for path in (ROOT / FOLDER).glob("*.md")} == {"README.md", *files}


def test_the_pages_are_what_docstrings_and_results_make() -> None:
    made, _ = everything()
    assert drifted(made) == [], "python -m benchmarks.cards --write makes them anew"


@pytest.mark.parametrize("name", NAMES)
def test_the_docstring_says_when_and_when_not_and_whose_idea_it_is(name: str) -> None:
    documented = entries()[name].docstring
    assert list(documented.sections)[:2] == ["When", "When not"]
    for section in ("When", "When not"):
        assert 1 <= len(documented.sections[section].splitlines()) <= 3
    source = " ".join(documented.source)
    if name == "UseOptimizer":  # the optimizers' sources are where they are told apart
        assert "lightning_dlopt.optimizers" in source
        source = importlib.import_module("lightning_dlopt.optimizers").__doc__ or ""
    assert re.search(r"\b(1[89]|20)\d\d\b", source), "the source has no year"


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    addresses = re.findall(r"\]\(([^)\s]+)\)", text_of(name))
    assert addresses
    for address in addresses:
        if not address.startswith("https://"):
            assert (ROOT / FOLDER / address).resolve().is_file(), address


def test_links_of_the_index_lead_somewhere() -> None:
    text = (ROOT / FOLDER / "README.md").read_text(encoding="utf-8")
    addresses = set(re.findall(r"\]\(([^)\s]+)\)", text))
    assert addresses == {entry.file for entry in entries().values()}


def build(plain: Any, is_factory: bool = False) -> Any:
    """Make what a configuration describes."""
    if isinstance(plain, list):
        return [build(item) for item in plain]
    if not (isinstance(plain, dict) and "class_path" in plain):
        return plain
    module, _, name = plain["class_path"].rpartition(".")
    cls = getattr(importlib.import_module(module or "lightning_dlopt"), name)
    arguments = {
        key: build(value, is_factory=key == "optimizer")
        for key, value in plain.get("init_args", {}).items()
    }
    return functools.partial(cls, **arguments) if is_factory else cls(**arguments)


def executed(code: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "card"}
    exec(code, namespace)
    return namespace


def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    settings |= {"enable_progress_bar": False, "enable_model_summary": False}
    original = Trainer.__init__

    def init(self: Trainer, **given: Any) -> None:
        original(self, **settings, **given)

    monkeypatch.setattr(Trainer, "__init__", init)


@pytest.mark.parametrize("name", [*CALLBACKS, "Muon"])
def test_yaml_and_python_make_the_same_technique(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet(monkeypatch)
    text = text_of(name)
    callbacks = yaml.safe_load(block(text, "yaml"))["trainer"]["callbacks+"]
    cls = lightning_dlopt.UseOptimizer if name == "Muon" else getattr(lightning_dlopt, name)
    (from_yaml,) = [made for made in map(build, callbacks) if type(made) is cls]
    trainer = executed(block(text, "python", 0))["trainer"]
    (from_python,) = [c for c in trainer.callbacks if isinstance(c, Technique)]
    module = executed(block(text, "python", 1))["YourModule"]()
    module.trainer = Trainer()
    (from_mixin,) = module.configure_callbacks()
    assert repr(from_yaml) == repr(from_python) == repr(from_mixin)
    assert (name == "Muon") == ("Muon" in repr(from_yaml))


@pytest.mark.parametrize("name", NETWORKS)
def test_yaml_and_python_make_the_same_network(name: str) -> None:
    text = text_of(name)
    plain = yaml.safe_load(block(text, "yaml"))["model"]["init_args"]["network"]
    from_yaml, from_python = build(plain), executed(block(text, "python"))["module"].network
    assert type(from_yaml) is type(from_python) is getattr(lightning_dlopt, name)
    shapes = [{k: v.shape for k, v in n.state_dict().items()} for n in (from_yaml, from_python)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", NAMES)
def test_the_yaml_is_a_recipe_that_ships(name: str) -> None:
    text = text_of(name)
    path = re.search(r"## YAML\n\n\[`(.+?)`\]", text)
    assert path
    assert (ROOT / path[1]).read_text().strip() == block(text, "yaml")


@pytest.mark.parametrize("name", CALLBACKS)
def test_what_the_contract_refuses_is_among_the_conflicts(name: str) -> None:
    row, lines = TABLE[name], conflicts(entries()[name])
    said = "\n".join(lines)
    for make in row.rivals:
        rival = type(make())
        kinds = {f"`{cls.__name__}`" for cls in rival.__mro__}
        assert any(kind in said for kind in kinds) or (rival is TABLE[name].technique and said)
    for setting in row.trainer_rivals:
        for argument in setting:
            assert argument in said or "gradient accumulation" in said, argument
    for line in lines or ["No other technique of this package is refused beside it."]:
        assert line in text_of(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_is_described(name: str) -> None:
    section = text_of(name).split("## Arguments\n\n")[1].split("\n\n")[0]
    described = re.findall(r"^- `(\w+)` \(.+?\): \S", section, re.MULTILINE)
    documented = docstring_of(entries()[name].cls).entries("Args")
    assert described == list(documented)
    assert not re.search(r"\): see `", section), "refers to what it doesn't show"


def test_networks_have_the_numbers_of_their_runs() -> None:
    lines = (ROOT / "benchmarks" / "results" / "networks.jsonl").read_text().splitlines()
    runs = [json.loads(line) for line in lines]
    for network, name in [("conv_net", "ConvNet"), ("text_res_net9", "ResNet9")]:
        own = [100 * run["test_accuracy"] for run in runs if run["network"] == network]
        (row,) = [line for line in text_of(name).splitlines() if f"`{network}.yaml` |" in line]
        assert f"| {fmean(own):.2f} ({min(own):.2f} - {max(own):.2f}) | {len(own)} |" in row
