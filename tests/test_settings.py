"""Settings: the constructor made from annotations, what each constraint allows, the error that names the setting."""

import inspect
import pickle
import re
from dataclasses import FrozenInstanceError, dataclass
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone

from nvisa.settings import (
    AnyOf,
    AtLeast,
    Each,
    Fitted,
    InRange,
    InstanceOf,
    NotNegative,
    OneOf,
    Positive,
    SettingError,
    Settings,
    check_settings,
    refuse_renamed,
    refuses,
)


@refuses(pull="bound_gradient")
@dataclass(frozen=True)
class Part:
    weight: Annotated[float, NotNegative] = 1.0
    note: str = ""
    bound_gradient: Annotated[float, NotNegative] = 0.0


class Base(Settings, BaseEstimator):
    LIMIT: ClassVar[int] = 7
    PLAIN = 3  # no annotation: no setting
    fitted_: float  # no default: none either

    n_clusters: Annotated[int, AtLeast(2)] = 10
    network: Annotated[Part | None, InstanceOf(Part, None)] = None
    training: Any = None
    random_state: Any = None
    verbose: int = 0


class Method(Base):
    RENAMED: ClassVar = {"n_init": "n_restarts"}

    kind: Annotated[str, OneOf("a", "b")] = "a"
    consistency: Any = None
    n_restarts: Annotated[int, AtLeast(1)] = 1


class Special(Method):
    extra: Annotated[float, Positive] = 0.5
    kind: Annotated[str, OneOf("a", "b", "c")] = "c"  # another default, and one more choice
    network: Annotated[Part, InstanceOf(Part)] = Part()


# ---- the constructor -------------------------------------------------------------------------------------------------


def test_the_constructor_is_made_of_the_annotations_in_their_order_and_what_all_have_comes_last():
    assert list(Method.SETTINGS) == [
        "n_clusters", "kind", "consistency", "n_restarts", "network", "training", "random_state", "verbose",
    ]  # fmt: skip
    assert str(inspect.signature(Method)) == (
        "(n_clusters: int = 10, *, kind: str = 'a', consistency: Any = None, n_restarts: int = 1, "
        f"network: {Part.__module__}.Part | None = None, training: Any = None, random_state: Any = None, "
        "verbose: int = 0) -> None"
    )
    assert Method.__init__.__qualname__ == "Method.__init__"


def test_settings_without_a_value_have_their_defaults_and_those_given_are_stored_as_they_are():
    part = Part(2.0)
    settings = Method(4, kind="nonsense", network=part)  # nothing is checked here, as scikit-learn asks
    assert vars(settings) == {
        "n_clusters": 4, "kind": "nonsense", "consistency": None, "n_restarts": 1,
        "network": part, "training": None, "random_state": None, "verbose": 0,
    }  # fmt: skip
    assert settings.network is part
    assert Method(n_clusters=5).n_clusters == 5
    assert Method().n_clusters == 10


@pytest.mark.parametrize(
    ("given", "keywords", "message"),
    [
        ((3, "a"), {}, "too many positional arguments"),
        ((3,), {"n_clusters": 4}, "multiple values for argument 'n_clusters'"),
        ((3,), {"clusters": 4}, "unexpected keyword argument 'clusters'"),
        (
            (3,),
            {"n_cluster": 4},
            r"argument 'n_cluster'. Did you mean n_clusters\?",
        ),
        ((3,), {"fitted_": 1.0}, "unexpected keyword argument 'fitted_'"),
        ((3,), {"LIMIT": 4}, "unexpected keyword argument 'LIMIT'"),
        ((3,), {"PLAIN": 4}, "unexpected keyword argument 'PLAIN'"),
        ((3,), {"n_init": 4}, re.escape("Method: n_init is now n_restarts.")),
    ],
    ids=str,
)
def test_what_is_no_setting_is_a_type_error(given, keywords, message):
    with pytest.raises(TypeError, match=message):
        Method(*given, **keywords)


