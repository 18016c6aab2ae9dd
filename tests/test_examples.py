"""Every public name has an example, and it runs."""

import doctest
import inspect
import warnings

import pytest

import nvisa

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def example(name):
    public = getattr(nvisa, name)
    return doctest.DocTestParser().get_doctest(inspect.getdoc(public), {name: public}, name, None, 0)


@pytest.mark.parametrize("name", nvisa.__all__)
def test_a_public_name_has_an_example(name):
    assert example(name).examples


@pytest.mark.global_rng  # examples leave out random_state where it does not matter
@pytest.mark.parametrize("name", nvisa.__all__)
def test_the_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        doctest.DocTestRunner(optionflags=FLAGS).run(example(name), out=printed.append)
    assert "".join(printed) == ""
