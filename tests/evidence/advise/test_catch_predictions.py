"""Predictions that are caught at the loss."""

import torch
from torch import nn
from torch.nn import functional

from lightning_dlopt.evidence.advise.catch_predictions import CatchPredictions

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0]])


def test_every_form_of_cross_entropy() -> None:
    soft = torch.tensor([[0.0, 0.2, 0.8], [0.0, 0.9, 0.1]])
    with CatchPredictions() as catch, torch.inference_mode():
        functional.cross_entropy(LOGITS, torch.tensor([2, 1]))
        nn.CrossEntropyLoss(label_smoothing=0.1)(LOGITS, soft)
        functional.nll_loss(LOGITS.log_softmax(1), target=torch.tensor([2, 1]))
        nn.NLLLoss()(LOGITS.log_softmax(1), torch.tensor([2, 1]))
    assert len(catch.found) == 4
    for one in catch.found:
        assert one.predicted.tolist() == [0, 1]
        assert one.targets.tolist() == [2, 1]
        assert one.num_classes == 3


def test_two_classes_with_one_output() -> None:
    logits, targets = torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([0.0, 1.0, 0.0])
    with CatchPredictions() as catch:
        functional.binary_cross_entropy_with_logits(logits, targets)
        nn.BCELoss()(logits.sigmoid()[:, None], targets[:, None])
        functional.binary_cross_entropy(input=logits.sigmoid(), target=targets)
    assert len(catch.found) == 3
    for one in catch.found:
        assert one.predicted.tolist() == [0, 1, 1]
        assert one.targets.tolist() == [0, 1, 0]
        assert one.num_classes == 2


def test_what_is_no_class_a_sample_is_told_apart() -> None:
    with CatchPredictions() as catch:
        functional.cross_entropy(torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.long))
        functional.binary_cross_entropy(torch.full((2, 5), 0.5), torch.zeros(2, 5))
        functional.mse_loss(torch.zeros(2), torch.zeros(2))
    assert catch.found == []
    assert catch.others == [(2, 3, 4), (2, 5)]


def test_losses_and_gradients_are_as_without() -> None:
    targets = torch.tensor([2, 1])
    losses, gradients = [], []
    for watched in (False, True):
        logits = LOGITS.clone().requires_grad_()
        if watched:
            with CatchPredictions():
                loss = functional.cross_entropy(logits, targets, label_smoothing=0.2)
        else:
            loss = functional.cross_entropy(logits, targets, label_smoothing=0.2)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(logits.grad)
    assert torch.equal(*losses)
    assert torch.equal(*gradients)
