"""The complete recipes of the networks train from the command line, at an equal budget."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import lightning_dlopt
from lightning_dlopt.cli import main
from tests.recipes.listing import COMPLETE

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
#: About how many parameters a network has, without the embedding of tokens.
IMAGES, TEXTS = 200_000, 206_000


def section(recipe: Path, name: str) -> Any:
    return yaml.safe_load(recipe.read_text())[name]["init_args"]


def build(recipe: Path) -> torch.nn.Module:
    described = section(recipe, "model")["network"]
    network: torch.nn.Module = getattr(
        lightning_dlopt, described["class_path"].removeprefix("lightning_dlopt.")
    )(**described["init_args"])
    return network


def test_there_is_a_recipe_for_each_network() -> None:
    networks = ["mlp", "conv_net", "recurrent_net", "attention_net", "res_net9"]
    texts = ["text_recurrent_net", "text_attention_net", "text_res_net9"]
    assert {recipe.stem for recipe in COMPLETE} == {*networks, *texts}


@pytest.mark.parametrize("recipe", COMPLETE, ids=lambda recipe: recipe.stem)
def test_the_recipe_trains_and_tests(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--config", str(recipe), *QUIET]
    if recipe.stem.startswith("text"):
        rows = [f"{n % 26:02}\tword{n % 26} and w{n % 7}\n" for n in range(1000)]
        Path("nouns.tsv").write_text("label\ttext\n" + "".join(rows))
    else:
        options.append("--data.init_args.eval_batch_size=50")
    few = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=5"]
    assert main(["fit", *options, *few, "--trainer.limit_val_batches=2"]) == 0
    assert list(tmp_path.rglob("best.ckpt"))
    (last,) = tmp_path.rglob("last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 5
    limited = ["--trainer.limit_test_batches=2", f"--ckpt_path={last}"]
    assert main(["test", *options, *limited]) == 0
    assert "test_accuracy" in capfd.readouterr().out


@pytest.mark.parametrize("recipe", COMPLETE, ids=lambda recipe: recipe.stem)
def test_budgets_are_equal(recipe: Path) -> None:
    network = build(recipe)
    size, budget = sum(p.numel() for p in network.parameters()), IMAGES
    if recipe.stem.startswith("text"):
        embedding, budget = network.get_submodule("embedding").weight, TEXTS
        assert embedding.shape == (20_000, 128)
        size -= embedding.numel()
    assert size == pytest.approx(budget, rel=0.03)


def test_only_what_differs_between_the_networks_differs() -> None:
    for group in (True, False):
        recipes = [recipe for recipe in COMPLETE if recipe.stem.startswith("text") == group]
        contents = [yaml.safe_load(recipe.read_text()) for recipe in recipes]
        for content, recipe in zip(contents, recipes, strict=True):
            assert content["trainer"]["logger"]["init_args"].pop("name") == recipe.stem
            del content["model"]["init_args"]["network"]
            del content["model"]["init_args"]["optimizer"]["init_args"]["lr"]
            assert content == contents[0]
