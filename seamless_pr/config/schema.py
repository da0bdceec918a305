"""The typed tree behind a YAML config; its leaves are the arguments of what is built."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Interval, Len

from seamless_pr.config.networks import NetworkGroup
from seamless_pr.structures.kinds import OneOf
from seamless_pr.structures.settings import (
    Count,
    CountOrZero,
    Fraction,
    NotNegative,
    Positive,
    PositiveFraction,
)
from seamless_pr.structures.training_settings import (
    MultistepSettings,
    SGDSettings,
    TrainingSettings,
)

OptimizerGroup = Annotated[Any, OneOf("optimizers")]
ScheduleGroup = Annotated[Any, OneOf("schedules")]

# Passes of the network for an image, mirrored ones apart; processes beside a training; images.
MAX_VIEWS, MAX_LOADERS, MAX_BATCH = 32, 1000, 16_384


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """One part of a dataset in the COCO panoptic format.

    Attributes:
        json: the panoptic JSON.
        images: folder of the image files that the JSON names.
        segments: folder of the id PNGs; null: the path of the JSON without ".json".
    """

    json: str
    images: str
    segments: str | None = None


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the data lie, and how images reach the network.

    Attributes:
        label_space: name of a built-in label table, or "json" to take the categories of the
            training JSON.
        train: the part to learn from, or a list of parts (IDD I and II, train and val).
        val: the part to validate on.
        shortest_side_pixels: images are resized so that their shorter side has this many pixels ...
        longest_side_pixels: ... unless the longer side would then exceed this.
        rounded_sides: the other side is rounded to the nearest pixel, as detectron2 does, not down.
        training_sides_pixels: in training the shorter side is one of these, each as likely; []: see
            `scale_range`.
        training_longest_side_pixels: cap in training; null: as everywhere.
        view_sides_pixels: in prediction images are seen at these shorter sides and mirrored, and
            what is seen is merged, unless the prediction names its own views; []: one view.
        view_longest_side_pixels: cap of the views; null: none.
        scale_range: in training `shortest_side_pixels` is multiplied by a random factor of this
            range.
        scale_step_pixels: the shorter side is one of the ends of that range or a number between
            them in steps of this; 0: any number.
        flip_probability: of a horizontal mirror image in training.
        crop_size_pixels: (height, width) of a random crop in training; null: no crop.
        crop_max_class_fraction: crops are drawn again, up to ten times, until they show two classes
            and none fills this share of what is not void; 1: never.
        color_strength: brightness, contrast and saturation change in training by random factors of
            1 - strength .. 1 + strength.
        ssd_colors: brightness, contrast, saturation and hue change in training as those of SSD.
        pad_crops: training images that are smaller than the crop are padded to its size.
        detr_crops: training images change as those of DETR: half of them are cropped between two
            changes of size; needs `training_sides_pixels`, and no other crop or change of colours.
        batch_size: images of one optimiser step, over all workers and accumulation steps.
        num_workers: loading processes of each worker; 0: load in the training process.
    """

    label_space: str = "cityscapes"
    train: DatasetConfig | tuple[DatasetConfig, ...]
    val: DatasetConfig
    shortest_side_pixels: Count = 1024
    longest_side_pixels: Count = 4096
    rounded_sides: bool = False
    training_sides_pixels: tuple[Count, ...] = ()
    training_longest_side_pixels: Count | None = None
    view_sides_pixels: Annotated[tuple[Count, ...], Len(0, MAX_VIEWS)] = ()
    view_longest_side_pixels: Count | None = None
    scale_range: tuple[Positive, Positive] = (0.5, 2.0)
    scale_step_pixels: CountOrZero = 0
    flip_probability: Fraction = 0.5
    crop_size_pixels: tuple[Count, Count] | None = None
    crop_max_class_fraction: PositiveFraction = 1.0
    color_strength: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    ssd_colors: bool = False
    pad_crops: bool = False
    detr_crops: bool = False
    batch_size: Annotated[int, Interval(ge=1, le=MAX_BATCH)] = 8
    num_workers: Annotated[int, Interval(ge=0, le=MAX_LOADERS)] = 2

    @property
    def train_parts(self) -> tuple[DatasetConfig, ...]:
        """The parts to learn from."""
        return self.train if isinstance(self.train, tuple) else (self.train,)

    def __post_init__(self) -> None:
        if not self.train_parts:
            raise ValueError("'train' is an empty list; give at least one part")
        if self.longest_side_pixels < self.shortest_side_pixels:
            raise ValueError(
                "'longest_side_pixels' must be at least 'shortest_side_pixels' "
                f"({self.shortest_side_pixels}); got {self.longest_side_pixels}"
            )
        first, second = self.scale_range
        if first > second:
            raise ValueError(
                f"'scale_range' must be two numbers, 0 < first <= second; got {[first, second]}"
            )
        if self.crop_max_class_fraction < 1 and self.crop_size_pixels is None:
            raise ValueError(
                f"'crop_max_class_fraction' ({self.crop_max_class_fraction}) chooses among crops, "
                "but 'crop_size_pixels' is null; give a size"
            )
        if self.pad_crops and self.crop_size_pixels is None:
            raise ValueError(
                "'pad_crops' pads to 'crop_size_pixels', but that is null; give a size"
            )
        if self.detr_crops and not self.training_sides_pixels:
            raise ValueError("'detr_crops' needs 'training_sides_pixels'; got none")
        if self.detr_crops and (self.crop_size_pixels or self.color_strength or self.ssd_colors):
            raise ValueError(
                "'detr_crops' brings its own crop and leaves colours alone; leave out "
                "'crop_size_pixels', 'color_strength' and 'ssd_colors'"
            )


