"""Published MaskFormer weights under our names: the original's files and those of Hugging Face.

Both are brought to the original's own names first, with "pixel_decoder." in the names of the pixel
decoder; then to ours. Classes change from the order of their dataset to stuff first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from seamless_pr.datasets.label_spaces import label_space_from_categories, load_labels
from seamless_pr.input_files import read_json
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.weights.key_report import KeyReport, fit_keys

LICENCE = (
    "The published MaskFormer weights are licensed CC BY-NC 4.0: no commercial use, name the "
    "authors (https://github.com/facebookresearch/MaskFormer)."
)

KINDS = ("maskformer", "per_pixel", "per_pixel_query")

_HEAD = "sem_seg_head."
_PIXELS = f"{_HEAD}pixel_decoder."
_PREDICTOR = f"{_HEAD}predictor."
# Kept beside the weights, and computed anew here.
_CONSTANTS = re.compile(
    r"criterion\.empty_weight|pixel_(?:mean|std)|.*\.relative_position_index|"
    r".*\.num_batches_tracked|.*\.attn_mask"
)

Rule = tuple[str, Callable[[re.Match[str]], str]]


def _block_part(name: str) -> str:
    """conv1.norm. -> bn1., shortcut. -> downsample.0., ..."""
    if name.startswith("shortcut"):
        return "downsample.1." if "norm" in name else "downsample.0."
    return f"bn{name[4]}." if "norm" in name else f"conv{name[4]}."


_STEM: tuple[Rule, ...] = (
    (r"backbone\.stem\.conv1\.norm\.", lambda match: "trunk.backbone.bn1."),
    (r"backbone\.stem\.conv1\.", lambda match: "trunk.backbone.conv1."),
)
# timm's stem of three convolutions is a sequence whose last norm stands outside.
_DEEP_STEM: tuple[Rule, ...] = (
    (r"backbone\.stem\.conv3\.norm\.", lambda match: "trunk.backbone.bn1."),
    (
        r"backbone\.stem\.conv([12])\.norm\.",
        lambda match: f"trunk.backbone.conv1.{3 * int(match[1]) - 2}.",
    ),
    (
        r"backbone\.stem\.conv([123])\.",
        lambda match: f"trunk.backbone.conv1.{3 * int(match[1]) - 3}.",
    ),
)
_RULES: tuple[Rule, ...] = (
    (
        r"backbone\.res([2-5])\.(\d+)\.((?:shortcut|conv[1-3])\.(?:norm\.)?)",
        lambda match: f"trunk.backbone.layer{int(match[1]) - 1}.{match[2]}.{_block_part(match[3])}",
    ),
    (r"backbone\.(?=patch_embed\.|layers\.|norm\d\.)", lambda match: "trunk.backbone."),
    (
        rf"{re.escape(_PIXELS)}(adapter|layer)_(\d)\.(norm\.)?",
        lambda match: (
            f"pixel_decoder.{'lateral' if match[1] == 'adapter' else 'output'}."
            f"{int(match[2]) - 1}.{match[3] or 'conv.'}"
        ),
    ),
    (rf"{re.escape(_PIXELS)}(mask_features|input_proj)\.", lambda m: f"pixel_decoder.{m[1]}."),
    (rf"{re.escape(_PIXELS)}transformer\.encoder\.", lambda match: "pixel_decoder.encoder."),
)
_QUERY_RULES: tuple[Rule, ...] = (
    (
        rf"{re.escape(_PREDICTOR)}transformer\.(encoder|decoder)\.",
        lambda m: f"query_decoder.{m[1]}.",
    ),
    (rf"{re.escape(_PREDICTOR)}(query_embed|input_proj)\.", lambda m: f"query_decoder.{m[1]}."),
    (rf"{re.escape(_PREDICTOR)}(class_embed|mask_embed)\.", lambda match: f"{match[1]}."),
)
_CONV_RULES: tuple[Rule, ...] = ((re.escape(_PREDICTOR), lambda match: "head.predictor."),)


def original_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file of the original code or of Hugging Face, in the original's new layout.

    Files published by the authors lack "pixel_decoder." in the names of the pixel decoder; those
    that their released code trains have it. Constants are left out.
    """
    if any(name.startswith("model.pixel_level_module.") for name in tensors):
        return _from_hugging_face(tensors)
    renamed = {}
    for name, tensor in tensors.items():
        if _CONSTANTS.fullmatch(name):
            continue
        if name.startswith(_HEAD) and not name.startswith((_PIXELS, _PREDICTOR)):
            name = _PIXELS + name.removeprefix(_HEAD)
        renamed[name] = tensor
    return renamed


