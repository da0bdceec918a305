"""Numbers of networks that describe an image by a set of masks, each with a class.

Defaults are MaskFormer as published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from seamless_pr.structures.settings import Count, Fraction, Layers, LayersOrZero, NotNegative


@dataclass(frozen=True, kw_only=True)
class TransformerSettings:
    """Layers of attention.

    Attributes:
        num_layers: how many.
        num_heads: of each attention; divides the width.
        hidden_channels: width of the perceptron of each layer.
        dropout: of attention weights, inside the perceptron and before each sum.
        norm_first: norm each step's input instead of each sum.
    """

    num_layers: Layers = 6
    num_heads: Count = 8
    hidden_channels: Count = 2048
    dropout: Fraction = 0.1
    norm_first: bool = False


@dataclass(frozen=True, kw_only=True)
class QueryDecoderSettings(TransformerSettings):
    """Decoder of queries.

    Attributes:
        num_layers: how many; 0: queries see no image, each is one class and one mask embedding (an
            ablation of MaskFormer).
        channels: width of queries and memory.
        self_attention: queries see each other.
        num_encoder_layers: layers that the memory passes before the queries look at it.
    """

    num_layers: LayersOrZero = 6
    channels: Count = 256
    self_attention: bool = True
    num_encoder_layers: LayersOrZero = 0

    def __post_init__(self) -> None:
        if self.num_encoder_layers and not self.num_layers:
            raise ValueError(
                f"'num_encoder_layers' is {self.num_encoder_layers}, but with 'num_layers' 0 "
                "nobody looks at the memory; set num_encoder_layers to 0"
            )


@dataclass(frozen=True, kw_only=True)
class QuerySettings(QueryDecoderSettings):
    """Queries, each for one segment.

    Attributes:
        num_queries: most segments of an image.
    """

    num_queries: Count = 100


@dataclass(frozen=True, kw_only=True)
class QueryLossSettings:
    """How queries are matched to segments, and what unmatched ones count.

    Attributes:
        class_cost: weight of the class in the matching.
        mask_cost: weight of the focal loss in the matching.
        dice_cost: weight of the dice loss in the matching.
        no_object_weight: of a query without a segment in the mean of the class loss.
        targets: "segments" (one mask per segment that is not crowd) or "classes" (one per class of
            the image, objects of a class together).
    """

    class_cost: NotNegative = 1.0
    mask_cost: NotNegative = 20.0
    dice_cost: NotNegative = 1.0
    no_object_weight: NotNegative = 0.1
    targets: Literal["segments", "classes"] = "segments"


@dataclass(frozen=True, kw_only=True)
class QueryFusionSettings:
    """How the masks of queries become a map.

    Attributes:
        task: "panoptic", "semantic" (scores of the queries summed per class, arg max) or "general"
            (the panoptic rule with all classes as stuff).
        object_threshold: queries whose class is at most this probable are dropped.
        overlap_threshold: a query is dropped that wins less than this share of the pixels that its
            mask covers.
    """

    task: Literal["panoptic", "semantic", "general"] = "panoptic"
    object_threshold: Fraction = 0.8
    overlap_threshold: Fraction = 0.8
