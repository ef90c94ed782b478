"""What a fit leaves on the model, made when somebody asks for it: a short fit takes less time than tables of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, final, overload

from statespace_em.errors import NotFittedError

T = TypeVar("T")


@final
class Deferred(Generic[T]):
    """A value that is still to be made.

    Parameters
    ----------
    make, arguments
        The function that makes it, and what it is called with: nothing that is large, for it is kept until then.
    """

    def __init__(self, make: Callable[..., T], *arguments: Any) -> None:
        self.make, self.arguments = make, arguments

    def value(self) -> T:
        """Make it."""
        return self.make(*self.arguments)


@final
class LazyAttribute(Generic[T]):
    """Attribute of a model that is set to its value, or to `Deferred`, and read as the value."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, model: None, kind: type) -> LazyAttribute[T]: ...

    @overload
    def __get__(self, model: object, kind: type) -> T: ...

    def __get__(self, model: object | None, kind: type) -> LazyAttribute[T] | T:
        """Make the value where that is still to be done."""
        if model is None:
            return self
        own = vars(model)
        if self.name not in own:
            raise NotFittedError(
                f"{type(model).__name__!r} object has no attribute {self.name!r} yet: call fit(y) first."
            )
        if isinstance(own[self.name], Deferred):
            own[self.name] = own[self.name].value()
        value: T = own[self.name]
        return value

    def __set__(self, model: object, value: T | Deferred[T]) -> None:
        """Keep the value, or how to make it."""
        vars(model)[self.name] = value

    def __delete__(self, model: object) -> None:
        """Forget it."""
        del vars(model)[self.name]


def settled(model: object) -> dict[str, Any]:
    """Attributes of a model, with all values made: how it is made would not travel."""
    return {name: getattr(model, name) if isinstance(value, Deferred) else value for name, value in vars(model).items()}
