"""Every method fitted once in a session; the tests that need a density or samples get those that have them."""

import pytest

from nvisa.methods import METHODS
from nvisa.methods.generative import GenerativeClusterer, SamplingClusterer
from small_methods import make, separated_blobs


def those(kind):
    """Names of the methods of a kind."""
    return [name for name, method in METHODS.items() if issubclass(method, kind)]


@pytest.fixture(scope="session")
def blobs():
    return separated_blobs()


@pytest.fixture(scope="session")
def fitted_by(blobs):
    """The fitted clusterer of a method, by name; made when first asked for."""
    made = {}

    def fitted_by(name):
        if name not in made:
            made[name] = make(name, 100).fit(blobs[0])
        return made[name]

    return fitted_by


@pytest.fixture(params=list(METHODS))
def fitted(request, fitted_by):
    return fitted_by(request.param)


@pytest.fixture(params=those(SamplingClusterer))
def sampling(request, fitted_by):
    return fitted_by(request.param)


@pytest.fixture(params=those(GenerativeClusterer))
def generative(request, fitted_by):
    return fitted_by(request.param)