def test_a_constructor_of_its_own_is_refused_for_it_would_never_run():
    with pytest.raises(TypeError, match="declare settings as annotated attributes"):
        type("Own", (Method,), {"__init__": lambda self: None})


def test_a_subclass_says_what_its_bases_say_of_the_settings_that_it_does_not_describe():
    from nvisa import IMSAT, VaDE

    assert VaDE.__doc__.count("Seed of everything random") == IMSAT.__doc__.count("Number of clusters, K.") == 1
    described = [line for line in VaDE.__doc__.partition("Attributes")[0].splitlines() if line and line[0] not in " -"]
    assert ", ".join(described[2:]).split(", ") == list(VaDE.SETTINGS)


def test_a_subclass_inherits_settings_and_names_that_changed_and_may_give_a_default_of_its_own():
    assert list(Special.SETTINGS)[:5] == ["n_clusters", "kind", "consistency", "n_restarts", "extra"]
    assert (Special().kind, Special().network, Special().extra) == ("c", Part(), 0.5)
    assert (Method().kind, Method().network) == ("a", None)
    check_settings(Special(kind="c"))
    with pytest.raises(SettingError, match="kind must be one of 'a', 'b', got 'c'"):
        check_settings(Method(kind="c"))
    with pytest.raises(TypeError, match=re.escape("Special: n_init is now n_restarts.")):
        Special(n_init=2)


def test_what_is_set_on_one_object_is_not_set_on_the_class_or_on_another():
    one, other = Method(3), Method(3)
    one.kind = "b"
    assert (other.kind, Method.kind, Method().kind) == ("a", "a", "a")


def test_it_has_the_surface_of_scikit_learn():
    settings = Method(4, kind="b", network=Part(2.0))
    assert settings.get_params() == {name: getattr(settings, name) for name in sorted(Method.SETTINGS)}
    copied = clone(settings)
    assert copied is not settings
    assert copied.get_params() == settings.get_params()
    assert settings.set_params(kind="a", n_clusters=9) is settings
    assert (settings.kind, settings.n_clusters) == ("a", 9)
    with pytest.raises(ValueError, match="Invalid parameter 'clusters'"):
        settings.set_params(clusters=3)
    assert pickle.loads(pickle.dumps(settings)).get_params() == settings.get_params()
    assert repr(Method(4, kind="b")) == "Method(kind='b', n_clusters=4)"


def test_a_keyword_of_a_dataclass_that_has_a_new_name_is_refused_with_it():
    with pytest.raises(TypeError, match=re.escape("Part: pull is now bound_gradient.")):
        Part(pull=1.0)
    assert Part(2.0, bound_gradient=0.5).bound_gradient == 0.5
    assert Part(2.0) == Part(weight=2.0) != Part()
    with pytest.raises(FrozenInstanceError):
        Part().weight = 2.0
    refuse_renamed(Part, {"pull": "bound_gradient"}, {"weight": 1.0})  # nothing to refuse


# ---- constraints -----------------------------------------------------------------------------------------------------


class Clusterer:
    def predict_proba(self, X):
        return X


