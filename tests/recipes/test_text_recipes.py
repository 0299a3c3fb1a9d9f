"""The recipes for texts train and test from the command line, here on a small file."""

from pathlib import Path

import pytest

from lightning_dlopt.cli import main

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("name", ["text_recurrent", "text_attention"])
def test_the_recipe_on_a_small_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # with quotes, as the recipe's own file has
    rows = [f'{n % 3:02}\t"a ""quoted"" word{n % 3} and w{n % 7}"\n' for n in range(1200)]
    Path("small.tsv").write_text("label\ttext\n" + "".join(rows))
    options = ["--config", str(RECIPES / f"{name}.yaml"), "--data.path=small.tsv"]
    options += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    assert main(["fit", *options]) == 0
    (last,) = tmp_path.rglob("last.ckpt")
    assert main(["test", *options, f"--ckpt_path={last}"]) == 0
    assert "test_accuracy" in capfd.readouterr().out
    assert main(["test", *options, "--model.num_classes=2"]) == 2
    assert "error: TextClassifier: num_classes=2, but TextCl" in capfd.readouterr().err