def weights_kind(tensors: Mapping[str, Tensor]) -> str:
    """Which of `KINDS` the weights belong to; names as `original_names` gives them.

    Raises:
        ValueError: none of them.
    """
    if f"{_PREDICTOR}class_embed.weight" in tensors:
        return "maskformer"
    if f"{_PREDICTOR}query_embed.weight" in tensors:
        return "per_pixel_query"
    if f"{_PREDICTOR}weight" in tensors:
        return "per_pixel"
    raise ValueError(
        f"no predictor of MaskFormer or of a per-pixel baseline among {len(tensors)} tensors; "
        f"expected {_PREDICTOR}class_embed.weight, {_PREDICTOR}query_embed.weight or "
        f"{_PREDICTOR}weight"
    )


def fit_maskformer_weights(
    tensors: Mapping[str, Tensor], network: Mapping[str, Tensor], class_order: Sequence[int]
) -> tuple[dict[str, Tensor], KeyReport]:
    """Published weights for one of our networks.

    Args:
        tensors: of the file.
        network: `state_dict` of the network.
        class_order: for each of our classes its place in the file; see `official_order`.

    Returns:
        A complete state dict, and the report, to be checked by the caller.

    Raises:
        ValueError: other weights, or another number of classes.
    """
    original = original_names(tensors)
    kind = weights_kind(original)
    prefix = "" if kind == "maskformer" else "head."
    rules = _trunk_rules(original) + (_CONV_RULES if kind == "per_pixel" else _QUERY_RULES)

    def rename(name: str) -> str | None:
        ours = _renamed(name, rules)
        is_head = ours is not None and not ours.startswith(("trunk.", "pixel_decoder.", prefix))
        return f"{prefix}{ours}" if is_head else ours

    class_layer = _class_layer(kind)
    num_classes = len(original[class_layer]) - (kind == "maskformer")
    if num_classes != len(class_order):
        raise ValueError(
            f"the weights have {num_classes} classes, the label space has {len(class_order)}; "
            "give the label space that they were trained with"
        )
    order = torch.tensor(class_order)

    def convert(name: str, tensor: Tensor) -> Tensor:
        if kind == "maskformer" and name.startswith("class_embed."):
            return torch.cat([tensor[:-1][order], tensor[-1:]])
        is_ordered = name.startswith(("head.predictor.", "head.query_decoder.query_embed."))
        return tensor[order] if is_ordered else tensor

    return fit_keys(original, network, rename, convert)


def fit_backbone_weights(
    tensors: Mapping[str, Tensor], network: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], KeyReport]:
    """`fit_maskformer_weights` for weights of a backbone alone, under the original's names."""
    rules = _trunk_rules(tensors)
    weights = {name: t for name, t in tensors.items() if not _CONSTANTS.fullmatch(name)}
    return fit_keys(weights, network, lambda name: _renamed(name, rules))


def _trunk_rules(tensors: Mapping[str, Tensor]) -> tuple[Rule, ...]:
    return (*(_DEEP_STEM if "backbone.stem.conv3.weight" in tensors else _STEM), *_RULES)


