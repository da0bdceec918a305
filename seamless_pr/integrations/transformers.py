"""Networks of Hugging Face that label an image by queries, in the jobs of this package.

MaskFormer, Mask2Former, OneFormer and EoMT, as `transformers` has them: its networks run, and their
queries become maps by the rules of MaskFormer, as everywhere here; none of its post-processing is
called. Needs `pip install "seamless_pr[transformers]"`; nothing else here does.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seamless_pr.datasets.label_spaces import LABEL_SPACE_NAMES, load_label_space, load_labels
from seamless_pr.inference.predictor import Predictor, usable_device
from seamless_pr.models.fusion.by_query import QueryFusion, QueryOutputs
from seamless_pr.models.networks.network import Network, PixelNormalization
from seamless_pr.models.networks.scoring import QueryNetwork
from seamless_pr.models.networks.views import ViewedNet
from seamless_pr.structures.faults import first_line
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.loss_sum import LossSum
from seamless_pr.structures.panoptic_target import PanopticTarget
from seamless_pr.structures.query_settings import QueryFusionSettings
from seamless_pr.structures.views import View, described_views
from seamless_pr.weights.maskformer import described_classes, official_order

PREFIX = "hf:"
FAMILIES = ("maskformer", "mask2former", "oneformer", "eomt")
# Share of the names that agree with a table's, class by class; spellings differ here and there.
_SAME_NAMES = 0.8
_DIVISOR = 32
# The norm behind the last stage of a Swin: stages are read through norms of their own, and files
# that older versions of transformers wrote do not have it.
_UNREAD_PARAMETERS = re.compile(r"model\.pixel_level_module\.encoder\.(?:\w+\.)?layernorm\..*")
_TASK_TEXT = "the task is {}"
# Keys of `load_transformers_predictor`'s overrides -> (settings they go to, what reads them).
_OVERRIDES = {
    "model.fusion.task": str,
    "model.fusion.object_threshold": float,
    "model.fusion.overlap_threshold": float,
    "data.label_space": str,
    "data.shortest_side_pixels": int,
    "data.longest_side_pixels": int,
}


class TransformersNet(QueryNetwork):
    """A network of `transformers` that labels by queries; for prediction only.

    Args:
        network: called with `pixel_values`; gives `class_queries_logits` [N, Q, K + 1] and
            `masks_queries_logits` [N, Q, h, w], which cover the padded images.
        class_order: for each class of the label space its place among the network's labels.
        fusion: queries -> maps; knows the classes.
        normalization: raw pixels -> what the network wants.
        square_pixels: side of the square that images are padded to; None: to multiples of 32.
        task_tokens: [1, T] what a OneFormer is told to do; None: for other networks.
    """

    loss_names = ()
    class_order: Tensor
    task_tokens: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        class_order: Sequence[int],
        fusion: QueryFusion,
        normalization: PixelNormalization,
        *,
        square_pixels: int | None = None,
        task_tokens: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.fusion = fusion
        self.label_space = fusion.label_space
        self.normalization = normalization
        self.square_pixels = self.largest_side_pixels = square_pixels
        # "No object" stays last.
        order = torch.tensor([*class_order, len(class_order)])
        self.register_buffer("class_order", order, persistent=False)
        self.register_buffer("task_tokens", task_tokens, persistent=False)

    def losses(
        self,
        batch: ImageBatch,
        targets: Sequence[PanopticTarget],
        generators: Sequence[torch.Generator],
    ) -> dict[str, LossSum]:
        raise ValueError(
            "a network of transformers is for prediction here; to train a MaskFormer, import its "
            "weights with tools/convert_weights.py and start from them (initial_weights.file)"
        )

    def outputs(self, batch: ImageBatch) -> QueryOutputs:
        batch = self.padded(batch)
        inputs: dict[str, Any] = {"pixel_values": self.pixels(batch)}
        if self.task_tokens is not None:
            inputs["task_inputs"] = self.task_tokens.expand(len(batch), -1)
        found = self.network(**inputs)
        return QueryOutputs(
            found.class_queries_logits[..., self.class_order],
            found.masks_queries_logits,
            batch.padded_size,
            batch.image_sizes,
        )

    def pixels(self, batch: ImageBatch) -> Tensor:
        """What the network reads of a padded batch: [N, 3, H, W]."""
        if self.square_pixels is not None:
            # Squares are filled with black before they are normalised, other batches with 0 behind.
            batch = ImageBatch(batch.images, (batch.padded_size,) * len(batch))
        normalized: Tensor = self.normalization(batch)
        return normalized

    def padded(self, batch: ImageBatch) -> ImageBatch:
        """The batch at a size that the network reads."""
        side = self.square_pixels
        if side is None:
            return batch.padded_to(_DIVISOR)
        height, width = batch.padded_size
        if max(height, width) > side:
            raise ValueError(
                f"this network reads images of {side} x {side} pixels; got {height} x {width}; set "
                f"data.longest_side_pixels to at most {side}"
            )
        images = nn.functional.pad(batch.images, (0, side - width, 0, side - height))
        return ImageBatch(images, batch.image_sizes)


def load_transformers_predictor(
    source: str,
    device: torch.device | str | None = None,
    *,
    label_space: LabelSpace | None = None,
    overrides: Sequence[str] = (),
    batch_size: int = 1,
    amp: str = "none",
    views: Sequence[View] = (),
) -> Predictor:
    """A network of Hugging Face, ready to label images.

    Sizes and normalisation are those of its image processor. Classes are those of a built-in table
    whose names agree with the labels, class by class; else a COCO panoptic JSON says them, in the
    network's order: `data.label_space=FILE.json`.

    Args:
        source: folder with a saved network, or name of a repository, which is downloaded.
        device: where the network runs; None: a GPU if there is one, else the CPU.
        label_space: demanded classes; None: whatever the network knows.
        overrides: `key=value` of model.fusion.task ("panoptic", "semantic", "general"),
            model.fusion.object_threshold, model.fusion.overlap_threshold, data.label_space,
            data.shortest_side_pixels, data.longest_side_pixels.
        batch_size, amp: see `Predictor`.
        views: see `seamless_pr.build.predictor.load_predictor`.

    Raises:
        ModuleNotFoundError: transformers is not installed.
        FileNotFoundError: no such folder, and no such repository or no way to it.
        ValueError: another kind of network, a folder that lacks something, classes that no table
            names, unknown overrides, or images that are larger than the network reads.
    """
    values = _parsed(overrides)
    network, processor, config = _load(source)
    names = [str(config.id2label[index]) for index in range(len(config.id2label))]
    space, order = _classes(names, values.get("data.label_space"), source)
    if label_space is not None:
        _check_classes(space, label_space, source)
    thresholds = {
        key.removeprefix("model.fusion."): value
        for key, value in values.items()
        if key.startswith("model.fusion.")
    }
    fusion = QueryFusion(space, QueryFusionSettings(**thresholds))
    shortest, longest = _sides(processor, source)
    shortest = values.get("data.shortest_side_pixels", shortest)
    longest = values.get("data.longest_side_pixels", longest)
    wrapped: Network = TransformersNet(
        network,
        order,
        fusion,
        _normalization(processor),
        square_pixels=_square(config, processor, source),
        task_tokens=_task_tokens(config, source, fusion.settings.task),
    )
    settings: dict[str, Any] = {
        "weights_sha256": _sha256(network),
        "overrides": sorted(overrides),
    }
    if views:
        wrapped = ViewedNet(wrapped, views)
        settings["views"] = described_views(views)
    _check_largest(wrapped, longest, source)
    return Predictor(
        wrapped,
        shortest_side_pixels=shortest,
        longest_side_pixels=longest,
        device=usable_device(device),
        batch_size=batch_size,
        amp=amp,
        settings=settings,
    )


def _parsed(overrides: Sequence[str]) -> dict[str, Any]:
    values = {}
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or key not in _OVERRIDES:
            raise ValueError(
                f"'{override}' does not change a network of Hugging Face; expected key=value with "
                f"one of the keys {', '.join(_OVERRIDES)}"
            )
        try:
            values[key] = _OVERRIDES[key](text)
        except ValueError as error:
            raise ValueError(f"'{key}' must be a number; got '{text}'") from error
    return values


def _load(source: str) -> tuple[nn.Module, Any, Any]:
    """The network, its image processor and its config."""
    try:
        import safetensors
        import transformers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{PREFIX}{source} needs transformers; install it: pip install "
            '"seamless_pr[transformers]"'
        ) from error
    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"{PREFIX}{source} is no folder with a saved network here, and no repository could be "
            f"read under this name ({first_line(error)}); check the spelling, or without internet "
            "give the folder of a downloaded one"
        ) from error
    if config.model_type not in FAMILIES:
        raise ValueError(
            f"{PREFIX}{source} is a {config.model_type}; networks that label by queries are "
            f"wanted: {', '.join(FAMILIES)}"
        )
    # A table of its classes, which is not in the repository and which nobody here reads.
    unused = {"class_info_file": None} if config.model_type == "oneformer" else {}
    try:
        network, found = transformers.AutoModelForUniversalSegmentation.from_pretrained(
            source, trust_remote_code=False, output_loading_info=True
        )
        processor = transformers.AutoImageProcessor.from_pretrained(
            source, trust_remote_code=False, **unused
        )
    except (OSError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{PREFIX}{source} has the config of a {config.model_type}, but its weights or its "
            f"image processor cannot be read ({reason}); get the whole repository again"
        ) from error
    _check_complete(network, found["missing_keys"], source)
    return network, processor, config


def _check_complete(network: nn.Module, missing: Iterable[str], source: str) -> None:
    """transformers draws at random what a file lacks, and says so in its log alone."""
    parameters = {name for name, _ in network.named_parameters()}
    lacking = sorted(
        name for name in parameters & set(missing) if not _UNREAD_PARAMETERS.fullmatch(name)
    )
    if lacking:
        raise ValueError(
            f"the weights of {PREFIX}{source} lack {len(lacking)} of the network's "
            f"{len(parameters)} parameters, first {', '.join(lacking[:3])}; give the weights of a "
            "whole segmentation network"
        )


def _classes(names: Sequence[str], wanted: str | None, source: str) -> tuple[LabelSpace, list[int]]:
    """The label space, and for each of its classes the place among the network's labels."""
    if wanted is not None and wanted.endswith(".json"):
        space, order = described_classes(wanted)
    else:
        name = wanted or _table_of(names)
        if name is None:
            raise ValueError(
                f"the {len(names)} labels of {PREFIX}{source} ({', '.join(names[:3])}, ...) are in "
                "no built-in table, so nobody knows which are things; name them in a COCO panoptic "
                "JSON, in this order: data.label_space=FILE.json"
            )
        space = load_label_space(name)
        order = official_order(space)
    if len(order) != len(names):
        raise ValueError(
            f"{PREFIX}{source} has {len(names)} labels, '{space.name}' has {len(order)} classes; "
            "give those that it was trained on"
        )
    return space, order


