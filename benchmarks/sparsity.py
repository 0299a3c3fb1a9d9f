"""What lasso, ridge and Elastic Net do to the weights of the source example.

``python -m benchmarks.sparsity`` trains the multilayer perceptron 784-128-128-10 on real
Fashion-MNIST with each penalty, from the same weights and in the same order of batches, and prints
a Markdown table of the test accuracy and of the weights (matrices; biases aren't penalized).
"""

import argparse
import logging
import time
import warnings

import torch
from lightning.pytorch import Trainer, seed_everything

from benchmarks.measuring import machine
from lightning_dlopt import (
    L1,
    L2,
    MLP,
    ElasticNet,
    FashionMNIST,
    ImageClassifier,
    Technique,
    select_parameters,
    zero_share,
)

ARMS: dict[str, list[Technique]] = {
    "none": [],
    "L1, subgradient": [L1(1e-4)],
    "L1, proximal": [L1(0.05, method="proximal")],
    "L1, proximal, stronger": [L1(0.1, method="proximal")],
    "L2": [L2(5e-4)],
    "ElasticNet, proximal": [ElasticNet(l1=0.05, l2=0.1, method="proximal")],
}


def train(techniques: list[Technique], epochs: int, seed: int) -> list[str]:
    """Train and return the cells of a row."""
    seed_everything(seed, verbose=False)
    module = ImageClassifier(MLP([784, 128, 128, 10]))
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(techniques),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    data = FashionMNIST(batch_size=128)
    begin = time.perf_counter()
    trainer.fit(module, data)
    seconds = time.perf_counter() - begin
    (result,) = trainer.test(module, data, verbose=False)
    weights = [weight.detach() for _, weight in select_parameters(module, "weights")]
    flat = torch.cat([weight.flatten() for weight in weights])
    return [
        f"{100 * result['test_accuracy']:.1f} %",
        f"{100 * zero_share(weights).item():.1f} %",
        f"{100 * (flat.abs() < 1e-3).float().mean().item():.1f} %",
        f"{flat.square().mean().item():.2e}",
        f"{seconds:.0f} s",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    print(f"\n{machine()}; {options.epochs} epochs, Adam, rate 0.001, batch 128\n")
    print("| penalty | test accuracy | exact zeros | below 0.001 | mean square | training |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, techniques in ARMS.items():
        shown = f"{name}: `{techniques[0]!r}`" if techniques else name
        print("|", " | ".join([shown, *train(techniques, options.epochs, options.seed)]), "|")


if __name__ == "__main__":
    main()
