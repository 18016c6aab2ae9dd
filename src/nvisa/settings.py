"""Settings: what a constructor stores, what each may be, and the error that names the one that is wrong.

A method declares its settings as annotated class attributes, one line each::

    class DEC(DeepClusterer):
        update_interval: Annotated[int, AtLeast(1)] = 140

:class:`Settings` makes the constructor of it, which stores what it is given and does nothing else, as scikit-learn
asks for; :func:`check_settings` looks at the values when a fit begins. Settings that belong together are frozen
dataclasses (``Network``, ``Training``, ...) whose fields are annotated in the same way.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import wraps
from numbers import Integral, Real
from typing import Annotated, Any, ClassVar, Protocol, dataclass_transform, get_args, get_origin, runtime_checkable

__all__ = [
    "AnyOf",
    "AtLeast",
    "Constraint",
    "Each",
    "Fitted",
    "InstanceOf",
    "InRange",
    "NotNegative",
    "OneOf",
    "Positive",
    "SettingError",
    "Settings",
    "check_settings",
    "refuse_renamed",
    "refuses",
]


class SettingError(ValueError, TypeError):
    """A setting that no fit can use.

    Parameters
    ----------
    setting
        Its name, with those of what holds it: "n_clusters", "training.epochs".
    expected
        What it must be, in words that follow "must be".
    got
        What it is.
    hint
        What to try instead: a sentence.

    Examples
    --------
    >>> print(SettingError("n_clusters", "a whole number of at least 2", 1))
    n_clusters must be a whole number of at least 2, got 1.
    """

    def __init__(self, setting: str, expected: str, got: object, hint: str = "") -> None:
        super().__init__(setting, expected, got, hint)  # what pickle hands to another process
        self.setting, self.expected, self.got, self.hint = setting, expected, got, hint

    def __str__(self) -> str:
        return f"{self.setting} must be {self.expected}, got {self.got!r}.{self.hint and ' ' + self.hint}"


# ---- constraints -----------------------------------------------------------------------------------------------------


@runtime_checkable
class Constraint(Protocol):
    """What a value must be."""

    @property
    def expected(self) -> str:
        """In words that follow "must be"."""

    def allows(self, value: Any) -> bool:
        """Whether the value is so."""


@dataclass(frozen=True, init=False)
class OneOf:
    """One of these values."""

    choices: tuple[object, ...]

    def __init__(self, *choices: object) -> None:
        object.__setattr__(self, "choices", choices)

    @property
    def expected(self) -> str:
        """The choices."""
        return f"one of {', '.join(map(repr, self.choices))}"

    def allows(self, value: Any) -> bool:
        """Whether it is one of them."""
        return any(
            isinstance(value, bool) == isinstance(choice, bool) and isinstance(value, type(choice)) and value == choice
            for choice in self.choices
        )


@dataclass(frozen=True)
class AtLeast:
    """A whole number of at least ``least``; ``optional``: or None."""

    least: int
    optional: bool = False

    @property
    def expected(self) -> str:
        """The number."""
        return f"a whole number of at least {self.least}{' or None' if self.optional else ''}"

    def allows(self, value: Any) -> bool:
        """Whether it is such a number."""
        return (value is None and self.optional) or (_is(value, Integral) and bool(value >= self.least))


@dataclass(frozen=True)
class InRange:
    """A number of at least ``low`` (more, if ``open_low``) and at most ``high`` (less, if ``open_high``)."""

    low: int | float
    high: int | float = float("inf")
    open_low: bool = False
    open_high: bool = False

    @property
    def expected(self) -> str:
        """The range."""
        if self.high == float("inf"):
            return f"a number {'greater than' if self.open_low else 'of at least'} {self.low:g}"
        return f"a number in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"

    def allows(self, value: Any) -> bool:
        """Whether it is such a number; NaN is none."""
        if not _is(value, Real):
            return False
        above = value > self.low if self.open_low else value >= self.low
        return bool(above and (value < self.high if self.open_high else value <= self.high))


NotNegative = InRange(0)
Positive = InRange(0, open_low=True)


@dataclass(frozen=True, init=False)
class InstanceOf:
    """An object of one of these classes; None among them stands for None."""

    kinds: tuple[type | None, ...]

    def __init__(self, *kinds: type | None) -> None:
        object.__setattr__(self, "kinds", kinds)

    @property
    def expected(self) -> str:
        """The classes' names."""
        return " or ".join("None" if kind is None else _a(kind.__name__) for kind in self.kinds)

    def allows(self, value: Any) -> bool:
        """Whether it is one."""
        return any(value is None if kind is None else isinstance(value, kind) for kind in self.kinds)


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name}"


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


