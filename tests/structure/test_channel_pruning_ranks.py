from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from tests.contract.processes import call_on_ranks
from tests.contract.run import assert_close_weights, train
from tests.contract.tasks import BATCH, Task
from tests.structure.pruned import WideModule, prune, widths

pytestmark = pytest.mark.slow


class Plain(WideModule):
    """Without the batch norm, which sees another batch on each rank; steps like the gradient."""

    def make_net(self) -> Any:
        net = super().make_net()
        net[1] = torch.nn.Identity()
        return net

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


TASK = Task(Plain)


def on_rank(rank: int, folder: Path, arguments: dict[str, Any], options: dict[str, Any]) -> None:
    outcome = train(
        TASK,
        [prune(**arguments)],
        batch_size=BATCH // 2,
        ranks=(rank, 2),
        devices=2,
        strategy=DDPStrategy(**options),
    )
    torch.save((outcome.weights, widths(outcome.module)), folder / f"rank-{rank}.pt")


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ({"steps": 2}, {}),
        ({"importance": "taylor", "at": 0}, {"gradient_as_bucket_view": True}),
        ({"at": 5}, {"find_unused_parameters": True}),
        ({"at": 5}, {"static_graph": True}),
    ],
)
def test_two_ranks_train_as_one_process_does(
    tmp_path: Path, arguments: dict[str, Any], options: dict[str, Any]
) -> None:
    call_on_ranks(on_rank, tmp_path, arguments, options, folder=tmp_path)
    one = train(TASK, [prune(**arguments)])
    for rank in range(2):
        weights, seen = torch.load(tmp_path / f"rank-{rank}.pt")
        assert seen == widths(one.module) != (16, 16, 3)
        assert_close_weights(weights, one.weights)
