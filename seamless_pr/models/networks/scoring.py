"""Networks that score every class at every pixel of a file; the mean of such scores over views."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from seamless_pr.models.fusion.by_query import QueryFusion, QueryOutputs, class_segments
from seamless_pr.models.fusion.by_score import FrameSizes
from seamless_pr.models.fusion.frame_bands import FrameBand, stacked_bands
from seamless_pr.models.fusion.query_views import queries_of_views
from seamless_pr.models.networks.network import Network
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.prediction import Prediction
from seamless_pr.structures.views import ChangedBatch


@dataclass(frozen=True)
class ViewedOutputs:
    """What a network says about every view of a batch by itself.

    Attributes:
        outputs: of `outputs`, per view.
        flips: whether that view is mirrored.
    """

    outputs: tuple[Any, ...]
    flips: tuple[bool, ...]


class ScoringNetwork(Network):
    """A network whose class scores at the size of the file can be averaged over views.

    That is how published evaluations merge views: each is computed by itself, and its scores go to
    the file at once.
    """

    @abstractmethod
    def class_scores(
        self, outputs: Any, index: int, original: tuple[int, int], rows: tuple[int, int]
    ) -> Tensor:
        """Scores of all classes in some rows of an image file, [K, rows, W].

        Args:
            outputs: of `outputs`.
            index: of the image in its batch.
            original: (height, width) of the file.
            rows: the first, and the one behind the last.
        """

    def outputs_of_views(self, views: Sequence[ChangedBatch], base: ImageBatch) -> ViewedOutputs:
        return ViewedOutputs(
            tuple(self.outputs(view.batch) for view in views), tuple(view.flip for view in views)
        )

    def finish_views(
        self, outputs: ViewedOutputs, sizes: Sequence[tuple[int, int]]
    ) -> list[Prediction]:
        predictions = []
        for index, original in enumerate(sizes):
            semantic_map = self.map_of_views(outputs, index, original)
            predictions.append(
                Prediction(class_segments(semantic_map, self.label_space), semantic_map)
            )
        return predictions

    def map_of_views(self, seen: ViewedOutputs, index: int, original: tuple[int, int]) -> Tensor:
        """[H, W] int64: the class of the highest mean score, at the size of the file."""
        frame = FrameSizes(original, original, original)
        return stacked_bands(
            frame,
            2 * self.label_space.num_classes,
            lambda band: self.mean_scores(seen, index, original, (band.start, band.stop)).argmax(0),
        )

    def mean_scores(
        self,
        seen: ViewedOutputs,
        index: int,
        original: tuple[int, int],
        rows: tuple[int, int],
    ) -> Tensor:
        """Mean of the class scores of all views in some rows of the file, [K, rows, W]."""
        total: Tensor | None = None
        for outputs, flip in zip(seen.outputs, seen.flips, strict=True):
            scores = self.class_scores(outputs, index, original, rows)
            scores = scores.flip(-1) if flip else scores
            total = scores if total is None else total + scores
        assert total is not None
        return total / len(seen.outputs)


class QueryNetwork(ScoringNetwork):
    """A network that labels by queries.

    Over views the semantic map is that of the mean scores; panoptic maps come of queries that are
    merged across views, see `queries_of_views`.

    Attributes:
        fusion: queries -> maps; knows the classes.
    """

    fusion: QueryFusion

    @abstractmethod
    def outputs(self, batch: ImageBatch) -> QueryOutputs: ...

    def finish(self, outputs: QueryOutputs, sizes: Sequence[tuple[int, int]]) -> list[Prediction]:
        return self.fusion.finish(outputs, sizes)

    def finish_views(
        self, outputs: ViewedOutputs, sizes: Sequence[tuple[int, int]]
    ) -> list[Prediction]:
        if self.fusion.settings.task == "semantic":
            return super().finish_views(outputs, sizes)
        predictions = []
        for index, original in enumerate(sizes):
            queries = queries_of_views(outputs.outputs, outputs.flips, index)
            frame = FrameSizes(queries.padded_size, queries.image_sizes[0], original)
            panoptic = self.fusion.panoptic(queries.class_logits[0], queries.mask_logits[0], frame)
            semantic_map = self.map_of_views(outputs, index, original)
            predictions.append(Prediction(panoptic, semantic_map))
        return predictions

    def class_scores(
        self, outputs: QueryOutputs, index: int, original: tuple[int, int], rows: tuple[int, int]
    ) -> Tensor:
        sizes = FrameSizes(outputs.padded_size, outputs.image_sizes[index], original)
        logits = (outputs.class_logits[index], outputs.mask_logits[index])
        return self.fusion.scores_in(FrameBand(sizes, *rows), *logits)
