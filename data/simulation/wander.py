"""Imperfect hands: correlated noise on an expert's commands that comes in lapses, so that the expert recovers."""

from __future__ import annotations

import numpy as np

NOISE_MEMORY = 0.8  # per control step: commands wander for some 60 ms, as a hand does, instead of trembling
LAPSE_S, CARE_S = 0.4, 0.6  # mean length of a lapse, and of the time between two


class Wander:
    """What is added to the translation of every command, full scale 1.

    An autoregressive process of standard deviation ``sigma`` (memory 0.8 per step), heard only during lapses; lapses
    and the care between them last exponentially long (means 0.4 s and 0.6 s), so two fifths of an episode are lapses.
    """

    def __init__(self, rng: np.random.Generator, sigma: float, control_hz: int):
        self._rng, self._sigma = rng, sigma
        self._end = 1 / (LAPSE_S * control_hz)
        self._begin = 1 / (CARE_S * control_hz)
        self._lapse = rng.random() < LAPSE_S / (LAPSE_S + CARE_S)
        self._wander = np.zeros(3)

    def step(self) -> np.ndarray:
        """f64 [3], for the next control step."""
        fresh = self._sigma * self._rng.standard_normal(3)
        self._wander = NOISE_MEMORY * self._wander + np.sqrt(1 - NOISE_MEMORY**2) * fresh
        if self._rng.random() < (self._end if self._lapse else self._begin):
            self._lapse = not self._lapse
        return self._wander if self._lapse else np.zeros(3)
