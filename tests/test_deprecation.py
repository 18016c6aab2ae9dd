"""An old name works, once with a warning that points at the line to change, and never beside its new one."""

import importlib.util
import inspect
import warnings
from pathlib import Path

import pytest
from sklearn.base import BaseEstimator, clone

SOURCE = Path(__file__).parents[1] / "src" / "nvisa" / "deprecation.py"


def as_users_have_it():
    """The module without the checks of annotations that the tests put around every function: they are frames too."""
    spec = importlib.util.spec_from_file_location("deprecation_as_users_have_it", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


deprecation = as_users_have_it()
since_to = {"since": "0.2", "removed": "0.4"}


@deprecation.renamed_setting("n_init", "n_restarts", **since_to)
class Clusterer(BaseEstimator):
    def __init__(self, n_clusters=2, *, n_restarts=1):
        self.n_clusters, self.n_restarts = n_clusters, n_restarts

    @deprecation.deprecated("write_report(clusterer)", **since_to)
    def report(self, rows, *, title="none"):
        return self, rows, title


@deprecation.renamed_setting("seed", "random_state", **since_to)
def draw(n, *, random_state=0):
    return n, random_state


@deprecation.deprecated("Clusterer", **since_to)
class OldClusterer(Clusterer):
    pass


def warned(call):
    """What the call returns, and its one warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        value = call()
    (warning,) = caught
    return value, warning


OLD_NAMES = [  # a call by the old name, what the value says of itself, the words that the warning has
    (lambda: draw(3, seed=7), lambda value: value == (3, 7), ["seed", "random_state="]),
    (lambda: Clusterer(5, n_init=4), lambda c: c.get_params() == {"n_clusters": 5, "n_restarts": 4}, ["n_restarts="]),
    (lambda: Clusterer.report("self", [1], title="t"), lambda value: value == ("self", [1], "t"), ["write_report"]),
    (lambda: OldClusterer(5, n_restarts=4), lambda c: (c.n_clusters, c.n_restarts) == (5, 4), ["OldClusterer"]),
]


@pytest.mark.parametrize(("call", "holds", "words"), OLD_NAMES, ids=["function", "class", "method", "whole class"])
def test_an_old_name_passes_its_values_on_and_warns_once_where_it_is_written(call, holds, words):
    value, warning = warned(call)
    assert holds(value)
    assert warning.category is FutureWarning
    assert (warning.filename, warning.lineno) == (__file__, call.__code__.co_firstlineno)
    assert all(word in str(warning.message) for word in [*words, "0.2", "0.4"])


def test_every_call_warns_not_the_first_alone():
    assert [warned(lambda: draw(1, seed=2))[0] for _ in range(3)] == [(1, 2)] * 3


def test_new_names_are_silent_and_both_at_once_refused():
    assert draw(3, random_state=7) == (3, 7)
    assert Clusterer(5, n_restarts=4).n_restarts == 4
    with pytest.raises(TypeError, match="n_init is the old name of n_restarts; both are given"):
        Clusterer(n_init=1, n_restarts=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'n_starts'"):
        Clusterer(n_starts=1)


def test_the_signature_has_the_new_name_alone_and_scikit_learn_clones_it():
    assert list(inspect.signature(draw).parameters) == ["n", "random_state"]
    assert clone(Clusterer(n_restarts=3)).get_params() == {"n_clusters": 2, "n_restarts": 3}
    assert (draw.__name__, Clusterer.report.__qualname__) == ("draw", "Clusterer.report")


def test_a_name_that_is_gone_says_what_to_write_and_another_what_python_says():
    table = {"StdFloor": "nvisa.StdAnnealing"}
    assert str(deprecation.moved("StdFloor", table)) == "nvisa.StdFloor is gone: use nvisa.StdAnnealing."
    gone = deprecation.moved("Std", table, "nvisa.nets")
    assert (str(gone), gone.name) == ("module 'nvisa.nets' has no attribute 'Std'", "Std")
    assert str(gone) == str(pytest.raises(AttributeError, getattr, __import__("nvisa.nets").nets, "Std").value)
