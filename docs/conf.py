"""How the documentation is built: ``make docs``."""

from sphinx.application import Sphinx

from hostspec import __version__

project = "hostspec"
author = "The hostspec authors"
copyright = "The hostspec authors"  # noqa: A001 - Sphinx's name for it
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.intersphinx"]
intersphinx_mapping: dict[str, tuple[str, None]] = {}  # a build needs no network

html_theme = "furo"
html_title = "hostspec"
html_copy_source = False
exclude_patterns = ["_build", "examples"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
add_module_names = False


def setup(app: Sphinx) -> None:
    """Leave the docstrings of attributes as they are."""
    app.connect("autodoc-process-docstring", _begin_with_an_empty_comment, priority=100)


def _begin_with_an_empty_comment(
    _app: Sphinx, what: str, _name: str, _documented: object, _options: object, lines: list[str]
) -> None:
    # Napoleon takes what stands before a colon in the first line of an attribute for its type.
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]
