"""How far a call wanders: the files and functions of nvisa that it enters, in the order in which each is first entered.

    python benchmarks/flow.py            three lines: the default fit, the slides' own fit, predict
    python benchmarks/flow.py --list     with every function
    python benchmarks/flow.py --quick    without the default, a minute under a profiler

A reader who follows a call opens a file at every switch. Comprehensions and lambdas belong to the line that they stand
in and are not counted.
"""

import sys
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from sklearn.datasets import load_digits

import nvisa
from nvisa import NVISA, Training

ROOT = Path(nvisa.__file__).parent


def traced(call: Callable[[], Any]) -> tuple[Any, list[tuple[str, str]]]:
    """What the call returns, and (file, function) of everything of nvisa's that it enters, first calls only."""
    entered: dict[tuple[str, str], None] = {}

    def profile(frame: Any, event: str, arg: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(ROOT)) and not code.co_name.startswith("<"):
            entered[str(Path(code.co_filename).relative_to(ROOT)), code.co_qualname] = None

    sys.setprofile(profile)
    try:
        return call(), list(entered)
    finally:
        sys.setprofile(None)


def main() -> None:
    """Print the lines."""
    warnings.simplefilter("ignore")
    X, short = load_digits().data, Training(epochs=2)
    default = NVISA(10, training=short, random_state=0)
    slides = NVISA(10, init="random", consistency=None, training=short, random_state=0)
    calls = {
        "NVISA().fit(X)": lambda: default.fit(X),
        "NVISA(init='random', consistency=None).fit(X)": lambda: slides.fit(X),
        "predict(X)": lambda: slides.predict(X),
    }
    if "--quick" in sys.argv:
        del calls["NVISA().fit(X)"]
    for name, call in calls.items():
        entered = traced(call)[1]
        files, switches = {file for file, _ in entered}, sum(a != b for (a, _), (b, _) in pairwise(entered))
        print(f"{name}: {len(files)} files, {len(entered)} functions, {switches} switches of file")
        for file, function in entered if "--list" in sys.argv else ():
            print(f"    {file:<28} {function}")


if __name__ == "__main__":
    main()
