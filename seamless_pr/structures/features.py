"""Feature maps that a trunk hands to its branches."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Features:
    """Maps of a padded batch: pyramid levels, or the backbone's stages where there is no neck.

    Attributes:
        levels: [N, C_l, h_l, w_l] each, finest first.
        strides: input pixels per cell of each level.
        semantic: [N, C, h, w] what the semantic branch sees before it names classes, for an
            instance branch that reads it; None: no branch does.
        images: [N, 3, H, W] uint8, the pixels themselves, for points that read them; None: nobody
            knows them.
    """

    levels: tuple[Tensor, ...]
    strides: tuple[int, ...]
    semantic: Tensor | None = None
    images: Tensor | None = None

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.strides):
            raise ValueError(
                f"{len(self.levels)} levels but {len(self.strides)} strides; give one per level"
            )

    @property
    def finest(self) -> Tensor:
        """The level that points are read from."""
        return self.levels[0]

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """(h, w) of each level."""
        return tuple((level.shape[-2], level.shape[-1]) for level in self.levels)
