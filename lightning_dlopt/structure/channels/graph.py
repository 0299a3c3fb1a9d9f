"""Which channels of a module hang together, found by Torch-Pruning's dependency graph."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from lightning_dlopt.core.errors import TechniqueError, UserError
from lightning_dlopt.core.parameters import plain_name
from lightning_dlopt.core.tensors import tensors_in
from lightning_dlopt.structure.channels.dims import coupled, is_one_width, width
from lightning_dlopt.structure.channels.eager import eager
from lightning_dlopt.structure.channels.stand_in import stand_in

#: The layers that make channels.
_FIRST = (_ConvNd, nn.Linear, nn.RNNBase, nn.Embedding, nn.MultiheadAttention)

#: A width: that of a layer's side, or of a parameter's dimension.
Width = tuple[str, str] | tuple[str, int]

#: Runs a module forward on an example, and returns what comes out.
Run = Callable[[Any], Any]


@dataclass
class Group:
    """Channels that run through several layers, and must be removed from all of them.

    ``units`` says for each channel of the first layer with which others it must go: those of the
    same number. ``sides`` holds two tensors for each layer and side (``"in"`` or ``"out"``):
    indices of its channels, and which of the first layer's channels they belong to; ``alone`` the
    same for parameters that belong to no layer of a known kind, by name and dimension. ``ends``
    says that the channels are an output of the module. ``follow`` names attributes of the module's
    own code that have to say the width, by part. In a multiple of ``align`` channels, each layer
    has as many as it counts.
    """

    name: str
    units: Tensor
    sides: dict[tuple[str, str], tuple[Tensor, Tensor]] = field(default_factory=dict)
    alone: dict[tuple[str, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    ends: bool = False
    unclear: bool = False
    align: int = 1
    follow: list[tuple[str, str]] = field(default_factory=list)

    def everywhere(self) -> list[tuple[Width, tuple[Tensor, Tensor]]]:
        """Return both kinds of places."""
        return [*self.sides.items(), *self.alone.items()]

    def producers(self) -> list[str]:
        """Return the layers whose outputs these channels are."""
        return [name for name, side in self.sides if side == "out"]


def find_groups(copy: nn.Module, run: Run) -> list[Group]:
    """Return the groups of channels of a module that may be changed: its parameters will be.

    Raises:
        TechniqueError: if Torch-Pruning isn't installed, or the module can't be traced.
    """
    pruning = torch_pruning()
    if any(map(is_lazy, copy.parameters())):
        raise TechniqueError(
            f"{type(copy).__name__} has lazy layers without shapes: run a batch through it first"
        )
    names = {part: plain_name(name) for name, part in copy.named_modules()}
    for parameter in copy.parameters():  # what is frozen would be no part of the graph
        if parameter.is_floating_point():
            parameter.requires_grad_(True)
    for part in copy.modules():
        stand_in(part)
    graph = pruning.DependencyGraph()
    recurrent, norm = _unknown_to_it(pruning)
    with torch.enable_grad(), warnings.catch_warnings(), eager():
        warnings.simplefilter("ignore")
        try:
            graph.build_dependency(
                copy,
                example_inputs=None,
                forward_fn=lambda module, _: _roots(run(module)),
                customized_pruners={
                    type(part): recurrent if isinstance(part, nn.RNNBase) else norm
                    for part in copy.modules()
                    if isinstance(part, nn.RNNBase | nn.RMSNorm)
                },
                verbose=False,
            )
        except UserError:
            raise
        except Exception as error:
            raise TechniqueError(
                f"the channels of {type(copy).__name__} can't be followed from layer to layer: "
                f"{type(error).__name__}: {error}. It must run on the example in evaluation, with "
                "gradients and without code that leaves autograd; prune a part of it that does"
            ) from error
        splits = _settle(pruning, graph)
        roots = (
            nn.modules.conv._ConvNd,
            nn.Linear,
            nn.RNNBase,
            nn.Embedding,
            nn.MultiheadAttention,
        )
        found = list(graph.get_all_groups(root_module_types=roots))
    parameters = {p: plain_name(name) for name, p in copy.named_parameters()}
    return [_group(graph, items, splits, names, parameters) for items in found]


def torch_pruning() -> Any:
    """Return Torch-Pruning, or raise a TechniqueError that says how to get it."""
    try:
        import torch_pruning as package  # type: ignore[import-not-found, import-untyped, unused-ignore]
    except ImportError as error:
        raise TechniqueError(
            "removing channels needs Torch-Pruning: pip install 'lightning-dlopt[pruning]'"
        ) from error
    return package


def _group(
    graph: Any, items: Any, splits: set[Any], names: dict[Any, str], parameters: dict[Any, str]
) -> Group:
    first, handler = items[0].dep.target.module, items[0].dep.handler
    group = Group(names[first], torch.arange(width(first, "out")))
    if splits & {item.dep.target for item in items}:
        # where split channels meet again, only one by one shows all that belongs to each
        items = [
            item
            for root in range(len(group.units))
            for item in graph.get_pruning_group(first, handler, [root])
        ]
    found: dict[Any, list[tuple[Tensor, Tensor]]] = {}
    for item in items:
        dependency, layer = item.dep, item.dep.target.module
        if dependency.target.type == graph.ops.OPTYPE.OUTPUT:
            group.ends = True
            continue
        if isinstance(layer, nn.Parameter):
            key = layer, dependency.target.pruning_dim % layer.dim()
        elif layer in names and not (isinstance(layer, nn.PReLU) and layer.num_parameters == 1):
            out = is_one_width(layer) or graph.is_out_channel_pruning_fn(dependency.handler)
            key = layer, "out" if out else "in"
        else:
            continue
        places = torch.tensor(list(item.idxs)), torch.tensor(list(item.root_idxs))
        found.setdefault(key, []).append(places)
    for (layer, side), several in found.items():
        index, roots = (torch.cat(each) for each in zip(*several, strict=True))
        alone = isinstance(layer, nn.Parameter)
        if int(index.max()) >= (layer.shape[side] if alone else width(layer, side)):
            group.unclear = True
            continue
        if alone:
            group.alone[parameters[layer], side] = index, roots
        else:
            group.sides[names[layer], side] = index, roots
            if isinstance(layer, nn.RNNBase) and layer.bidirectional and side == "out":
                group.align = 2
            if (together := coupled(layer, side)) is not None:
                group.units = _join(group.units, together[index], roots)
        # several channels of the first layer may be one channel of this
        group.units = _join(group.units, index, roots)
    return group


def _join(units: Tensor, together: Tensor, roots: Tensor) -> Tensor:
    """Give all ``roots`` whose number in ``together`` is the same one number in ``units``."""
    units = units.clone()
    changed = True
    while changed:
        least = torch.full((int(together.max()) + 1,), len(units)).scatter_reduce(
            0, together, units[roots], "amin"
        )
        new = units.scatter_reduce(0, roots, least[together], "amin")
        # a unit has the number of its least member, by which the others find it
        new = new.scatter_reduce(0, units[roots], least[together], "amin")
        new = new[new]
        changed = not torch.equal(new, units)
        units = new
    return units


def _settle(pruning: Any, graph: Any) -> set[Any]:
    """Mend what the graph takes wrongly, and keep it from finding everything out again each time.

    It takes the second dimension of whatever is concatenated or split for the channels, which are
    the last one between fully connected layers, and the rows of a table for channels.

    Returns:
        The nodes at which channels part.
    """
    kinds = graph.ops.OPTYPE
    nodes = list(graph.module2node.values())
    for node in nodes:
        node.enable_index_mapping = True  # it gives up where a parameter of three dimensions is
        if node.type in (kinds.CONCAT, kinds.SPLIT) and getattr(node.grad_fn, "_saved_dim", 1) > 1:
            node.grad_fn = _as_second_dim(node.grad_fn)
    pruning.dependency.shape_infer.init_shape_information(graph)
    pruning.dependency.index_mapping.update_index_mapping(graph)
    moving = {kinds.CONCAT, kinds.SPLIT, kinds.RESHAPE, kinds.UNBIND, kinds.EXPAND, kinds.SLICE}
    splits = set()
    for node in nodes:
        if node.type not in moving:
            continue
        sizes = getattr(node.grad_fn, "_saved_self_sym_sizes", ())
        if node.type == kinds.SLICE and len(sizes) == 2 and node.module.dim == 0:
            for other in (node, *node.inputs):
                for dependency in other.dependencies:
                    if node in (dependency.target, dependency.source):
                        dependency.index_mapping[0] = None
        moves = any(each.index_mapping[0] is not None for each in node.dependencies)
        if moves and node.type in (kinds.SPLIT, kinds.SLICE, kinds.UNBIND):
            splits.add(node)
        node.type = kinds.ELEMENTWISE
    return splits


def _as_second_dim(step: Any) -> Any:
    names = ("_saved_split_size", "_saved_split_sizes")
    saved = {name: getattr(step, name) for name in names if hasattr(step, name)}
    return SimpleNamespace(_saved_dim=1, _saved_self_sizes=(), **saved)


def _unknown_to_it(pruning: Any) -> tuple[Any, Any]:
    """Return what tells the graph of recurrent layers and RMS norms; it never removes anything."""

    class Pruner(pruning.pruner.function.BasePruningFunc):  # type: ignore[misc]
        def prune_out_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:
            raise NotImplementedError

        def prune_in_channels(self, layer: nn.Module, idxs: Any) -> nn.Module:
            raise NotImplementedError

        def get_out_channels(self, layer: nn.Module) -> int:
            return width(layer, "out")

        def get_in_channels(self, layer: nn.Module) -> int:
            return width(layer, "in")

    class OneWidth(Pruner):
        # by this the graph knows that what goes in comes out
        prune_in_channels = Pruner.prune_out_channels

    return Pruner(), OneWidth()


def _roots(outputs: Any) -> list[Tensor]:
    """Return what came out, each with a step of its own behind it, by which outputs are known."""
    tensors = [tensor * 1 for tensor in tensors_in(outputs) if tensor.requires_grad]
    if not tensors:
        raise TypeError("no output has a gradient")
    return tensors
