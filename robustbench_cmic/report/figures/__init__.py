"""Figures for papers: SVG, PNG and PDF files from records alone, by matplotlib; equal records give equal SVG bytes.

One file of this package is one kind of figure: a function of a summary that returns its drawings, or why it has none.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

from robustbench_cmic.records.files import write_atomically
from robustbench_cmic.report.figures.drawing import FILE_TYPES, Drawing, rendered, styled
from robustbench_cmic.report.results import of_own_making
from robustbench_cmic.report.summary import Summary
from robustbench_cmic.report.tables import plain

KINDS_OF_FIGURES = {
    "curves": "curves:curve_figures",
    "ncmi-error": "ncmi_error:ncmi_figures",
    "training": "training:training_figures",
    "simplex": "simplex:simplex_figures",
    "map": "maps:map_figures",
    "class-batches": "class_batches:class_batch_figures",
    "transfer": "transfers:transfer_figures",
}
"""How the names of files begin, and the function of this package that draws the kind."""
Maker = Callable[[Summary], "list[Drawing] | str"]


def drawings_of(summary: Summary, kind: str) -> list[Drawing] | str:
    """The drawings of a kind, or why a suite has none, as the rest of a sentence."""
    maker: Maker = resolve_name(f"{__name__}.{KINDS_OF_FIGURES[kind]}")
    with styled():
        return maker(summary)


def write_figures(summary: Summary, folder: Path) -> tuple[list[Path], list[str]]:
    """Write every figure that a suite has: `SUITE-curves-linf.svg` and so on, each as SVG, PNG and PDF.

    Returns:
        The files, and a sentence for each kind of figure of which there is none.

    Raises:
        OSError: they cannot be written.
        ReportError: the records are not of this version's making.
    """
    suite, files, absent = summary.results.plan.suite, list[Path](), list[str]()
    folder.mkdir(parents=True, exist_ok=True)
    for kind in KINDS_OF_FIGURES:
        with of_own_making(summary.results.folder):
            drawings = drawings_of(summary, kind)
        if isinstance(drawings, str):
            absent.append(f"{plain(suite)}: no figure {kind}: {drawings}")
            continue
        for drawing in drawings:
            for suffix in FILE_TYPES:
                file = folder / f"{suite}-{drawing.name}.{suffix}"
                write_atomically(file, rendered(drawing, suffix))
                files.append(file)
    return files, absent
