"""plotly.js for a page: its bundle without the kinds of chart that no page draws.

The bundle holds some fifty kinds of trace, maps of the world among them, and a browser reads all of it before it can
draw the first point. It was made by esbuild: modules one behind the other, each ``var NAME=common((exports,module)=>{``
and run where ``NAME()`` is called, and a last one that registers the kinds. A module that nothing reachable from the
last one calls is left out; what the page's scripts then read is a third of it.
"""

import re
from functools import lru_cache

__all__ = ["TRACES", "plotly_js", "trimmed"]

TRACES = ("scattergl", "heatmap")  # besides "scatter", which is part of the core
COMMON = re.compile(r"([\w$]+)=\(\w,\w\)=>\(\)=>[^;]{0,40}\(\w=\{exports:\{\}\}\)")  # esbuild's wrapper of CommonJS
LAZY = re.compile(r"([\w$]+)=\(\w,\w(?:,\w)?\)=>\(\)=>.{0,60}?=\w\(\w=0\)")  # and of ES modules
REGISTER = re.compile(r"\.register\(\[((?:[\w$]+\(\),?){9,})\]\)")  # not the short one of the core
KIND = re.compile(r'moduleType:"\w+",name:"(\w+)"')
CALL = re.compile(r"([\w$]+)\(\)")


@lru_cache(maxsize=1)
def plotly_js() -> str:
    """plotly.js of the ``plotly`` package.

    Raises
    ------
    ImportError
        If the extra "report" is not installed.
    """
    from plotly.offline import get_plotlyjs  # noqa: PLC0415  of the extra

    return trimmed(get_plotlyjs())


def trimmed(source: str, traces: tuple[str, ...] = TRACES) -> str:
    """The bundle with these kinds of trace only; as it is if it is not built as described above."""
    common, lazy = COMMON.search(source), LAZY.search(source)
    register, end = REGISTER.search(source), source.rfind("});return ")
    if common is None or lazy is None or register is None or end < register.end():
        return source
    parts = _parts(source[: end + 3], common[1])
    entries = CALL.findall(register[1])
    wanted = [entry for entry in entries if _kind(parts, entry) in traces]
    if len(wanted) != len(traces):
        return source
    short = register[0].replace(register[1], ",".join(f"{entry}()" for entry in wanted))
    parts = {name: text.replace(register[0], short) for name, text in parts.items()}
    needed = _reachable(parts, list(parts)[-1], lazy[1])
    start = source.index(next(iter(parts.values())))
    return source[:start] + "".join(text for name, text in parts.items() if name in needed) + source[end + 3 :]


def _parts(source: str, common: str) -> dict[str, str]:
    """The text from the start of each module to that of the next: the module, and what ES modules follow it."""
    head = re.compile(rf"var ([\w$]+)={re.escape(common)}\((?:\([\w$,]*\)|[\w$]+)=>\{{")
    found = list(head.finditer(source))
    ends = [*(match.start() for match in found[1:]), len(source)]
    return {match[1]: source[match.start() : end] for match, end in zip(found, ends, strict=True)}


def _kind(parts: dict[str, str], entry: str) -> str | None:
    """The kind of trace that a registered module is: it says so, or the first that it calls does."""
    for _ in range(4):
        if kind := KIND.search(parts.get(entry, "")):
            return kind[1]
        call = CALL.search(parts.get(entry, ""))
        entry = call[1] if call else ""
    return None


def _reachable(parts: dict[str, str], last: str, lazy: str) -> set[str]:
    """The parts that run when ``last`` does."""
    home = {name: name for name in parts}  # the part in which a callable name is defined
    inner = re.compile(rf"[\s,;]([\w$]+)={re.escape(lazy)}\(")
    for name, text in parts.items():
        home |= dict.fromkeys(inner.findall(text), name)
    needed, coming = set(), [last]
    while coming:
        if (name := coming.pop()) not in needed:
            needed.add(name)
            coming += {home[call] for call in CALL.findall(parts[name]) if call in home}
    return needed
