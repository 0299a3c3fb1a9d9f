"""What lasso, ridge and Elastic Net do to the weights of the source example.

``python -m benchmarks.sparsity`` trains the multilayer perceptron 784-128-128-10 on real
Fashion-MNIST with each penalty, from the same weights and in the same order of batches, and prints
a Markdown table of the test accuracy and of the weights (matrices; biases aren't penalized).
"""

import argparse
import logging
import warnings

import torch
from lightning.pytorch import Trainer, seed_everything

from benchmarks.measuring import machine, spread
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


def train(techniques: list[Technique], epochs: int, seed: int) -> list[float]:
    """Train and return the numbers of a row."""
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
    trainer.fit(module, data)
    (result,) = trainer.test(module, data, verbose=False)
    weights = [weight.detach() for _, weight in select_parameters(module, "weights")]
    flat = torch.cat([weight.flatten() for weight in weights])
    return [
        100 * result["test_accuracy"],
        100 * zero_share(weights).item(),
        100 * (flat.abs() < 1e-3).float().mean().item(),
        1e3 * flat.square().mean().item(),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 4])
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    print(f"\n{machine()}; {options.epochs} epochs, Adam, rate 0.001, batch 128; seeds", end=" ")
    print(*options.seeds, "- median (least - most)\n")
    print("| penalty | test accuracy, % | exact zeros, % | below 0.001, % | 1000 x mean square |")
    print("| --- | --- | --- | --- | --- |")
    for name, techniques in ARMS.items():
        shown = f"{name}: `{techniques[0]!r}`" if techniques else name
        columns = zip(*(train(techniques, options.epochs, s) for s in options.seeds), strict=True)
        print("|", " | ".join([shown, *(spread(list(c), 1) for c in columns)]), "|", flush=True)


if __name__ == "__main__":
    main()
