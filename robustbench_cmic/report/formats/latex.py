r"""`leaderboard.tex`: the main tables for papers, to be \input; they need the package booktabs."""

from __future__ import annotations

from collections.abc import Iterator

from tabulate import tabulate

from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import Code, Strong, Table, clean_table, pair_table, plain, robust_tables

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "–": "--", "†": r"$^\dagger$", "…": r"\ldots{}",
}  # fmt: skip


def latex(board: Summary) -> str:
    """The whole file: a table environment for clean accuracy, each norm and each pair."""
    return "".join(_environments(board))


def _environments(board: Summary) -> Iterator[str]:
    suite = board.results.plan.suite
    yield f"% {plain(suite)}: made by robustbench_cmic from records; needs \\usepackage{{booktabs}}\n"
    if not board.examples:
        return
    n = " or ".join(map(str, board.examples))
    over = f"{n} test examples, mean $\\pm$ standard deviation over {board.seeds} seeds" if board.seeds > 1 else (
        f"{n} test examples, one seed"
    )  # fmt: skip
    yield _environment(clean_table(board), f"{escaped(suite)}: clean test examples ({over}).")
    for norm, table in robust_tables(board).items():
        caption = (
            f"{escaped(suite)}: accuracy under attack, {escaped(norm)} ({over}). $\\dagger$: flagged by the audit."
        )
        yield _environment(table, caption)
    for first, second in board.pairs:
        names = rf"\texttt{{{escaped(second)}}} minus \texttt{{{escaped(first)}}}"
        yield _environment(pair_table(board, first, second), f"{escaped(suite)}: {names} ({over}).")


def _environment(table: Table, caption: str) -> str:
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    headers = [escaped(header) for header in table.headers]
    body = tabulate(rows, headers=headers, tablefmt="latex_raw", disable_numparse=True)
    for rule in ("toprule", "midrule", "bottomrule"):  # tabulate has booktabs only where it also escapes
        body = body.replace(r"\hline", rf"\{rule}", 1)
    return f"\n\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n{body}\n\\end{{table}}\n"


def _cell(text: str) -> str:
    if isinstance(text, Code):
        return rf"\texttt{{{escaped(text)}}}"
    return rf"\textbf{{{escaped(text)}}}" if isinstance(text, Strong) else escaped(text)


def escaped(text: str) -> str:
    """A suite's own words as plain LaTeX text in one line."""
    return "".join(_SPECIAL.get(character, character) for character in plain(text))
