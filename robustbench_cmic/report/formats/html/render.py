"""Templates -> one HTML file: everything from records is escaped, and only scripts known by their hash may run."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from importlib import resources
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from robustbench_cmic.report.formats import renderer
from robustbench_cmic.report.tables import Code, Strong

_TEMPLATES = resources.files(__package__ or "") / "templates"
_PROSE = ((r"\*\*(.+?)\*\*", r"<strong>\1</strong>"), (r"\*(.+?)\*", r"<em>\1</em>"), (r"`(.+?)`", r"<code>\1</code>"))


def render(template: str, scripts: list[str], **context: Any) -> str:
    """A page as text.

    Args:
        template: name of the page's template.
        scripts: names of the files in `templates` that run at its end, in order; `plotly` is the whole of plotly.js.
        context: what the template shows. All text in it is escaped.
    """
    head, *sources = (_source(name) for name in ("theme.js", *scripts))
    hashes = " ".join(f"'sha256-{_sha256(text)}'" for text in (head, *sources))
    page = {
        # These scripts and no others, nothing from anywhere else. Plotly sets styles inline, which cannot run anything.
        "policy": f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        "head_script": Markup(head),
        "scripts": [Markup(source) for source in sources],
        "style": Markup(_source("page.css")),
    }
    return _pages().get_template(template).render(context | page)


@functools.cache
def _source(name: str) -> str:
    """The text of a script or style as it stands between its tags."""
    if name == "plotly":
        from plotly.offline import get_plotlyjs  # a third of a second, which other formats do without

        text = str(get_plotlyjs())
    else:
        text = (_TEMPLATES / name).read_text(encoding="utf-8")
    if re.search(r"</(script|style)|<!--|[\r\0]", text, re.IGNORECASE):
        raise ValueError(f"{name} cannot stand in a page: a browser would read something else")
    return text


@functools.cache
def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


@functools.cache
def _pages() -> Environment:
    pages = renderer(__package__ or "", autoescape=True)
    pages.filters |= {"prose": prose, "sentence": sentence}
    pages.tests["code"] = lambda text: isinstance(text, Code)
    pages.tests["strong"] = lambda text: isinstance(text, Strong)
    return pages


def prose(text: str) -> Markup:
    """Text of reports with its emphasis; what is escaped first cannot become a tag.

    >>> prose("*Verdict* of `<b>`")
    Markup('<em>Verdict</em> of <code>&lt;b&gt;</code>')
    """
    marked = str(escape(text))
    for pattern, tag in _PROSE:
        marked = re.sub(pattern, tag, marked)
    return Markup(marked)


def sentence(text: str) -> Markup:
    r"""A sentence of a finding: names in backticks, and whatever else Markdown would read behind a backslash.

    >>> sentence(r"`a_b` is \<b\>")
    Markup('<code>a_b</code> is &lt;b&gt;')
    """
    parts = [
        Markup("<code>{}</code>").format(code) if code is not None else escape(escaped or plain)
        for escaped, code, plain in (found.groups() for found in re.finditer(r"\\(.)|`([^`]*)`|([^\\`]+|.)", text))
    ]
    return Markup("").join(parts)
