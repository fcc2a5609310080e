"""What a rule by which images are flagged is made of; ``rules.py`` lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ..options import is_number
from .calibration import Calibration

_Choice: TypeAlias = Callable[[float, np.ndarray, Calibration], float]


@dataclass(frozen=True)
class Rule:
    """A rule by which images are flagged.

    Attributes:
        name: what callers pass
        label: what a form shows
        description: what its level means, for a form
        must: what its level must be, for an error
        lowest, highest: bounds of its level, inclusive
        default_level: a usual level; None where it depends on the scores
        is_whole: whether its level must be a whole number
        needs_all_scores: whether it looks at the scores of the images that it flags, and not
            at the reference's alone
        words: says what a level flags, as in ``"5 % of images like the reference's are flagged"``
        choose: ``(level, scores, calibration)`` to the score from which images are flagged
    """

    name: str
    label: str
    description: str
    must: str
    lowest: float
    highest: float
    default_level: float | None
    words: Callable[[float], str]
    choose: _Choice
    is_whole: bool = False
    needs_all_scores: bool = False

    def allows(self, level: Any) -> bool:
        """Whether this is one of its levels."""
        if not is_number(level) or not self.lowest <= level <= self.highest:
            return False
        return not (self.is_whole and level != int(level))
