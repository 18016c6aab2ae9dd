"""Names that change: an old one goes on working for a while, or says what to write in its place.

The warning is a FutureWarning, which Python shows by default. Only the new name stands in the signature, in
``get_params`` and in the documents::

    @renamed_setting("n_init", "n_restarts", since="0.2", removed="0.4")
    class NVISA(Generative): ...
"""

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["deprecated", "moved", "renamed_setting"]

Target = Callable[..., Any]  # a function, a method or a class


def deprecated(instead: str, *, since: str, removed: str) -> Callable[[Target], Target]:
    """Decorate a function, a method or a class that is to go: a call warns, and does what it did.

    Parameters
    ----------
    instead
        What to write in its place: "nvisa.write_report(clusterer, X)".
    since, removed
        The version that deprecates it, and the one that will not have it.
    """

    def decorate(old: Target) -> Target:
        message = f"{old.__qualname__} is deprecated since {since} and will be removed in {removed}: use {instead}."
        return _before_each_call(old, lambda given: warnings.warn(message, FutureWarning, stacklevel=3))

    return decorate


def renamed_setting(old: str, new: str, *, since: str, removed: str) -> Callable[[Target], Target]:
    """Decorate a function or a class whose argument ``old`` is now called ``new``: the old name warns, and works.

    Both at once are a TypeError. A subclass with a constructor of its own needs the decorator too.
    """
    message = f"{old} was renamed to {new} in {since} and will be removed in {removed}: write {new}=."

    def rename(given: dict[str, Any]) -> None:
        """Warn, and put the value where it belongs now."""
        if old not in given:
            return
        if new in given:
            raise TypeError(f"{old} is the old name of {new}; both are given, keep {new}.")
        warnings.warn(message, FutureWarning, stacklevel=3)
        given[new] = given.pop(old)

    return lambda owner: _before_each_call(owner, rename)


def moved(name: str, table: Mapping[str, str], module: str = "nvisa") -> AttributeError:
    """Make the error for a name that ``module`` does not have; ``table`` has what to write for those that are gone."""
    if name in table:
        return AttributeError(f"{module}.{name} is gone: use {table[name]}.", name=name)
    return AttributeError(f"module {module!r} has no attribute {name!r}", name=name)


def _before_each_call(target: Target, notice: Callable[[dict[str, Any]], None]) -> Target:
    """``target``, whose calls first show ``notice`` their keyword arguments, which it may change."""
    call = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]

    @functools.wraps(call)
    def wrapper(*args: Any, **given: Any) -> Any:
        notice(given)
        return call(*args, **given)

    if not isinstance(target, type):
        return wrapper
    target.__init__ = wrapper  # type: ignore[misc]
    return target
