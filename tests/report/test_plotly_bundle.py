"""plotly.js without the kinds of chart that no page draws."""

import re

import pytest

from nvisa.report import plotly_bundle

pytest.importorskip("plotly")


def bundle():
    """A bundle as esbuild makes it: a core, a registered module for every kind of trace, and one that registers."""
    kinds = ("bar", "heatmap", *"abcdefg", "scattergl")
    text = "/* license */ var common=(e,t)=>()=>(t||e((t={exports:{}}).exports,t),t.exports),"
    text += "lazy=(e,t)=>()=>(e&&(t=e(e=0)),t);var core=common(e=>{e.draw=1});"
    text += 'var alone=common(e=>{});function help(){}var tail=lazy(()=>{"tail"});var shared=common(e=>{e.s=tail()});'
    for kind in kinds:
        uses = "shared();only_bar()" if kind == "bar" else "shared()"
        text += f'var of_{kind}=common((e,t)=>{{{uses};t.exports={{moduleType:"trace",name:"{kind}"}}}});'
        text += f"var lib_{kind}=common((e,t)=>{{t.exports=of_{kind}()}});"
    text += 'var only_bar=common(e=>{e.bar="only for bars"});'
    last = ",".join(f"lib_{kind}()" for kind in kinds)
    text += f"var all=common((e,t)=>{{var c=core();c.register([{last}]);t.exports=c}});"
    return f"{text}return all();}})();/* notes */"


def test_a_bundle_keeps_what_the_wanted_kinds_call_and_nothing_else():
    whole = bundle()
    short = plotly_bundle.trimmed(whole)
    for kept in (
        "/* license */",
        "var core=",
        "var shared=",
        "var tail=",
        "var of_heatmap=",
        "var of_scattergl=",
        "/* notes */",
    ):
        assert kept in short
    for left in ("var of_bar=", "var lib_a=", "only for bars", "lib_bar()"):
        assert left not in short
    assert "register([lib_heatmap(),lib_scattergl()])" in short
    assert plotly_bundle.trimmed(short) == short  # there is no long list any more


@pytest.mark.parametrize(
    "other",
    [
        bundle().replace("scattergl", "dots"),
        bundle().replace("{exports:{}}", "{}"),
        bundle().replace("register([", "add(["),
        "window.Plotly = {};",
        "",
    ],
    ids=["another kind", "another wrapper", "another list", "no bundle", "empty"],
)
def test_a_bundle_of_another_making_stays_as_it_is(other):
    assert plotly_bundle.trimmed(other) == other


def test_the_installed_library_is_a_third_and_calls_nothing_that_was_left_out():
    from plotly.offline import get_plotlyjs

    whole, short = get_plotlyjs(), plotly_bundle.plotly_js()
    assert len(short) < 0.4 * len(whole)
    assert "Licensed under the MIT license" in short
    common = plotly_bundle.COMMON.search(whole)[1]
    modules = set(re.findall(rf"var ([\w$]+)={re.escape(common)}\(", whole))
    left_out = modules - set(re.findall(rf"var ([\w$]+)={re.escape(common)}\(", short))
    assert len(left_out) > 300
    assert left_out.isdisjoint(plotly_bundle.CALL.findall(short))
