"""torchvision's policies give the same batches with any number of workers, and after a resume."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms import v2  # type: ignore[import-untyped]

from lightning_dlopt.data import Digits, ImageFolder

Unchanged = Callable[[], AbstractContextManager[None]]
POLICIES = [v2.RandAugment, v2.TrivialAugmentWide, v2.AugMix, v2.AutoAugment]


def data(policy: Any, folder: Path | None, num_workers: int) -> Any:
    arguments: dict[str, Any] = {"train_transform": policy(), "seed": 3, "validation": 0}
    arguments["num_workers"] = num_workers
    if folder is None:
        return Digits(batch_size=500, **arguments)
    return ImageFolder(folder, image_size=8, batch_size=4, **arguments)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("source", ["tensors", "files"])
def test_workers_and_a_resume_leave_batches_as_they_are(
    policy: Any,
    source: str,
    tmp_path: Path,
    make_images: Callable[..., Path],
    unchanged_global_randomness: Unchanged,
) -> None:
    folder = make_images(tmp_path) if source == "files" else None
    here = data(policy, folder, 0).train_dataloader()
    with unchanged_global_randomness():
        whole = [list(here) for _ in range(2)]
    torch.manual_seed(5)
    there = data(policy, folder, 2).train_dataloader()
    iterator = iter(there)
    began = [next(iterator)]
    state = there.state_dict()
    iterator.close()
    resumed = data(policy, folder, 2).train_dataloader()
    resumed.load_state_dict(state)
    epochs = [[*began, *resumed], list(resumed)]
    for left, right in zip(whole, epochs, strict=True):
        for (images, targets), (others, labels) in zip(left, right, strict=True):
            assert torch.equal(images, others)
            assert torch.equal(targets, labels)
    assert not torch.equal(whole[0][0][0], whole[1][0][0])
    plain = data(torch.nn.Identity, folder, 0).train_dataloader()
    assert not torch.equal(next(iter(plain))[0], whole[0][0][0])
