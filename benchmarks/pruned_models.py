"""What removed channels gain in ONNX Runtime: latency at batch 256, bytes, and 8 bits.

``python -m benchmarks.pruned_models`` takes torchvision's ResNet-18 with random weights (images of
3 x 32 x 32) at a quarter of its multiply-adds, with widths that are multiples of 8 and with any;
and the trained networks that ``benchmarks.pruning`` has left in ``runs/pruning`` (one seed), in 32
and in 8 bits, with their accuracy on Fashion-MNIST's test images. All sides of a table are measured
in turns.
"""

import argparse
import logging
import tempfile
import warnings
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor, nn
from torchvision import models

from benchmarks.measuring import interleaved, machine, repeated, spread
from benchmarks.pruning import build, checkpoint
from lightning_dlopt import (
    FashionMNIST,
    count_multiply_adds,
    export_module,
    load_from_checkpoint,
    prune_channels,
)
from lightning_dlopt.modules import ImageClassifier

BATCH = 256


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def latencies(files: dict[str, Path], images: Tensor, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each file's calls, taken in turns."""
    sides = {}
    for name, path in files.items():
        loaded = session(path)
        feed = {loaded.get_inputs()[0].name: images.numpy()}
        sides[name] = repeated(lambda run=loaded.run, feed=feed: run(None, feed), 3)  # type: ignore[misc]
    return interleaved(sides, rounds)


def res_nets(folder: Path, rounds: int) -> None:
    example = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    files, sizes = {}, {}
    for name, align in {
        "dense": 0,
        "a quarter, multiples of 8": 8,
        "a quarter, any widths": 1,
    }.items():
        torch.manual_seed(1)
        network: nn.Module = models.resnet18(num_classes=10).eval()
        if align:
            prune_channels(network, example, speed_up=4.0, align=align)
        export_module(network, example, folder / name, formats=["onnx"])
        files[name] = folder / f"{name}.onnx"
        sizes[name] = count_multiply_adds(network, example[:1])
    times = latencies(files, torch.randn(BATCH, 3, 32, 32), rounds)
    print("\n| ResNet-18 | multiply-adds | ms at batch 256 | times faster |")
    print("| --- | --- | --- | --- |")
    for name, values in times.items():
        ratios = [dense / one for dense, one in zip(times["dense"], values, strict=True)]
        row = [
            name,
            f"{sizes[name] / 1e6:.1f} M",
            spread([1e3 * v for v in values], 1),
            spread(ratios),
        ]
        print("|", " | ".join(row), "|", flush=True)


def trained(folder: Path, rounds: int, seed: int) -> None:
    data = FashionMNIST(batch_size=500)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    calibration = [batch[0] for _, batch in zip(range(4), data.train_dataloader(), strict=False)]
    files, rows = {}, {}
    for arm in ("dense", "pruned 4", "pruned 10"):
        module = load_from_checkpoint(
            ImageClassifier, checkpoint(arm, seed), network=build().network
        ).eval()
        exports = export_module(
            module,
            calibration[0][:4],
            folder / f"small {arm}",
            formats=["onnx", "int8"],
            calibration=calibration,
            evaluation=data.test_dataloader(),
        )
        whole, float32, int8 = exports  # the float32 file computes what the module does
        for suffix, one, marked in ((", 32 bits", float32, whole), (", 8 bits", int8, int8)):
            assert one.path is not None
            assert marked.accuracy is not None
            files[arm + suffix] = Path(one.path)
            rows[arm + suffix] = [f"{one.bytes:,}", f"{100 * marked.accuracy:.2f}"]
    times = latencies(files, torch.randn(BATCH, 1, 28, 28), rounds)
    print("\n| small network | bytes | test accuracy, % | ms at batch 256 | times faster |")
    print("| --- | --- | --- | --- | --- |")
    for name, values in times.items():
        base = times["dense, 32 bits"]
        ratios = [dense / one for dense, one in zip(base, values, strict=True)]
        row = [name, *rows[name], spread([1e3 * v for v in values], 1), spread(ratios)]
        print("|", " | ".join(row), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=1, help="of the trained networks")
    options = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    print(f"{machine()}, onnxruntime {onnxruntime.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        res_nets(Path(folder), options.rounds)
        trained(Path(folder), options.rounds, options.seed)


if __name__ == "__main__":
    main()