NAN, INF = float("nan"), float("inf")
CONSTRAINTS = {
    "one of": (OneOf("a", "b", None), ["a", np.str_("b"), None], ["c", "", 0, ["a"], NAN], "one of 'a', 'b', None"),
    "one of numbers": (
        OneOf(1, 0.5, True),
        [1, 0.5, np.float64(0.5), True],
        [1.0, False, 0, "1"],
        "one of 1, 0.5, True",
    ),
    "at least": (
        AtLeast(2),
        [2, 3, np.int64(2), np.uint8(9), 10**30],
        [1, -2, 2.0, 2.5, np.float64(3), True, False, None, "3", NAN, [3]],
        "a whole number of at least 2",
    ),
    "at least one": (AtLeast(1), [1, np.int32(1)], [0, True, np.bool_(True)], "a whole number of at least 1"),
    "at least, or none": (
        AtLeast(1, optional=True),
        [1, None],
        [0, "None", False],
        "a whole number of at least 1 or None",
    ),
    "not negative": (
        NotNegative,
        [0, 0.0, -0.0, 3, 1e300, INF, np.float32(0.5), np.int64(2)],
        [-1e-300, -1, -INF, NAN, np.float64(NAN), None, "0", True, [1.0], 1j],
        "a number of at least 0",
    ),
    "positive": (Positive, [1e-300, 1, INF, np.float32(1)], [0, 0.0, -0.0, NAN, None, True], "a number greater than 0"),
    "closed": (InRange(0.0, 1.0), [0, 1, 0.5, np.float64(1)], [-0.1, 1.1, NAN, True], "a number in [0, 1]"),
    "open below": (InRange(0.0, 1.0, open_low=True), [1, 1e-9], [0, 1.1, NAN], "a number in (0, 1]"),
    "open above": (InRange(0.0, 1.0, open_high=True), [0, 0.999], [1, -0.1, NAN], "a number in [0, 1)"),
    "open": (InRange(-1.0, 0.5, open_low=True, open_high=True), [0, 0.4], [-1, 0.5], "a number in (-1, 0.5)"),
    "instance": (InstanceOf(Part), [Part()], [Part, None, 1.0, "Part"], "a Part"),
    "instance, or none": (InstanceOf(Part, None), [Part(), None], [0, False], "a Part or None"),
    "bool": (InstanceOf(bool), [True, False], [0, 1, None, "yes"], "a bool"),
    "fitted": (Fitted(), [Clusterer()], [Clusterer, "gmm", None, 3, Part()], "a fitted clusterer with predict_proba"),
    "fitted to predict": (
        Fitted("predict"),
        [SimpleNamespace(predict=1)],
        [Clusterer()],
        "a fitted clusterer with predict",
    ),
    "each": (
        Each(AtLeast(1)),
        [(1,), [3, 4], (np.int64(2),)],
        [(), [], (1, 0), (1, "a"), (1, True), 1, None, "12", np.array([1, 2]), {1}],
        "a tuple, each of it a whole number of at least 1",
    ),
    "any": (
        AnyOf(InstanceOf(Part), NotNegative, OneOf("auto")),
        [Part(), 0.5, "auto"],
        ["none", -1, None, NAN],
        "a Part or a number of at least 0 or one of 'auto'",
    ),
    "any, of each": (
        AnyOf(OneOf("a"), Each(OneOf("a", "b"))),
        ["a", ("a", "b")],
        ["b", (), ("c",)],
        "one of 'a' or a tuple, each of it one of 'a', 'b'",
    ),
}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_a_constraint_allows_what_it_says_and_nothing_else(name):
    constraint, allowed, refused, expected = CONSTRAINTS[name]
    assert constraint.expected == expected
    assert [value for value in allowed if not constraint.allows(value)] == []
    assert [value for value in refused if constraint.allows(value)] == []


def test_constraints_are_equal_to_their_copies_and_frozen():
    for constraint, *_ in CONSTRAINTS.values():
        assert pickle.loads(pickle.dumps(constraint)) == constraint
    assert OneOf("a") != OneOf("b")
    with pytest.raises(FrozenInstanceError):
        AtLeast(1).least = 0
    with pytest.raises(FrozenInstanceError):
        OneOf("a").choices = ()


# ---- checking --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Whole:
    part: Annotated[Part, InstanceOf(Part)] = Part()
    parts: Any = ()
    sizes: Annotated[tuple[int, ...], Each(AtLeast(1))] = (1,)
    free: Any = None
    two: Annotated[int, AtLeast(1), OneOf(2, 3)] = 2
    three: Annotated[int, AtLeast(1), OneOf(3)] = 3


class Owner(Settings):
    whole: Annotated[Whole | None, InstanceOf(Whole, None)] = None
    consistency: Any = None