def _table_of(names: Sequence[str]) -> str | None:
    """The built-in table with these classes in this order; None if there is none."""
    for table in LABEL_SPACE_NAMES:
        known = [label.name for label in load_labels(table) if not label.is_ignored]
        same = sum(_plain(ours) == _plain(theirs) for ours, theirs in zip(known, names))
        if len(known) == len(names) and same >= _SAME_NAMES * len(known):
            return table
    return None


def _plain(name: str) -> str:
    """The first of several names, letters only: "Road, route" -> "road"."""
    return re.sub(r"[^a-z]", "", re.split(r"[,;]", name.lower())[0])


def _check_classes(space: LabelSpace, demanded: LabelSpace, source: str) -> None:
    meaning = {c.category_id: (c.name, c.is_thing) for c in space.categories}
    wanted = {c.category_id: (c.name, c.is_thing) for c in demanded.categories}
    if meaning != wanted:
        raise ValueError(
            f"{PREFIX}{source} knows the classes of '{space.name}', but those of '{demanded.name}' "
            "are wanted; give a network that was trained on them"
        )


def _sides(processor: Any, source: str) -> tuple[int, int | None]:
    size: Mapping[str, int] = dict(processor.size)
    if "shortest_edge" not in size:
        raise ValueError(
            f"{PREFIX}{source} resizes images to {dict(size)}; expected a shortest edge; images of "
            "another shape than the network's are not supported"
        )
    longest = size.get("longest_edge")
    return int(size["shortest_edge"]), None if longest is None else int(longest)


