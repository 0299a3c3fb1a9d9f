"""Reversible replacement of an object's methods, one instance at a time."""

from collections.abc import Callable
from copy import deepcopy
from functools import update_wrapper
from types import CodeType
from typing import Any, TypeVar

from lightning.pytorch import LightningModule

from lightning_dlopt.core.errors import TechniqueError

T = TypeVar("T")

_ABSENT = object()

#: Where a patch goes among several of one method, whatever the order of the callbacks. Each level
#: is outside of the one before; patches of one level are nested in the order they were made. There
#: is room below ``BATCH``, for techniques that put themselves in the order of the callbacks.
RERUN, LOSS, MIX, BATCH, OUTERMOST = 0, 1, 10_000, 20_000, 30_000


def _itself(value: T) -> T:
    return value


class PatchedMethod:
    """What stands in for a method while it is patched.

    A copy or a pickle of the owner gets back what stood there before: a function would go on
    working on the object it was made for.
    """

    def __init__(
        self,
        owner: Any,
        name: str,
        wrap: Callable[[Callable[..., Any]], Callable[..., Any]],
        level: int = OUTERMOST,
    ) -> None:
        self.owner = owner
        self.name = name
        self.wrap = wrap
        self.level = level
        # the CLI and torch.compile leave methods in the instance: those come back, too
        self.before = vars(owner).get(name, _ABSENT)
        self.original = getattr(owner, name)
        self.above: PatchedMethod | None = None
        while isinstance(self.before, PatchedMethod) and self.before.level > level:
            self.above = self.before
            self.original, self.before = self.above.original, self.above.before
        self.replacement = wrap(self._call_original())
        # Lightning asks whether a hook is overridden by looking at __wrapped__ and __code__. A
        # hook that the user left alone must count as overridden now, or it would not be called.
        inherited = getattr(LightningModule, name, None)
        if getattr(self.original, "__func__", self.original) is not inherited:
            update_wrapper(self, self.original, updated=())
            # it goes one level deep to see a hook's arguments, so that level must be the one that
            # it sees without this patch, beneath a decorator or another patch
            vars(self)["__wrapped__"] = getattr(self.original, "__wrapped__", self.original)

    def _call_original(self) -> Callable[..., Any]:
        # looked up at every call: a patch of a lower level may come in between
        def call(*args: Any, **kwargs: Any) -> Any:
            return self.original(*args, **kwargs)

        return update_wrapper(call, self.original, updated=())

    def put(self) -> None:
        """Take the place in the owner, or beneath the patches of higher levels."""
        if self.above is None:
            object.__setattr__(self.owner, self.name, self)
        else:
            self.above.original = self.above.before = self
            self.above = None

    @property
    def __code__(self) -> CodeType:
        code: CodeType = self.replacement.__code__
        return code

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the replacement."""
        return self.replacement(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self.before is not _ABSENT:
            return deepcopy(self.before, memo)
        owner = memo.get(id(self.owner), self.owner)
        return getattr(type(owner), self.name).__get__(owner)

    def __reduce__(self) -> tuple[Any, ...]:
        if self.before is not _ABSENT:
            return _itself, (self.before,)
        return getattr, (self.owner, self.name)

    def is_in_place(self) -> bool:
        """Return whether a call of the owner's method still comes here."""
        current = vars(self.owner).get(self.name, _ABSENT)
        while isinstance(current, PatchedMethod):
            if current is self:
                return True
            current = current.before
        return False

    def again(self) -> "PatchedMethod":
        """Patch what stands there by now; this one only passes calls on, if it still gets any."""
        self.replacement = self._call_original()
        patched = PatchedMethod(self.owner, self.name, self.wrap, self.level)
        patched.put()
        return patched

    def undo(self) -> None:
        """Put back what stood there before, also from under a patch that came later."""
        current = vars(self.owner).get(self.name, _ABSENT)
        if current is self:
            if self.before is _ABSENT:
                object.__delattr__(self.owner, self.name)
            else:
                object.__setattr__(self.owner, self.name, self.before)
            return
        # whoever still holds this one finds that it only passes the call on
        self.replacement = self.original
        while isinstance(current, PatchedMethod):
            if current.before is self:
                current.original, current.before = self.original, self.before
            current = current.before


def unpatched(owner: Any, name: str) -> Callable[..., Any]:
    """Return an object's method as it is beneath all patches.

    Example:
        >>> class Greeter:
        ...     def greet(self) -> str:
        ...         return "hello"
        >>> greeter, patches = Greeter(), Patches()
        >>> patches.patch(greeter, "greet", lambda greet: lambda: greet() + ", world")
        >>> unpatched(greeter, "greet")()
        'hello'
    """
    method: Any = getattr(owner, name)
    while isinstance(method, PatchedMethod):
        method = method.original
    return method  # type: ignore[no-any-return]


def settle(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Set one instance's method for good, beneath all patches of it.

    Args:
        owner: whose method it is.
        name: the method's name.
        make: makes the new method from the one that stood in the instance, None if none did.
    """
    patched = vars(owner).get(name)
    if not isinstance(patched, PatchedMethod):
        object.__setattr__(owner, name, make(patched))
        return
    while isinstance(patched.before, PatchedMethod):
        patched = patched.before
    before = None if patched.before is _ABSENT else patched.before
    patched.original = patched.before = make(before)


class Patches:
    """The methods that one technique has replaced; :meth:`undo` puts every one back.

    Example:
        >>> class Greeter:
        ...     def greet(self) -> str:
        ...         return "hello"
        >>> greeter, patches = Greeter(), Patches()
        >>> patches.patch(greeter, "greet", lambda greet: lambda: greet() + ", world")
        >>> greeter.greet()
        'hello, world'
        >>> patches.undo()
        >>> greeter.greet(), vars(greeter)
        ('hello', {})
    """

    def __init__(self) -> None:
        self._patched: list[PatchedMethod] = []

    def patch(
        self,
        owner: Any,
        name: str,
        wrap: Callable[[Callable[..., Any]], Callable[..., Any]],
        level: int = OUTERMOST,
    ) -> None:
        """Replace ``owner.name`` on this instance by ``wrap(original)``.

        Args:
            owner: whose method it is.
            name: the method's name.
            wrap: makes the replacement from a function that calls what is beneath.
            level: patches of a higher level go around it, also those that were made before.

        Raises:
            TechniqueError: if this object has patched that method already.
        """
        if any(patched.owner is owner and patched.name == name for patched in self._patched):
            raise TechniqueError(f"{type(owner).__name__}.{name} is patched already")
        patched = PatchedMethod(owner, name, wrap, level)
        patched.put()
        self._patched.append(patched)

    def follow(self, owner: Any, name: str) -> None:
        """Patch the method again if ``owner.name`` was set to another one since.

        That one stays when patches are undone.
        """
        for index, patched in enumerate(self._patched):
            if patched.owner is owner and patched.name == name and not patched.is_in_place():
                self._patched[index] = patched.again()

    def are_in_place(self) -> bool:
        """Return whether no method was set to another one since it was patched."""
        return all(patched.is_in_place() for patched in self._patched)

    def undo_of(self, owner: Any) -> None:
        """Put back the methods of one object."""
        for patched in [patched for patched in self._patched if patched.owner is owner]:
            self._patched.remove(patched)
            patched.undo()

    def undo(self) -> None:
        """Put every method back; techniques may be undone in any order, and twice."""
        while self._patched:
            self._patched.pop().undo()
