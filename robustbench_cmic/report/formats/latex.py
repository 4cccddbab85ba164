r"""`leaderboard.tex`: the main tables for papers, to be \input; they need the package booktabs."""

from __future__ import annotations

from tabulate import tabulate

from robustbench_cmic.report.formats import renderer
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import Code, Strong, Table, plain

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "–": "--", "†": r"$^\dagger$", "…": r"\ldots{}",
}  # fmt: skip


def latex(summary: Summary) -> str:
    """The whole file: a table environment for clean accuracy, each norm and each pair."""
    templates = renderer(__package__, autoescape=False, variable_start_string="<<", variable_end_string=">>",
                           keep_trailing_newline=True)  # fmt: skip
    templates.filters |= {"plain": plain, "escaped": tex_escaped, "tabular": _tabular}
    return templates.get_template("leaderboard.tex.j2").render(summary=summary)


def _tabular(table: Table) -> str:
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    headers = [tex_escaped(header) for header in table.headers]
    body = tabulate(rows, headers=headers, tablefmt="latex_raw", disable_numparse=True)
    for rule in ("toprule", "midrule", "bottomrule"):  # tabulate has booktabs only where it also escapes
        body = body.replace(r"\hline", rf"\{rule}", 1)
    return body


def _cell(text: str) -> str:
    if isinstance(text, Code):
        return rf"\texttt{{{tex_escaped(text)}}}"
    return rf"\textbf{{{tex_escaped(text)}}}" if isinstance(text, Strong) else tex_escaped(text)


def tex_escaped(text: str) -> str:
    """A suite's own words as plain LaTeX text in one line."""
    return "".join(_SPECIAL.get(character, character) for character in plain(text))
