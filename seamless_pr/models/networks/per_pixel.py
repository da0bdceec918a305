"""The per-pixel baselines of MaskFormer: the same parts, trained to classify every pixel.

Letters: N images, L layers, K classes, h, w cells at stride 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seamless_pr.models.fusion.by_query import class_segments
from seamless_pr.models.fusion.by_score import FrameSizes
from seamless_pr.models.fusion.frame_bands import FrameBand, stacked_bands
from seamless_pr.models.necks.pixel_decoder import PixelEmbedding
from seamless_pr.models.networks.scoring import ScoringNetwork
from seamless_pr.models.networks.trunk import Trunk
from seamless_pr.models.queries.query_decoder import MaskEmbedding, QueryDecoder, query_masks
from seamless_pr.models.queries.set_losses import layer_names
from seamless_pr.ops.generators import seeded_by
from seamless_pr.ops.precision import at_least_single
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.prediction import Prediction

# Input pixels per cell of the logits.
STRIDE = 4


@dataclass(frozen=True)
class PixelLogits:
    """Class logits of a batch of padded images.

    Attributes:
        logits: [N, K, h, w] at stride 4.
        image_sizes: (height, width) of the valid pixels of each image.
    """

    logits: Tensor
    image_sizes: tuple[tuple[int, int], ...]

    def in_file(self, index: int, original_size: tuple[int, int]) -> Tensor:
        """[K, H, W] of one image: enlarged by 4, cropped to the image, resized to the file."""
        return self._bands(index, original_size, lambda logits: logits)

    def semantic_map(self, index: int, original_size: tuple[int, int]) -> Tensor:
        """[H, W] int64: the best class of every pixel of the file."""
        return self._bands(index, original_size, lambda logits: logits.argmax(0))

    def frame(self, index: int, original_size: tuple[int, int]) -> FrameSizes:
        """Sizes of an image; what is padded is a multiple of 4, whatever the input was."""
        height, width = self.logits.shape[2:]
        padded = (STRIDE * height, STRIDE * width)
        return FrameSizes(padded, self.image_sizes[index], original_size)

    def _bands(
        self, index: int, original_size: tuple[int, int], decide: Callable[[Tensor], Tensor]
    ) -> Tensor:
        logits = self.logits[index]
        return stacked_bands(
            self.frame(index, original_size),
            len(logits),
            lambda band: decide(band.in_file(band.at_input(logits))),
        )


class ConvClassHead(nn.Module):
    """A linear classifier of every pixel (PerPixelBaseline).

    `forward`: `PixelEmbedding` -> logits [1, N, K, h, w].
    """

    num_outputs = 1

    def __init__(self, mask_channels: int, num_classes: int) -> None:
        super().__init__()
        self.predictor = nn.Conv2d(mask_channels, num_classes, 1)
        nn.init.kaiming_normal_(self.predictor.weight, mode="fan_out", nonlinearity="relu")
        assert self.predictor.bias is not None
        nn.init.zeros_(self.predictor.bias)

    def forward(self, pixels: PixelEmbedding, *, intermediate: bool = True) -> Tensor:
        return self.predictor(pixels.mask_features)[None]


class QueryClassHead(nn.Module):
    """A query per class, whose mask logits are the logits of the class (PerPixelBaseline+).

    `forward`: `PixelEmbedding` -> logits after every decoder layer, [L, N, K, h, w]; with
    `intermediate=False` only after the last one.
    """

    def __init__(self, query_decoder: QueryDecoder, mask_channels: int) -> None:
        super().__init__()
        self.query_decoder = query_decoder
        self.mask_embed = MaskEmbedding(query_decoder.channels, mask_channels)
        self.num_outputs = query_decoder.num_outputs

    def forward(self, pixels: PixelEmbedding, *, intermediate: bool = True) -> Tensor:
        contents = self.query_decoder(pixels.memory, intermediate=intermediate)
        return query_masks(self.mask_embed(contents), pixels.mask_features)


class PerPixelNet(ScoringNetwork):
    """Backbone, pixel decoder, and a class for every pixel (MaskFormer, section 4.1).

    Args:
        label_space: classes.
        trunk: pixels -> stages.
        pixel_decoder: stages -> `PixelEmbedding`.
        head: `PixelEmbedding` -> logits.
        size_divisor: batches are padded to multiples of this height and width.
    """

    def __init__(
        self,
        label_space: LabelSpace,
        trunk: Trunk,
        pixel_decoder: nn.Module,
        head: ConvClassHead | QueryClassHead,
        *,
        size_divisor: int = 1,
    ) -> None:
        super().__init__()
        self.label_space = label_space
        self.trunk = trunk
        self.pixel_decoder = pixel_decoder
        self.head = head
        self.size_divisor = size_divisor
        self.loss_names = layer_names(("semantic",), head.num_outputs)

    def forward(self, batch: ImageBatch, *, intermediate: bool = True) -> Tensor:
        """[L, N, K, h, w] logits of a padded batch; only the last layer's if not `intermediate`."""
        pixels = self.pixel_decoder(self.trunk(batch).levels)
        logits: Tensor = self.head(pixels, intermediate=intermediate)
        return logits

    def losses(
        self,
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        batch = batch.padded_to(self.size_divisor)
        with seeded_by(generators, batch.images.device):
            logits = self(batch)
        # The last layer has the plain name.
        ordered = [logits[-1], *logits[:-1]]
        labels = _padded_labels(targets, (STRIDE * logits.shape[3], STRIDE * logits.shape[4]))
        count = int((labels != LabelSpace.IGNORE_TRAIN_ID).sum())
        return {
            name: LossSum(_pixel_loss(layer, labels), count)
            for name, layer in zip(self.loss_names, ordered, strict=True)
        }

    def outputs(self, batch: ImageBatch) -> PixelLogits:
        batch = batch.padded_to(self.size_divisor)
        return PixelLogits(self(batch, intermediate=False)[-1], batch.image_sizes)

    def finish(self, outputs: PixelLogits, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        predictions = []
        for index, original in enumerate(sizes):
            semantic_map = outputs.semantic_map(index, original)
            predictions.append(
                Prediction(class_segments(semantic_map, self.label_space), semantic_map)
            )
        return predictions

    def dense_scores(self, outputs: PixelLogits, index: int, original: tuple[int, int]) -> Tensor:
        return self.class_scores(outputs, index, original, (0, original[0]))

    def class_scores(
        self, outputs: PixelLogits, index: int, original: tuple[int, int], rows: tuple[int, int]
    ) -> Tensor:
        """See `ScoringNetwork`; the scores are logits, as published evaluations average them."""
        band = FrameBand(outputs.frame(index, original), *rows)
        return band.in_file(band.at_input(outputs.logits[index]))


def _padded_labels(targets: Sequence[PanopticTarget], size: tuple[int, int]) -> Tensor:
    """[N, H, W] int64 train ids; void and padding are ignored."""
    ignore = LabelSpace.IGNORE_TRAIN_ID
    labels = torch.full((len(targets), *size), ignore, device=targets[0].id_map.device)
    for row, target in zip(labels, targets, strict=True):
        height, width = target.image_size
        row[:height, :width] = target.semantic_map
    return labels


def _pixel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the cross-entropies of all pixels that are not ignored, at full size."""
    logits = at_least_single(logits)
    enlarged = F.interpolate(logits, scale_factor=STRIDE, mode="bilinear", align_corners=False)
    return F.cross_entropy(
        enlarged, labels, ignore_index=LabelSpace.IGNORE_TRAIN_ID, reduction="sum"
    )
