"""Check that a tag may become a release, and print its notes: python .github/scripts/check_release.py v0.1.0."""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def section(changelog: str, version: str) -> str:
    """What CHANGELOG.md says of a version; "" where it says nothing."""
    found = re.search(rf"^## \[{re.escape(version)}\].*\n((?:(?!## ).*\n?)*)", changelog, re.MULTILINE)
    return found[1].strip() if found else ""


def problems(tag: str, pyproject: str, citation: str, changelog: str) -> list[str]:
    """What keeps the tag from being a release."""
    version = tomllib.loads(pyproject)["project"]["version"]
    found = []
    if tag != f"v{version}":
        found.append(f"the tag is {tag}, the version in pyproject.toml {version}: expected v{version}")
    if f"\nversion: {version}\n" not in citation:
        found.append(f"CITATION.cff names another version than {version}")
    if not section(changelog, version):
        found.append(f"CHANGELOG.md has no section [{version}], or an empty one")
    return found


if __name__ == "__main__":
    texts = [(ROOT / name).read_text() for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md")]
    if found := problems(sys.argv[1], *texts):
        sys.exit("\n".join(found))
    print(section(texts[-1], sys.argv[1].removeprefix("v")))
