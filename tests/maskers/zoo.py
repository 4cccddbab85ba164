"""All broken defences."""

from __future__ import annotations

from tests.maskers.base import Plain
from tests.maskers.classic import CLASSIC
from tests.maskers.gradients import GRADIENTS
from tests.maskers.inputs import INPUTS
from tests.maskers.logits import LOGITS
from tests.maskers.switches import SWITCHES

MASKERS: tuple[type[Plain], ...] = (*CLASSIC, *GRADIENTS, *LOGITS, *SWITCHES, *INPUTS)
