"""Print constraints.txt with the lower bounds of pyproject.toml in place of its pins: the oldest versions allowed."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def oldest(pyproject: str, constraints: str) -> dict[str, str]:
    """Name -> version: what nvisa and its extras ask for at its lower bound, everything else as it is pinned."""
    project = tomllib.loads(pyproject)["project"]
    asked = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    lower = [match.groups() for line in asked if (match := re.fullmatch(r"([\w.-]+)>=([\d.]+)", line))]
    pins = re.findall(r"^([\w.-]+)==(\S+)$", constraints, re.MULTILINE)
    return {name.lower(): version for name, version in [*pins, *lower]}


if __name__ == "__main__":
    found = oldest((ROOT / "pyproject.toml").read_text(), (ROOT / "constraints.txt").read_text())
    print(*(f"{name}=={version}" for name, version in found.items()), sep="\n")
