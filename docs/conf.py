"""Sphinx: the guides, the pages of the methods, and the API from the docstrings. `make docs` builds build/docs."""

from importlib.metadata import version as version_of

project = "nvisa"
author = "nvisa developers"
version = release = version_of("nvisa")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"nvisa {version}"
html_show_copyright = False

# Docstrings are numpydoc; their `name` is a name in the code.
napoleon_google_docstring = False
napoleon_use_rtype = False
default_role = "code"
SCORED = ["score", "score_samples", "sample", "reconstruct"]
REQUESTS = ["fit", "partial_fit", "predict", "predict_proba", "transform", *SCORED]
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "member-order": "bysource",
    # scikit-learn's metadata routing, which these methods do not take part in
    "exclude-members": ", ".join(["set_output", "get_metadata_routing", *(f"set_{name}_request" for name in REQUESTS)]),
}
autodoc_typehints = "none"  # jaxtyping's shapes stay in the source, one click away
myst_heading_anchors = 3
