"""Expressions of Python from plain data, laid out in lines of limited length."""

from dataclasses import dataclass, field
from typing import Any

WIDTH = 88


@dataclass(frozen=True)
class Node:
    """A call or a list, or, without ``end``, text that stays together.

    Attributes:
        begin: such as ``EMA(`` or ``[``.
        items: what is between, each with what stands before it, such as ``decay=``.
        end: the bracket that closes it.
    """

    begin: str
    items: tuple[tuple[str, "Node"], ...] = ()
    end: str = ""

    def line(self) -> str:
        """Return it in one line."""
        return self.begin + ", ".join(key + item.line() for key, item in self.items) + self.end

    def lay_out(self, before: str = "", after: str = "", indent: int = 0) -> str:
        """Return it with what stands before and behind it, in several lines if it is long."""
        line = " " * indent + before + self.line() + after
        if len(line) <= WIDTH or not self.items:
            return line
        inner = [item.lay_out(key, ",", indent + 4) for key, item in self.items]
        return "\n".join(
            [" " * indent + before + self.begin, *inner, " " * indent + self.end + after]
        )


@dataclass
class Code:
    """Expressions, and what they need to import."""

    imports: dict[str, set[str]] = field(default_factory=dict)

    def use(self, path: str) -> str:
        """Note a class's path, short ones being of this package, and return its name."""
        module, _, name = path.rpartition(".")
        if not module or module.startswith("lightning_dlopt"):
            module = "lightning_dlopt"
        self.imports.setdefault(module, set()).add(name)
        return name

    def call(self, path: str, arguments: dict[str, Any]) -> Node:
        """Return the call of a class."""
        items = tuple((f"{name}=", self.value(name, own)) for name, own in arguments.items())
        return Node(f"{self.use(path)}(", items, ")")

    def value(self, name: str, plain: Any) -> Node:
        """Return an argument from a configuration; what makes an optimizer is a ``partial``."""
        if isinstance(plain, dict) and "class_path" in plain:
            path, arguments = plain["class_path"], plain.get("init_args", {})
            if name != "optimizer":
                return self.call(path, arguments)
            self.use("functools.partial")
            made = self.call(path, arguments)
            return Node("partial(", (("", Node(made.begin[:-1])), *made.items), ")")
        if isinstance(plain, list):
            return Node("[", tuple(("", self.value(name, item)) for item in plain), "]")
        return Node(f'"{plain}"' if isinstance(plain, str) else repr(plain))

    def statements(self) -> str:
        """Return the imports, this package's last."""
        order = sorted(self.imports, key=lambda module: (module == "lightning_dlopt", module))
        lines = [f"from {m} import {', '.join(sorted(self.imports[m]))}" for m in order]
        return "\n".join(lines)