@dataclass(frozen=True)
class Fitted:
    """A fitted clusterer, or what else has this method."""

    method: str = "predict_proba"

    @property
    def expected(self) -> str:
        """The method."""
        return f"a fitted clusterer with {self.method}"

    def allows(self, value: Any) -> bool:
        """Whether it has the method."""
        return not isinstance(value, type) and hasattr(value, self.method)


@dataclass(frozen=True)
class Each:
    """A tuple or list of at least one value, each of which is so."""

    constraint: Any

    @property
    def expected(self) -> str:
        """Of each value."""
        return f"a tuple, each of it {self.constraint.expected}"

    def allows(self, value: Any) -> bool:
        """Whether all are."""
        return isinstance(value, (tuple, list)) and len(value) > 0 and all(map(self.constraint.allows, value))


@dataclass(frozen=True, init=False)
class AnyOf:
    """What one of these constraints allows."""

    constraints: tuple[Any, ...]

    def __init__(self, *constraints: Any) -> None:
        object.__setattr__(self, "constraints", constraints)

    @property
    def expected(self) -> str:
        """All of them."""
        return " or ".join(constraint.expected for constraint in self.constraints)

    def allows(self, value: Any) -> bool:
        """Whether one does."""
        return any(constraint.allows(value) for constraint in self.constraints)


# ---- checking --------------------------------------------------------------------------------------------------------


def check_settings(owner: Any, prefix: str = "") -> None:
    """Raise a SettingError unless every annotated setting of ``owner``, and of the settings in it, is what it must be.

    Parameters
    ----------
    owner
        A :class:`Settings` object, or a dataclass of settings.
    prefix
        Put before the names: "training." for the fields of the setting ``training``.
    """
    for name, constraints in _constrained(type(owner)):
        value = getattr(owner, name)
        for constraint in constraints:
            if not constraint.allows(value):
                raise SettingError(f"{prefix}{name}", constraint.expected, value)
        for i, part in enumerate(value) if isinstance(value, (tuple, list)) else [("", value)]:
            if is_dataclass(part) and not isinstance(part, type):
                check_settings(part, f"{prefix}{name}{f'[{i}]' if i != '' else ''}.")

    for name, expected, holds in getattr(owner, "TOGETHER", ()):
        if not holds(owner):
            raise SettingError(f"{prefix}{name}", expected, getattr(owner, name))


def _constrained(kind: type) -> Iterator[tuple[str, list[Constraint]]]:
    """(name, constraints) of every setting."""
    annotations = {f.name: f.type for f in fields(kind)} if is_dataclass(kind) else getattr(kind, "SETTINGS", {})
    for name, annotation in annotations.items():
        yield name, list(get_args(annotation)[1:]) if get_origin(annotation) is Annotated else []


def refuses(**renamed: str) -> Callable[[type], type]:
    """Class decorator: a keyword that has a new name is refused with that name in the message.

    Examples
    --------
    >>> @refuses(pull="bound_gradient")
    ... @dataclass
    ... class VAT:
    ...     bound_gradient: float = 0.0
    >>> VAT(pull=1.0)
    Traceback (most recent call last):
    TypeError: VAT: pull is now bound_gradient.
    """

    def decorate(cls: type) -> type:
        """The class, whose constructor looks at the keywords first."""
        init: Any = cls.__init__  # type: ignore[misc]

        @wraps(init)
        def refusing(self: Any, *args: Any, **given: Any) -> None:
            refuse_renamed(cls, renamed, given)
            init(self, *args, **given)

        cls.__init__ = refusing  # type: ignore[misc]
        return cls

    return decorate


