"""Channels that are really removed.

The way from a target to smaller parameters, file by file:

1. ``graph`` finds with Torch-Pruning which channels of which layers hang together, as groups;
   ``dims`` knows where channels lie in each kind of layer's tensors.
2. ``kept`` leaves out groups that have to stay, and ``check`` those without which the module would
   compute something else; both say why.
3. ``cost`` and ``search`` decide how many channels each group loses, the least important first;
   ``measure`` sees what that gains. ``choose`` puts this together, as a ``Shrinkage``.
4. ``cut`` slices the parameters. ``widths`` writes the plan, plain data by which another module
   gets the same widths, without Torch-Pruning.

In the Trainer, ``channel_pruning`` says when (``timing``); ``recorded_calls`` finds what the
network is called with, and ``in_training`` decides on all ranks alike and cuts optimizers and
techniques.
"""
