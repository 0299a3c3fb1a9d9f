import pytest
import torch
from torchvision.transforms import v2

from lightning_dlopt import (
    CutMix,
    cut_mix,
    draw_cuts,
    draw_shares,
    kept_shares,
    keyed_generator,
)
from lightning_dlopt.core.errors import TechniqueError
from tests.augmentation.mixing import train_once

SHARES = draw_shares(7, 1.0, keyed_generator(1))


@pytest.mark.parametrize("kind", [torch.uint8, torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shift", [0, 1, 4])
def test_cut_as_by_a_loop(kind: torch.dtype, shift: int) -> None:
    images = (torch.rand(7, 3, 9, 6, generator=keyed_generator(2)) * 200).to(kind)
    images = images.to(memory_format=torch.channels_last)
    before, boxes = images.clone(), draw_cuts(SHARES, 9, 6, keyed_generator(3))
    expected = images.clone()
    for i, (top, left, bottom, right) in enumerate(boxes.tolist()):
        partner = images[(i + shift) % 7]
        expected[i, :, top:bottom, left:right] = partner[:, top:bottom, left:right]
    mixed = cut_mix(images, boxes, shift)
    assert mixed.dtype == kind
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(mixed, expected)
    assert torch.equal(images, before)


def test_one_box_and_a_shift_back_are_torchvisions(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = torch.rand(6, 3, 8, 5), torch.arange(6)
    transform = v2.CutMix(num_classes=6)
    box = torch.tensor([[2, 1, 6, 4]])  # top, left, bottom, right
    share = float(kept_shares(box, 8, 5))
    known = {"labels": labels, "batch_size": 6, "num_classes": 6}
    made = {**known, "box": (1, 2, 4, 6), "lam_adjusted": share}
    monkeypatch.setattr(transform, "make_params", lambda _: made)
    expected, shares = transform(images, labels)
    assert torch.equal(cut_mix(images, box.expand(6, 4), shift=5), expected)
    torch.testing.assert_close(float(shares[0, 0]), share)


def test_boxes_have_the_area_that_is_wanted_unless_they_stick_out() -> None:
    wanted = torch.rand(20_000, generator=keyed_generator(4), dtype=torch.float64)
    boxes = draw_cuts(wanted, 240, 180, keyed_generator(5))
    top, left, bottom, right = boxes.t()
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (bottom <= 240).all()
    assert (right <= 180).all()
    inside = (top > 0) & (left > 0) & (bottom < 240) & (right < 180)
    kept = kept_shares(boxes, 240, 180)
    assert inside.sum() > 2000
    torch.testing.assert_close(kept[inside], wanted[inside], atol=0.01, rtol=0)
    assert (kept >= wanted - 0.01).all()
    # centers are everywhere alike: where a side sticks out, it is one of both alike
    assert abs(float((top == 0).double().mean() - (bottom == 240).double().mean())) < 0.02


def test_the_share_is_that_of_the_pixels_and_the_larger_one_comes_first() -> None:
    images = torch.arange(50.0)[:, None, None, None].expand(50, 1, 12, 10).contiguous()
    technique = CutMix(1.0, labels="loss")
    mixed, hard = technique.change((images, torch.arange(50)), keyed_generator(6))
    shares = technique.label_shares((images, torch.arange(50)), keyed_generator(6))
    assert shares is not None
    assert not torch.equal(hard, torch.arange(50))  # some images are mostly their partner's
    for image, label, share in zip(mixed, hard.tolist(), shares, strict=True):
        assert next(iter(share)) == label
        for one, part in share.items():
            assert abs(float((image == one).double().mean()) - part) < 1e-6


def test_a_target_of_pixels_is_cut_like_the_images() -> None:
    images = torch.rand(6, 1, 8, 8, generator=keyed_generator(7))
    for target in ((images[:, 0] * 100).long(), (images * 100).long(), images[:, 0]):
        seen = list(train_once(CutMix(1.0), (images, target)).seen[0])
        again = seen[0] if target.dim() == 4 else seen[0][:, 0]
        again = again if target.is_floating_point() else (again * 100).long()
        assert torch.equal(seen[1], again)
        assert not torch.equal(seen[0], images)


def test_other_inputs_are_refused() -> None:
    with pytest.raises(TechniqueError, match=r"shape \(4, 8\) must be a batch \(B, C, H, W\)"):
        CutMix().changed((torch.zeros(4, 8), torch.zeros(4).long()), keyed_generator(0))
    with pytest.raises(ValueError, match=r"boxes of \(2, 4\)"):
        cut_mix(torch.zeros(3, 1, 4, 4), torch.zeros(2, 4).long(), 1)


def test_an_empty_batch_and_one_of_one() -> None:
    for count in (0, 1):
        batch = torch.rand(count, 1, 4, 4), torch.zeros(count).long()
        mixed, target = CutMix().change(batch, keyed_generator(0))
        assert torch.equal(mixed, batch[0])
        assert torch.equal(target, batch[1])
