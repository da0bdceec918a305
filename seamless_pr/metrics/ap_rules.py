"""Whose average precision of masks: how many instances of an image count, and what is small."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ApRules:
    """The numbers in which evaluations by COCO's formula differ.

    Attributes:
        area_sides: sides in pixels of the squares that part small from medium from large objects.
        max_detections: instances of one image and class that count, the best ones.
    """

    area_sides: tuple[int, int] = (32, 96)
    max_detections: int = 100


COCO_RULES = ApRules()
# The evaluation of the 3D-FUTURE challenge, and that of the code of its winner of 2020.
MORE_AP_RULES = {
    "future3d": ApRules((113, 256), 10),
    "future3d_winner": ApRules((113, 256), 100),
}