def _check_largest(network: Network, longest: int | None, source: str) -> None:
    largest = network.largest_side_pixels
    if largest is not None and (longest is None or longest > largest):
        allowed = "of any length" if longest is None else f"of {longest} pixels"
        raise ValueError(
            f"{PREFIX}{source} reads images of at most {largest} x {largest} pixels at the largest "
            f"scale of its views; got sides {allowed}; set data.longest_side_pixels to at most "
            f"{largest}"
        )


def _normalization(processor: Any) -> PixelNormalization:
    """Of RGB in [0, 1], whatever the processor's scale is."""
    scale = processor.rescale_factor if processor.do_rescale else 1.0
    mean, std = (0.0,) * 3, (1.0,) * 3
    if processor.do_normalize:
        mean, std = processor.image_mean, processor.image_std
    largest = 255 * scale
    return PixelNormalization([m / largest for m in mean], [s / largest for s in std])


def _square(config: Any, processor: Any, source: str) -> int | None:
    """EoMT has a position embedding for every patch of a square image."""
    if config.model_type != "eomt":
        return None
    if processor.do_split_image:
        raise ValueError(
            f"{PREFIX}{source} reads images in overlapping squares; give an EoMT that was trained "
            "for panoptic segmentation, which reads them whole"
        )
    side = config.image_size
    return int(side if isinstance(side, int) else max(side))


def _task_tokens(config: Any, source: str, task: str) -> Tensor | None:
    """What a OneFormer is told to do, as its own tokenizer writes it."""
    if config.model_type != "oneformer":
        return None
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    text = _TASK_TEXT.format("semantic" if task == "semantic" else "panoptic")
    tokens = tokenizer(
        [text],
        padding="max_length",
        max_length=config.task_seq_len,
        truncation=True,
        return_tensors="pt",
    )
    return tokens["input_ids"]


def _sha256(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
