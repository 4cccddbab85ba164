"""How the curves of charts and figures are told apart: a model by its colour and marker, an attack by its dashes.

Colours and markers go round at different lengths, so that 56 models share no pair of them; from the ninth model on,
where colours come again, dashes are grouped as well. Where all curves are of one attack, as in the panels of figures,
dashes go by the model: 84 share no pair of marker and dashes, which grey leaves.
"""

from __future__ import annotations

from typing import NamedTuple

# Told apart in greys and by colour-blind eyes, and at least 3:1 on white and on the dark background.
COLORS = ("#2f7fc1", "#c8641b", "#2b8f6c", "#a65fb0", "#8a7a1f", "#c2476a", "#5b7088", "#4c8f1f")
SYMBOLS = {
    "circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "triangle-down": "▼", "star": "★", "hexagon": "⬢",
}  # fmt: skip
"""Markers by Plotly's names, with a letter that looks like them."""
_MARKERS = dict(zip(SYMBOLS, "osD^v*H", strict=True))
"""The same by Matplotlib's names."""
HEAT = "cividis"
"""Matplotlib's scale of heat maps: of even steps in grey and to colour-blind eyes (Nunez, Anderton & Renslow 2018)."""
LIGHT = 0.46
"""From this share of the scale on its colours are light, so that what is written on them is black."""
CROWDED = 2 * len(COLORS)
"""With more models of a grid there are no curves: the maps tell more."""
_DASHES = (
    (24, 0), (3, 3), (10, 4), (10, 3, 3, 3), (18, 5), (18, 3, 3, 3), (3, 8), (6, 6), (10, 3, 3, 3, 3, 3),
    (18, 3, 6, 3), (3, 3, 6, 3), (24, 3, 3, 3, 3, 3),
)  # fmt: skip
"""Ink and gap in pixels, by turns; the first is solid."""


class Stroke(NamedTuple):
    """What the curves of a model have in common.

    Attributes:
        color: as CSS has it.
        symbol: Plotly's name of the marker.
        glyph: the marker as a letter.
        lap: how often the colours were used up before.
    """

    color: str
    symbol: str
    glyph: str
    lap: int

    @property
    def marker(self) -> str:
        """Matplotlib's name of the marker."""
        return _MARKERS[self.symbol]

    def dash(self, attack: int) -> str:
        """Plotly's dashes for an attack, counted from the worst case, which is 0 and solid on the first lap."""
        pattern = _DASHES[attack % len(_DASHES)]
        if not self.lap:
            return "solid" if pattern[1] == 0 else _pixels(pattern)
        return _pixels((*pattern, *pattern[:-1], pattern[-1] + 9 * self.lap))


def ink(number: int) -> tuple[int, ...]:
    """Ink and gap in pixels, by turns, of the number-th kind of dashes; none of the first, which is solid."""
    pattern = _DASHES[number % len(_DASHES)]
    return pattern if pattern[1] else ()


def stroke(model: int) -> Stroke:
    """That of a model, by its place in the suite."""
    symbol, glyph = list(SYMBOLS.items())[model % len(SYMBOLS)]
    return Stroke(COLORS[model % len(COLORS)], symbol, glyph, model // len(COLORS))


def _pixels(pattern: tuple[int, ...]) -> str:
    return ",".join(f"{length}px" for length in pattern)
