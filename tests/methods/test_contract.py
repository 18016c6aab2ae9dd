"""scikit-learn's contract of every registered method, with real training."""

import pytest
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import estimator_checks_generator

from nvisa.methods import METHODS
from small_methods import make

# A few epochs on the few rows of a check may leave one cluster; that it is said is tested in test_base.py.
pytestmark = pytest.mark.filterwarnings("ignore:Only . of . clusters are in use")

QUICK = [make(name) for name in METHODS]

# scikit-learn sets n_clusters=1 in these, which the house refuses as bad input ("K < 2"). They run below at K = 2.
ONE_CLUSTER = {
    "check_dont_overwrite_parameters": "fits with n_clusters=1",
    "check_fit2d_predict1d": "fits with n_clusters=1",
    "check_methods_subset_invariance": "fits with n_clusters=1",
    "check_fit2d_1sample": "fits with n_clusters=1",
    "check_fit2d_1feature": "fits with n_clusters=1",
}

# It asks whoever has predict_proba for a classifier's tags. Sparse rows are tested in test_sparse_rows.py.
SPARSE = dict.fromkeys(
    ("check_estimator_sparse_array", "check_estimator_sparse_matrix"), "asks for a classifier's tags"
)


def checks():
    """scikit-learn's, less the one that it skips itself: of array types other than NumPy's."""
    for quick in QUICK:
        failing = ONE_CLUSTER | (SPARSE if quick.TAKES_SPARSE else {})
        for made in estimator_checks_generator(quick, expected_failed_checks=failing, mark="xfail"):
            values, marks = (made.values, made.marks) if hasattr(made, "marks") else (made, ())
            name = getattr(values[1], "func", values[1]).__name__
            if name != "check_array_api_input":
                yield pytest.param(*values, marks=marks, id=f"{type(quick).__name__}-{name}")


@pytest.mark.global_rng  # scikit-learn's own checks draw from it; ours is tested in test_base.py
@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_sklearn_contract(estimator, check):
    check(estimator)


def at_least_two(kind):
    """The clusterer that reads the checks' n_clusters=1 as 2."""

    def set_attribute(self, name, value):
        kind.__setattr__(self, name, 2 if (name, value) == ("n_clusters", 1) else value)

    return type("AtLeastTwo", (kind,), {"__setattr__": set_attribute})


@pytest.mark.filterwarnings("ignore:.*columns are constant")
@pytest.mark.parametrize("check", ONE_CLUSTER)
@pytest.mark.parametrize("quick", QUICK, ids=list(METHODS))
def test_sklearn_checks_that_ask_for_one_cluster_hold_at_two(quick, check):
    kind = type(quick)
    getattr(estimator_checks, check)(kind.__name__, at_least_two(kind)(**quick.get_params()))