@dataclass(frozen=True, kw_only=True)
class InitialWeightsConfig:
    """Weights of another run to start from: fine-tuning, or new heads on a trained trunk.

    Attributes:
        file: weights file of the same network, but for `random_parts`; null: random weights.
        random_parts: first names of weights (`semantics`, `instances.masks`, ...) that start at
            random all the same, whether the file has them or not; everything else must be in the
            file, and nothing else.
    """

    file: str | None = None
    random_parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.random_parts and self.file is None:
            raise ValueError(
                "'random_parts' says what 'file' does not give, but there is no file; got "
                f"{list(self.random_parts)}; name a weights file"
            )


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """How `pipelines/train.py` spreads over a Ray cluster; of no effect without Ray.

    Attributes:
        num_workers: training processes; with GPUs one per GPU.
        min_workers: after a loss go on with as few as these, and grow again when machines return.
            null: wait for `num_workers`.
        use_gpu: a GPU for each process; null: if the cluster has any.
        cpus_per_worker: cores of each process, its loading processes included.
        max_failures: restarts from the last checkpoint after a process or machine was lost.
        num_checkpoints_kept: checkpoints of highest PQ in Ray's storage, besides the last one.
    """

    num_workers: Count = 1
    min_workers: Count | None = None
    use_gpu: bool | None = None
    cpus_per_worker: Count = 1
    max_failures: CountOrZero = 3
    num_checkpoints_kept: Count = 2

    def __post_init__(self) -> None:
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise ValueError(
                f"'min_workers' must be 1 to 'num_workers' ({self.num_workers}) or null; got "
                f"{self.min_workers}"
            )


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run.

    Attributes:
        model: the network.
        data: what it learns from.
        initial_weights: where it starts.
        loss_weights: factor of each loss; names every loss of the network, no more and no less.
        optimizer: how weights change.
        schedule: how the learning rate changes.
        training: length, precision and rhythm.
        cluster: workers on a Ray cluster.
    """

    model: NetworkGroup
    data: DataConfig
    initial_weights: InitialWeightsConfig = field(default_factory=InitialWeightsConfig)
    loss_weights: dict[str, NotNegative]
    optimizer: OptimizerGroup = field(default_factory=SGDSettings)
    schedule: ScheduleGroup = field(default_factory=MultistepSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        parts = self.optimizer.accumulation_steps
        if self.data.batch_size % parts:
            raise ValueError(
                f"'data.batch_size' ({self.data.batch_size}) must be a multiple of "
                f"'optimizer.accumulation_steps' ({parts})"
            )
        weights = getattr(getattr(self.model, "backbone", None), "weights", None)
        if self.initial_weights.file is not None and weights is not None:
            raise ValueError(
                f"'initial_weights.file' ({self.initial_weights.file}) and "
                f"'model.backbone.weights' ({weights}) both fill the backbone; set one of them to "
                "null"
            )