def official_order(label_space: LabelSpace) -> list[int]:
    """For each train id the place of its class among the evaluated ones of the dataset's own table.

    Raises:
        ValueError: no built-in label space.
    """
    official = [label.label_id for label in load_labels(label_space.name) if not label.is_ignored]
    places = {label_id: place for place, label_id in enumerate(official)}
    return [places[category.category_id] for category in label_space.categories]


def described_classes(path: str | Path) -> tuple[LabelSpace, list[int]]:
    """Classes that a file names in the order of the weights.

    Args:
        path: JSON with `categories` as in the COCO panoptic format; what else it holds is not read.

    Returns:
        The label space, and for each of its classes the place among those of the file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no JSON, or faulty categories.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"file of categories {path} does not exist")
    try:
        categories = read_json(path)["categories"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} must be a JSON object with 'categories', as a COCO panoptic JSON; got "
            f"{type(error).__name__}: {error}"
        ) from error
    space = label_space_from_categories(categories, path.stem)
    listed = [category["id"] for category in categories]
    return space, [listed.index(category.category_id) for category in space.categories]


def _class_layer(kind: str) -> str:
    layers = {"maskformer": "class_embed.weight", "per_pixel_query": "query_embed.weight"}
    return _PREDICTOR + layers.get(kind, "weight")


def _renamed(name: str, rules: Sequence[Rule]) -> str | None:
    for pattern, rename in rules:
        match = re.match(pattern, name)
        if match is not None:
            return rename(match) + name[match.end() :]
    return None


# Hugging Face

_P = r"model\.pixel_level_module\."
_T = r"model\.transformer_module\."
_LAYER = rf"{_T}decoder\.layers\.(\d+)\."
_OUR_LAYER = f"{_PREDICTOR}transformer.decoder.layers"
_ATTENTIONS = {"self_attn": "self_attn", "encoder_attn": "multihead_attn"}
_LAYER_NORMS = {
    "self_attn_layer_norm": "norm1",
    "encoder_attn_layer_norm": "norm2",
    "final_layer_norm": "norm3",
}
_SWIN_PARTS = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_SWIN_BLOCK = rf"{_P}encoder\.model\.encoder\.layers\.(\d+)\."
_QKV = {"q": 0, "query": 0, "k": 1, "key": 1, "v": 2, "value": 2}
_HF_RULES: tuple[Rule, ...] = (
    (
        rf"{_P}encoder\.embedder\.embedder\.(convolution|normalization)\.",
        lambda match: f"backbone.stem.conv1.{_norm(match[1])}",
    ),
    (
        rf"{_P}encoder\.encoder\.stages\.(\d)\.layers\.(\d+)\.layer\.(\d)\."
        r"(convolution|normalization)\.",
        lambda match: (
            f"backbone.res{int(match[1]) + 2}.{match[2]}.conv{int(match[3]) + 1}.{_norm(match[4])}"
        ),
    ),
    (
        rf"{_P}encoder\.encoder\.stages\.(\d)\.layers\.(\d+)\.shortcut\."
        r"(convolution|normalization)\.",
        lambda m: f"backbone.res{int(m[1]) + 2}.{m[2]}.shortcut.{_norm(m[3])}",
    ),
    (
        rf"{_P}encoder\.model\.embeddings\.patch_embeddings\.projection\.",
        lambda match: "backbone.patch_embed.proj.",
    ),
    (rf"{_P}encoder\.model\.embeddings\.norm\.", lambda match: "backbone.patch_embed.norm."),
    (
        rf"{_SWIN_BLOCK}blocks\.(\d+)\.({'|'.join(map(re.escape, _SWIN_PARTS))})\.",
        lambda m: f"backbone.layers.{m[1]}.blocks.{m[2]}.{_SWIN_PARTS[m[3]]}.",
    ),
    (
        rf"{_SWIN_BLOCK}blocks\.(\d+)\.attention\.self\.(?=relative_position)",
        lambda match: f"backbone.layers.{match[1]}.blocks.{match[2]}.attn.",
    ),
    (
        rf"{_SWIN_BLOCK}downsample\.",
        lambda match: f"backbone.layers.{match[1]}.downsample.",
    ),
    (rf"{_P}encoder\.hidden_states_norms\.(\d)\.", lambda match: f"backbone.norm{match[1]}."),
    (rf"{_P}decoder\.fpn\.stem\.(\d)\.", lambda m: f"{_PIXELS}layer_4.{_norm(m[1])}"),
    (
        rf"{_P}decoder\.fpn\.layers\.(\d)\.(proj|block)\.(\d)\.",
        lambda match: (
            f"{_PIXELS}{'adapter' if match[2] == 'proj' else 'layer'}_{3 - int(match[1])}."
            f"{_norm(match[3])}"
        ),
    ),
    (rf"{_P}decoder\.mask_projection\.", lambda match: f"{_PIXELS}mask_features."),
    (rf"{_T}queries_embedder\.", lambda match: f"{_PREDICTOR}query_embed."),
    (rf"{_T}input_projection\.", lambda match: f"{_PREDICTOR}input_proj."),
    (
        rf"{_LAYER}(self_attn|encoder_attn)\.(?:out_proj|o_proj)\.",
        lambda match: f"{_OUR_LAYER}.{match[1]}.{_ATTENTIONS[match[2]]}.out_proj.",
    ),
    (
        rf"{_LAYER}(?:mlp\.)?fc([12])\.",
        lambda match: f"{_OUR_LAYER}.{match[1]}.linear{match[2]}.",
    ),
    (
        rf"{_LAYER}({'|'.join(_LAYER_NORMS)})\.",
        lambda match: f"{_OUR_LAYER}.{match[1]}.{_LAYER_NORMS[match[2]]}.",
    ),
    (rf"{_T}decoder\.layernorm\.", lambda match: f"{_PREDICTOR}transformer.decoder.norm."),
    (r"class_predictor\.", lambda match: f"{_PREDICTOR}class_embed."),
    (r"mask_embedder\.(\d)\.0\.", lambda match: f"{_PREDICTOR}mask_embed.layers.{match[1]}."),
)
# Queries, keys and values are one matrix in the original, three here.
_HF_THIRDS: tuple[Rule, ...] = (
    (
        rf"{_LAYER}(self_attn|encoder_attn)\.(?P<third>[qkv])_proj\.(?=weight|bias)",
        lambda match: f"{_OUR_LAYER}.{match[1]}.{_ATTENTIONS[match[2]]}.in_proj_",
    ),
    (
        rf"{_SWIN_BLOCK}blocks\.(\d+)\.attention\.self\.(?P<third>query|key|value)\.",
        lambda match: f"backbone.layers.{match[1]}.blocks.{match[2]}.attn.qkv.",
    ),
)
# A norm of whole Swin networks that MaskFormer does not read.
_HF_UNUSED = re.compile(rf"{_P}encoder\.model\.layernorm\..*|.*\.relative_position_index")


def _norm(part: str) -> str:
    """Convolution and norm of a pair: "convolution" or place 0 -> "", else "norm."."""
    return "norm." if part in ("normalization", "1") else ""


def _from_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed: dict[str, Tensor] = {}
    thirds: dict[str, dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        if _CONSTANTS.fullmatch(name) or _HF_UNUSED.fullmatch(name):
            continue
        for pattern, rename in _HF_THIRDS:
            if match := re.match(pattern, name):
                whole = rename(match) + name[match.end() :]
                thirds.setdefault(whole, {})[_QKV[match["third"]]] = tensor
                break
        else:
            # A name without a rule stays, so that the report of all names shows it.
            renamed[_renamed(name, _HF_RULES) or name] = tensor
    for whole, parts in thirds.items():
        if len(parts) != 3:
            raise ValueError(
                f"'{whole}' needs queries, keys and values; the file has {len(parts)} of the three"
            )
        renamed[whole] = torch.cat([parts[index] for index in range(3)])
    return renamed
