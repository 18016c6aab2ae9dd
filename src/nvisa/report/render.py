"""Templates to text. Everything is escaped, and the page's policy lets only its own scripts run."""

from importlib.resources import files
from typing import Any

from nvisa.report.encoding import compressed, script_hash
from nvisa.report.plotly_bundle import plotly_js

__all__ = ["MISSING", "render"]

MISSING = 'The report page needs jinja2, pillow and plotly. Try pip install "nvisa[report]".'


def render(template: str, payload: dict[str, Any], *, package: str = "nvisa.report", **context: Any) -> str:
    """The page: the template with its context, the scripts, and the payload that they draw.

    Parameters
    ----------
    template
        Its file name.
    payload
        What the scripts draw, as JSON.
    package
        Whose folder ``templates`` has it; the frame around it is always this package's.
    context
        What the template's names stand for.

    Raises
    ------
    ImportError
        If the extra "report" is not installed.
    """
    try:
        from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  of the extra

        library = plotly_js()
    except ImportError as error:
        raise ImportError(f"{MISSING} ({error})") from error
    loaders = [PackageLoader(name, "templates") for name in (package, "nvisa.report")]
    environment = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    folder = files("nvisa.report") / "templates"
    script, style = ((folder / name).read_text("utf-8") for name in ("page.js", "page.css"))
    allowed = f"{script_hash(script)} {script_hash(library)}"
    return environment.get_template(template).render(
        **context, payload=payload, library=compressed(library.encode()), script=script, style=style, allowed=allowed
    )
