"""Whether a record would come out the same today: what is compared, and what is not."""

from benchmark.made_records import record
from nvisa.benchmark.current import as_text, is_current, params_of
from nvisa.benchmark.recipes import RECIPES, Recipe
from nvisa.benchmark.records import write_record


def test_a_record_of_other_settings_is_made_again(tmp_path, monkeypatch):
    path = tmp_path / "record.json"

    def current(recipe="paper/gmm", changes=(), without=(), **more):
        start = RECIPES[RECIPES[recipe].start].build(10, 0) if RECIPES[recipe].start else None
        params = params_of(RECIPES[recipe].build(10, 0, start))
        params = {name: as_text(value) for name, value in params.items()}
        params = {name: value for name, value in params.items() if name not in without} | dict(changes)
        more = more or ({"start": {"recipe": RECIPES[recipe].start}} if start else {})
        write_record(path, record(recipe=recipe, params=params, **more))
        return is_current(path, recipe, 0)

    assert all(current(recipe) for recipe in RECIPES)
    network = as_text(RECIPES["paper/gmm"].settings["network"])
    older = network.replace(", prior_components=1", "")
    assert older != network
    assert current(changes={"network": older}), "a field that is younger than the record has its default there"
    assert not current(changes={"network": network.replace(", prior_covariance='full'", "")}), "and not today's value"
    assert not current(changes={"network": network.replace("256", "255")})
    assert not current(changes={"network": network.replace("hidden", "renamed")})
    assert not current(changes={"network": "print('not a setting')"})
    assert current(without=["posterior"])
    assert not current(without=["n_samples"]), "the default is 3, and the recipe has 15"
    assert not current(changes={"init__masked": 0.1}), "what it starts from has other settings"
    assert not current("two_starts", changes={"init__n_restarts": 1}), "nor where another start stands before it"
    assert not current(start={"recipe": "ae_gmm/default"})
    assert current("gmm/default")
    assert not current("gmm/default", changes={"gaussianmixture__reg_covar": 1e-3})
    monkeypatch.setitem(RECIPES, "default", Recipe("nvisa", {"n_samples": 4}))
    write_record(path, record())
    assert not is_current(path, "default", 0)
