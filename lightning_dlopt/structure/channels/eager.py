"""Running what is compiled as it was written."""

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def eager() -> AbstractContextManager[Any]:
    """Let what is compiled run as it was written."""
    if "torch._dynamo" not in sys.modules:  # nothing is compiled, and it takes long to load
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
