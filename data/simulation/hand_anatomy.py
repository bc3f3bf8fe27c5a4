"""Anatomy of the simulated hand: its landmarks on MyoHand, its skin, and the stretch from MyoHand to an adult."""

from __future__ import annotations

import numpy as np

# MediaPipe order: (MyoHand body, offset in it in metres). A body's origin is its joint; tips are MyoHand's tip sites.
LANDMARKS: tuple[tuple[str, tuple[float, float, float]], ...] = (
    ("lunate", (0, 0, 0)),
    ("firstmc", (0, 0, 0)),
    ("proximal_thumb", (0, 0, 0)),
    ("distal_thumb", (0, 0, 0)),
    ("distal_thumb", (0.010, -0.020, -0.008)),
    ("2proxph", (0, 0, 0)),
    ("midph2", (0, 0, 0)),
    ("distph2", (0, 0, 0)),
    ("distph2", (0.002, -0.018, 0.0)),
    ("3proxph", (0, 0, 0)),
    ("midph3", (0, 0, 0)),
    ("distph3", (0, 0, 0)),
    ("distph3", (0.002, -0.019, -0.001)),
    ("4proxph", (0, 0, 0)),
    ("midph4", (0, 0, 0)),
    ("distph4", (0, 0, 0)),
    ("distph4", (-0.001, -0.018, 0.001)),
    ("5proxph", (0, 0, 0)),
    ("midph5", (0, 0, 0)),
    ("distph5", (0, 0, 0)),
    ("distph5", (-0.001, -0.017, -0.003)),
)
THUMB_TIP, INDEX_TIP = 4, 8

# Skin: (name, body, from, to, radius), metres: ends where they lie in MyoHand, radii of an adult. An end given as "a/b"
# is the origin of b, a child of a, as seen from the parent of a; a single name is the origin of a child.
Point = tuple[float, float, float] | str
_O = (0.0, 0.0, 0.0)
SKIN: tuple[tuple[str, str, Point, Point, float], ...] = (
    ("thumb1", "firstmc", _O, "proximal_thumb", 0.0125),
    ("thumb2", "proximal_thumb", _O, "distal_thumb", 0.0105),
    ("thumb3", "distal_thumb", _O, (0.0100, -0.0195, -0.0076), 0.0092),
    ("index0", "secondmc", (-0.0080, 0.0300, -0.0030), "2proxph", 0.0125),
    ("index1", "2proxph", _O, "midph2", 0.0096),
    ("index2", "midph2", _O, "distph2", 0.0084),
    ("index3", "distph2", _O, (0.0020, -0.0175, 0.0), 0.0076),
    ("middle0", "thirdmc", (-0.0002, 0.0300, -0.0020), "3proxph", 0.0125),
    ("middle1", "3proxph", _O, "midph3", 0.0098),
    ("middle2", "midph3", _O, "distph3", 0.0086),
    ("middle3", "distph3", _O, (0.0020, -0.0185, -0.0010), 0.0078),
    ("ring0", "fourthmc", (0.0060, 0.0300, 0.0), "4proxph", 0.0120),
    ("ring1", "4proxph", _O, "midph4", 0.0092),
    ("ring2", "midph4", _O, "distph4", 0.0081),
    ("ring3", "distph4", _O, (-0.0010, -0.0175, 0.0005), 0.0074),
    ("little0", "fifthmc", (0.0090, 0.0280, 0.0), "5proxph", 0.0120),
    ("little1", "5proxph", _O, "midph5", 0.0084),
    ("little2", "midph5", _O, "distph5", 0.0073),
    ("little3", "distph5", _O, (-0.0010, -0.0165, -0.0025), 0.0066),
    ("knuckles2", "capitate", "secondmc/2proxph", "thirdmc/3proxph", 0.0118),
    ("knuckles3", "capitate", "thirdmc/3proxph", "fourthmc/4proxph", 0.0115),
    ("knuckles4", "capitate", "fourthmc/4proxph", "fifthmc/5proxph", 0.0112),
    ("palm2", "capitate", "secondmc", "thirdmc", 0.0140),
    ("palm3", "capitate", "thirdmc", "fourthmc", 0.0145),
    ("palm4", "capitate", "fourthmc", "fifthmc", 0.0140),
    ("thenar", "capitate", "trapezium", (0.0190, -0.0360, -0.0050), 0.0140),
    ("hypothenar", "capitate", (-0.0140, -0.0080, -0.0050), (-0.0215, -0.0420, -0.0060), 0.0135),
    ("wrist", "lunate", (0.0075, 0.0, 0.0), (-0.0075, 0.0, 0.0), 0.0185),
    ("heel", "capitate", (0.0100, -0.0040, -0.0050), (-0.0120, -0.0060, -0.0040), 0.0140),
)
PALM = ("palm", "capitate", (-0.002, -0.034, 0.001), (0.040, 0.048, 0.0165))
# The forearm is drawn, but belongs neither to the mask nor to the exact surface: an effector is a hand.
FOREARM: tuple[tuple[Point, Point, float], ...] = (
    ((0.0095, 0.014, 0.0), (0.012, 0.600, -0.050), 0.0205),
    ((-0.0095, 0.014, 0.0), (-0.028, 0.600, -0.050), 0.0205),
)

# Proportions of an adult: everything inside a body of the thumb, of a finger or of the palm is stretched by this much
# across, along and through the hand at rest (no body of MyoHand is turned at rest, so axes agree).
THUMB_STRETCH = np.array([1.2, 1.2, 1.2])
FINGER_STRETCH = np.array([1.1, 1.1, 1.1])
PALM_STRETCH = np.array([1.4, 1.13, 1.0])
_THUMB = ("trapezium", "firstmc", "proximal_thumb", "distal_thumb")


def stretch(body: str) -> np.ndarray:
    """f64 [3], no unit: factors for points given in the frame of that body of MyoHand, or of the forearm."""
    if body == "forearm":
        return np.ones(3)
    if body in _THUMB:
        return THUMB_STRETCH
    return FINGER_STRETCH if "ph" in body else PALM_STRETCH