COUNT, NUMBER = "a whole number of at least 1", "a number of at least 0"
WRONG = {
    "weight": (Part(weight=-1.0), f"{NUMBER}, got -1.0."),
    "part": (Whole(part=None), "a Part, got None."),
    "part.weight": (Whole(part=Part(-2.0)), f"{NUMBER}, got -2.0."),
    "sizes": (Whole(sizes=(1, 0)), f"a tuple, each of it {COUNT}, got (1, 0)."),
    "parts[1].weight": (Whole(parts=(Part(), Part(-3.0))), f"{NUMBER}, got -3.0."),
    "parts[0].weight": (Whole(parts=[Part(NAN)]), f"{NUMBER}, got nan."),
    "two": (Whole(two=0), f"{COUNT}, got 0."),  # of two constraints the first
    "three": (Whole(three=2), "one of 3, got 2."),  # and the second
    "whole": (Owner(whole=3), "a Whole or None, got 3."),
    "whole.two": (Owner(whole=Whole(two=7)), "one of 2, 3, got 7."),
    "whole.part.weight": (Owner(whole=Whole(part=Part(-1))), f"{NUMBER}, got -1."),
    "consistency.weight": (Owner(consistency=Part(-1)), f"{NUMBER}, got -1."),
    "consistency[1].weight": (Owner(consistency=("vat", Part(-1))), f"{NUMBER}, got -1."),
}


@pytest.mark.parametrize("name", WRONG)
def test_the_error_names_the_setting_with_those_that_hold_it(name):
    owner, message = WRONG[name]
    for prefix in ("", "outer."):
        with pytest.raises(SettingError) as caught:
            check_settings(owner, prefix)
        assert caught.value.setting == f"{prefix}{name}"
        assert str(caught.value) == f"{prefix}{name} must be {message}"


class Together(Method):
    TOGETHER: ClassVar = (
        ("n_restarts", "at most n_clusters", lambda s: s.n_restarts <= s.n_clusters),
        ("kind", "'a' with one restart", lambda s: s.n_restarts > 1 or s.kind == "a"),
    )


def test_what_settings_must_be_beside_one_another_is_looked_at_when_each_is_as_it_must_be():
    check_settings(Together(3, n_restarts=3, kind="b"))
    for settings, message in (
        ({"n_restarts": 4}, "n_restarts must be at most n_clusters, got 4."),
        ({"kind": "b"}, "kind must be 'a' with one restart, got 'b'."),
        ({"n_restarts": "4"}, "n_restarts must be a whole number of at least 1, got '4'."),
    ):
        with pytest.raises(SettingError, match=f"^{re.escape(message)}$"):
            check_settings(Together(3, **settings))


def test_what_has_no_constraint_may_be_anything_also_a_class_of_settings():
    check_settings(Owner(whole=Whole(free=object(), parts=(Part, None, 3)), consistency=Whole))
    check_settings(Method(3, training=object(), verbose="loud", random_state=-5))
    check_settings(object())  # no settings at all


# ---- the error -------------------------------------------------------------------------------------------------------


def test_the_error_says_what_was_expected_what_was_got_and_what_to_try():
    error = SettingError("training.epochs", "a whole number", 0.5, "Try 1.")
    assert str(error) == "training.epochs must be a whole number, got 0.5. Try 1."
    assert str(SettingError("a", "b", "c")) == "a must be b, got 'c'."
    assert isinstance(error, ValueError)
    assert isinstance(error, TypeError)


def test_the_error_keeps_its_fields_on_the_way_from_another_process():
    error = SettingError("training.epochs", "a whole number", (0.5, "x"), "Try 1.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is SettingError
    assert (again.setting, again.expected, again.got, again.hint) == (
        "training.epochs", "a whole number", (0.5, "x"), "Try 1.",
    )  # fmt: skip
    assert str(again) == str(error)
