"""How a technique is used from Python: what its recipe does, and the functions behind it."""

import ast
import inspect
from importlib import import_module
from typing import Any

from benchmarks.cards.docstrings import docstring_of
from benchmarks.cards.python_code import Code, Node
from benchmarks.cards.techniques import MIXINS, Entry, recipes_of

#: Functions that a callback doesn't call itself, since it does their work bit by bit.
ALSO = {
    "ChannelPruning": {"prune_channels"},
    "EMA": {"update_average_"},
    "FreezeLayers": {"freeze"},
    "FullBatch": {"full_batch_gradient"},
    "MagnitudePruning": {"prune_by_magnitude_"},
    "UseOptimizer": {"group_parameters"},
}


def expression(entry: Entry, code: Code) -> Node:
    """Return what makes a technique as its recipe does."""
    arguments = recipes_of(entry)[0].named[entry.name]
    if entry.kind == "optimizer":
        own = {"optimizer": {"class_path": entry.name, "init_args": arguments}}
        return code.call("UseOptimizer", own)
    return code.call(entry.name, arguments)


def python(entry: Entry) -> str:
    """Return a technique in Python, as a callback or, a network, in a module."""
    code = Code()
    made = expression(entry, code)
    if entry.kind == "network":
        shown = Node(f"{code.use('ImageClassifier')}(", (("", made),), ")").lay_out("module = ")
        return f"{code.statements()}\n\n{shown}"
    callbacks = Node("[", (("", made),), "]")
    items = (("max_epochs=", Node("10")), ("callbacks=", callbacks))
    shown = Node(f"{code.use('lightning.pytorch.Trainer')}(", items, ")").lay_out("trainer = ")
    return f"{code.statements()}\n\n{shown}"


def mixin(entry: Entry) -> str:
    """Return how a module brings a technique itself."""
    code = Code()
    name, argument = MIXINS[entry.family]
    made = expression(entry, code)
    code.use("lightning.pytorch.LightningModule")
    if argument != "schedule":
        made = Node("[", (("", made),), "]")
    begin = (
        f"class YourModule({code.use(name)}, LightningModule):\n    def __init__(self) -> None:\n"
    )
    call = Node("super().__init__(", ((f"{argument}=", made),), ")").lay_out(indent=8)
    end = "    ...  # your training_step and configure_optimizers, as ever"
    return f"{code.statements()}\n\n\n{begin}{call}\n\n{end}"


def functions(entry: Entry) -> dict[str, str]:
    """Return the plain functions behind a technique, with the first line of each docstring."""
    module: Any = import_module(f"lightning_dlopt.{entry.family}")
    public = {name: getattr(module, name) for name in module.__all__}
    if entry.family == "schedules":
        public = {f"curves.{name}": own for name, own in vars(module.curves).items()}
    named = set(ALSO.get(entry.name, ()))
    for cls in [entry.cls, *entry.bases]:
        if cls.__module__.startswith(f"lightning_dlopt.{entry.family}."):
            named |= _names(cls)
    return {
        name: docstring_of(own).summary
        for name, own in sorted(public.items())
        if inspect.isfunction(own) and own.__name__ in named
    }


def _names(cls: type) -> set[str]:
    """Return the names used in a class, and of the functions of its file, if that is its alone."""
    tree = ast.parse(inspect.getsource(import_module(cls.__module__)))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    own = [node for node in classes if node.name == cls.__name__]
    names = {node.id for one in own for node in ast.walk(one) if isinstance(node, ast.Name)}
    names |= {node.attr for one in own for node in ast.walk(one) if isinstance(node, ast.Attribute)}
    if len([node for node in classes if not node.name.startswith("_")]) == 1:
        names |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    return names
