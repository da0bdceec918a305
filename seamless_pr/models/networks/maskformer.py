"""MaskFormer: a set of queries, each with a class and a mask.

Letters: N images, Q queries, L decoder layers, K classes, h, w cells at stride 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seamless_pr.models.fusion.by_query import QueryFusion, QueryOutputs
from seamless_pr.models.networks.scoring import QueryNetwork
from seamless_pr.models.networks.trunk import Trunk
from seamless_pr.models.queries.query_decoder import MaskEmbedding, QueryDecoder, query_masks
from seamless_pr.models.queries.set_losses import LOSS_NAMES, layer_names, set_losses
from seamless_pr.models.queries.targets import MaskTargets, class_targets, segment_targets
from seamless_pr.ops.generators import seeded_by
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.query_settings import QueryLossSettings

TARGETS = {"segments": segment_targets, "classes": class_targets}


@dataclass(frozen=True)
class QueryLogits:
    """What the heads say after each decoder layer.

    Attributes:
        classes: [L, N, Q, K + 1], "no object" last.
        masks: [L, N, Q, h, w].
    """

    classes: Tensor
    masks: Tensor


class MaskFormer(QueryNetwork):
    """Per-pixel embeddings, queries, and the products of both (MaskFormer, section 3).

    Args:
        trunk: pixels -> stages.
        pixel_decoder: stages -> `PixelEmbedding`.
        query_decoder: memory -> contents of queries.
        mask_channels: width of the embedding of pixels.
        fusion: queries -> maps; knows the classes.
        loss: numbers of matching and losses, and which targets there are.
        size_divisor: batches are padded to multiples of this height and width.
    """

    def __init__(
        self,
        trunk: Trunk,
        pixel_decoder: nn.Module,
        query_decoder: QueryDecoder,
        mask_channels: int,
        fusion: QueryFusion,
        loss: QueryLossSettings,
        *,
        size_divisor: int = 1,
    ) -> None:
        super().__init__()
        self.label_space = fusion.label_space
        self.trunk = trunk
        self.pixel_decoder = pixel_decoder
        self.query_decoder = query_decoder
        self.class_embed = nn.Linear(query_decoder.channels, self.label_space.num_classes + 1)
        self.mask_embed = MaskEmbedding(query_decoder.channels, mask_channels)
        self.fusion = fusion
        self.loss = loss
        self.size_divisor = size_divisor
        self.loss_names = layer_names(LOSS_NAMES, query_decoder.num_outputs)

    def forward(self, batch: ImageBatch, *, intermediate: bool = True) -> QueryLogits:
        """Logits after every decoder layer, or only after the last one; of a padded batch."""
        pixels = self.pixel_decoder(self.trunk(batch).levels)
        contents = self.query_decoder(pixels.memory, intermediate=intermediate)
        masks = query_masks(self.mask_embed(contents), pixels.mask_features)
        return QueryLogits(self.class_embed(contents), masks)

    def losses(
        self,
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        batch = batch.padded_to(self.size_divisor)
        with seeded_by(generators, batch.images.device):
            logits = self(batch)
        masks = [self.mask_targets(target, batch.padded_size) for target in targets]
        return set_losses(logits.classes, logits.masks, masks, self.loss)

    def mask_targets(self, target: PanopticTarget, size: tuple[int, int]) -> MaskTargets:
        """What the queries should find in an image, in the frame of the padded batch."""
        return TARGETS[self.loss.targets](target).padded_to(size)

    def outputs(self, batch: ImageBatch) -> QueryOutputs:
        batch = batch.padded_to(self.size_divisor)
        logits = self(batch, intermediate=False)
        return QueryOutputs(
            logits.classes[-1], logits.masks[-1], batch.padded_size, batch.image_sizes
        )