def refuse_renamed(cls: type, renamed: Mapping[str, str], given: Mapping[str, Any]) -> None:
    """Raise a TypeError if a keyword has another name now."""
    for old in given.keys() & renamed.keys():
        raise TypeError(f"{cls.__name__}: {old} is now {renamed[old]}.")


# ---- the constructor -------------------------------------------------------------------------------------------------


@dataclass_transform(kw_only_default=True)
class Settings:
    """Base of classes whose constructor stores their annotated attributes, as a dataclass declares its fields.

    ``n_clusters`` may be given by position; everything else by name. Attributes without a default are no settings.
    """

    SETTINGS: ClassVar[dict[str, Any]] = {}  # name -> annotation, in the order of the constructor
    RENAMED: ClassVar[dict[str, str]] = {}  # old name -> today's, to be named when the old one is given
    TOGETHER: ClassVar[tuple[Any, ...]] = ()  # (setting, what it must be beside the others, self -> whether it is)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make the constructor from the annotations of the class and of those it inherits from."""
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            raise TypeError(
                f"{cls.__name__}: declare settings as annotated attributes; the constructor is made of them."
            )
        found = {name: a for base in reversed(cls.__mro__[1:]) for name, a in getattr(base, "SETTINGS", {}).items()}
        found |= {name: a for name, a in inspect.get_annotations(cls).items() if name in vars(cls) and not _is_class(a)}
        cls.SETTINGS = {name: found[name] for name in sorted(found, key=LAST.__contains__)}
        cls.__init__ = _constructor(cls)  # type: ignore[method-assign]
        cls.__doc__ = _with_inherited_parameters(cls)


LAST = ("network", "training", "random_state", "verbose")  # what every method has stands at the end


def _is_class(annotation: Any) -> bool:
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def _constructor(cls: Any) -> Callable[..., None]:
    """``__init__(self, n_clusters=..., *, ...)`` that stores its arguments."""
    defaults = {name: getattr(cls, name) for name in cls.SETTINGS}

    def __init__(self: Any, *args: Any, **given: Any) -> None:
        refuse_renamed(cls, cls.RENAMED, given)
        try:
            values = signature.bind(self, *args, **given).arguments
        except TypeError as error:
            unknown = [name for name in given if name not in defaults]
            near = get_close_matches(unknown[0], defaults, 1) if unknown else []
            raise TypeError(f"{cls.__name__}: {error}.{f' Did you mean {near[0]}?' if near else ''}") from None
        for name, default in defaults.items():
            setattr(self, name, values.get(name, default))

    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    for name, default in defaults.items():
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD if name == "n_clusters" else inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter(name, kind, default=default, annotation=_plain(cls.SETTINGS[name])))
    signature = inspect.Signature(parameters, return_annotation=None)
    __init__.__signature__ = signature  # type: ignore[attr-defined]
    __init__.__qualname__ = f"{cls.__qualname__}.__init__"
    return __init__


def _plain(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


# ---- its documentation -----------------------------------------------------------------------------------------------


def _with_inherited_parameters(cls: Any) -> str | None:
    """The class's docstring, with what its bases say of the settings that it does not describe itself."""
    if "Parameters\n-" not in (doc := inspect.cleandoc(cls.__doc__ or "")):
        return cls.__doc__
    before, own, after = _parameters(doc)
    for base in cls.__mro__[1:]:
        for names, text in _parameters(inspect.cleandoc(vars(base).get("__doc__") or ""))[1].items():
            if set(names) & cls.SETTINGS.keys() and not any(set(names) & set(known) for known in own):
                own[names] = text
    ordered = sorted(own, key=lambda names: min((*cls.SETTINGS, *names).index(name) for name in names))
    return before + "".join(own[names] for names in ordered) + after


def _parameters(doc: str) -> tuple[str, dict[tuple[str, ...], str], str]:
    """What stands before a docstring's parameters, the text of each or of several together, what stands after."""
    before, heading, rest = doc.partition("Parameters\n----------\n")
    body, blank, after = rest.partition("\n\n")  # a parameter's text has no empty line
    blocks = re.findall(r"^\S.*\n(?:[ ]+.*\n?)*", body + "\n", re.MULTILINE) if heading else []
    return before + heading, {tuple(block.splitlines()[0].split(", ")): block for block in blocks}, blank[1:] + after
