"""Weights of mmdetection under our names: Mask R-CNN, Panoptic FPN, PointRend, HTC and SOLOv2,
versions 1 to 3.

Our networks keep the background class first in the class predictor, as version 1 does, and have no
background in mask heads other than the one that the 3D-FUTURE winner's point layers read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from torch import Tensor

from seamless_pr.weights.key_report import BATCH_COUNTER, KeyReport, fit_keys

_FIRST_LAYERS = ("trunk.backbone.conv1.weight", "trunk.backbone.conv1.0.weight")
_STEM = re.compile(r"stem\.(\d)\.")
# The last norm of a stem of three convolutions stands outside of it in the other layout.
_STEM_PARTS = {"7": "bn1."}
_BLOCK_PARTS = {
    ".context_block.conv_mask.": ".se.conv_mask.",
    ".context_block.channel_add_conv.": ".se.transform.",
}
_NON_LOCAL_PARTS = {"g": "g", "theta": "theta", "phi": "phi", "conv_out": "out"}
_RPN_PREDICTORS = {"rpn_cls": "objectness", "rpn_reg": "box_deltas"}
_BOX_PREDICTORS = {"fc_cls": "class_logits", "fc_reg": "box_deltas"}
_COARSE_PARTS = {
    "downsample_conv.conv": "reduce",
    "reduce_spatial_dim_conv.0": "reduce",
    "reduce_channel_dim_conv.0": "mix",
    "fc_logits": "prediction",
    "prediction": "prediction",
}
_SOLO_TOWERS = {"cls_convs": "category_tower", "kernel_convs": "kernel_tower"}
_SOLO_PREDICTORS = {"conv_cls": "category_logits", "conv_kernel": "kernels"}
# The released SOLOv2 of its authors, and the names of mmdetection for the same parts.
_RELEASED_SOLO = {
    "bbox_head.cate_convs.": "mask_head.cls_convs.",
    "bbox_head.kernel_convs.": "mask_head.kernel_convs.",
    "bbox_head.solo_cate.": "mask_head.conv_cls.",
    "bbox_head.solo_kernel.": "mask_head.conv_kernel.",
    "mask_feat_head.convs_all_levels.": "mask_head.mask_feature_head.convs_all_levels.",
    "mask_feat_head.conv_pred.0.": "mask_head.mask_feature_head.conv_pred.",
}


def our_backbone_name(name: str) -> str:
    """Our name, below the backbone, of a parameter of one of their ResNets.

    Res2Net's stem is `stem.*` in mmdetection 2.x and 3.x, and as ours in 1.x and the original.
    """
    if match := _STEM.match(name):
        return _STEM_PARTS.get(match[1], f"conv1.{match[1]}.") + name[match.end() :]
    for theirs, ours in _BLOCK_PARTS.items():
        name = name.replace(theirs, ours)
    return name


def _biased(layer: str, rest: str, norm: str = "norm") -> str:
    """Our convolutions carry no bias of their own; the layer behind them does."""
    return f"{norm}.bias" if rest == "bias" else f"{layer}.{rest}"


def _normed(prefix: str, rest: str) -> str:
    """A convolution with group norm: `conv.*` and `gn.*`, theirs; `conv.*` and `norm.*`, ours."""
    part, _, parameter = rest.partition(".")
    return f"{prefix}.{'norm' if part == 'gn' else part}.{parameter}"


def _neck(match: re.Match[str]) -> str:
    pyramid = "trunk.neck.pyramid" if match[1] else "trunk.neck"
    part = "lateral" if match[2] == "lateral" else "output"
    return f"{pyramid}.{part}.{match[3]}.{_biased('conv', match[4])}"


def _stage(heads: str, stage: str | None) -> str:
    """One of three heads of a cascade, or the only one."""
    return f"instances.{heads}s.{stage.rstrip('.')}" if stage else f"instances.{heads}"


def _box_fc(match: re.Match[str]) -> str:
    number = int(match[2]) + 1
    return f"{_stage('box_head', match[1])}.{_biased(f'fc{number}', match[3], f'norm{number}')}"


def _mask_part(stage: str | None) -> str:
    return f"instances.mask_heads.{stage.rstrip('.')}" if stage else "instances.masks.head"


# Panoptic FPN's; under the same name HTC of version 1 has the logits of its context.
_PANOPTIC_LAYERS, _TOP_LOGITS = "semantic_head.conv_upsample_layers.", "semantic_head.conv_logits."
_MASK_PREDICTOR = re.compile(r"instances\.(mask_heads\.\d|masks\.head|mask_iou_head)\.predictor\.")
_MASK_FEATURE = r"mask_head\.mask_feature_head\."
# In version 1 the heads stand at the top.
_HEADS = r"(?:roi_head\.)?"
_COARSE = r"(?:roi_head\.mask_head|point_rend_roihead\.mask_coarse_head)\."
_POINT = r"(?:roi_head\.point_head|point_rend_roihead\.mask_point_head)\."
_RULES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"backbone\.(.+)", lambda m: f"trunk.backbone.{our_backbone_name(m[1])}"),
    (r"neck\.(0\.)?(lateral|fpn)_convs\.(\d)\.conv\.(.+)", _neck),
    (
        r"neck\.1\.refine\.(\d\.)?(g|theta|phi|conv_out)\.conv\.(.+)",
        lambda m: f"trunk.neck.refine.{m[1] or ''}{_NON_LOCAL_PARTS[m[2]]}.{m[3]}",
    ),
    (r"rpn_head\.rpn_conv\.(.+)", lambda m: f"instances.rpn_head.{_biased('conv', m[1])}"),
    (
        r"rpn_head\.(rpn_cls|rpn_reg)\.(.+)",
        lambda m: f"instances.rpn_head.{_RPN_PREDICTORS[m[1]]}.{m[2]}",
    ),
    (rf"{_HEADS}bbox_head\.(\d\.)?shared_fcs\.(\d)\.(.+)", _box_fc),
    (
        rf"{_HEADS}bbox_head\.(\d\.)?(fc_cls|fc_reg)\.(.+)",
        lambda m: f"{_stage('box_head', m[1])}.{_BOX_PREDICTORS[m[2]]}.{m[3]}",
    ),
    (
        rf"{_HEADS}mask_head\.(\d\.)?convs\.(\d)\.conv\.(.+)",
        lambda m: f"{_mask_part(m[1])}.convs.{m[2]}.{_biased('conv', m[3])}",
    ),
    (
        rf"{_HEADS}mask_head\.(\d\.)?upsample\.(.+)",
        lambda m: f"{_mask_part(m[1])}.{_biased('upsample', m[2], 'upsample_norm')}",
    ),
    (
        rf"{_HEADS}mask_head\.(\d\.)?conv_logits\.(.+)",
        lambda m: f"{_mask_part(m[1])}.predictor.{m[2]}",
    ),
    (
        rf"{_HEADS}mask_head\.(\d\.)conv_res\.conv\.(.+)",
        lambda m: f"{_mask_part(m[1])}.carry.{_biased('conv', m[2])}",
    ),
    (
        rf"{_HEADS}mask_iou_head\.(convs|fcs)\.(\d)\.(.+)",
        lambda m: f"instances.mask_iou_head.{m[1]}.{m[2]}.{m[3]}",
    ),
    (
        rf"{_HEADS}mask_iou_head\.fc_mask_iou\.(.+)",
        lambda m: f"instances.mask_iou_head.predictor.{m[1]}",
    ),
    (
        rf"{_HEADS}semantic_head\.(lateral_convs|convs)\.(\d)\.conv\.(.+)",
        lambda m: f"instances.context.{m[1].removesuffix('_convs')}.{m[2]}.{_biased('conv', m[3])}",
    ),
    (
        rf"{_HEADS}semantic_head\.conv_embedding\.conv\.(.+)",
        lambda m: f"instances.context.embedding.{_biased('conv', m[1])}",
    ),
    (
        rf"{_HEADS}semantic_head\.conv_logits\.(.+)",
        lambda m: f"instances.context.predictor.{m[1]}",
    ),
    (
        rf"{re.escape(_PANOPTIC_LAYERS)}(\d)\.conv\.(\d)\.(.+)",
        lambda m: _normed(f"semantics.head.branches.{m[1]}.{m[2]}", m[3]),
    ),
    (
        rf"{_COARSE}({'|'.join(map(re.escape, _COARSE_PARTS))})\.(.+)",
        lambda m: f"instances.masks.coarse_head.{_COARSE_PARTS[m[1]]}.{m[2]}",
    ),
    (
        rf"{_COARSE}fcs\.(\d)\.(.+)",
        lambda m: f"instances.masks.coarse_head.fc{int(m[1]) + 1}.{m[2]}",
    ),
    (rf"{_COARSE}coarse_mask_(fc\d)\.(.+)", lambda m: f"instances.masks.coarse_head.{m[1]}.{m[2]}"),
    (
        rf"{_POINT}fcs\.(\d)\.conv\.(.+)",
        lambda m: f"instances.masks.point_head.layers.{m[1]}.{m[2]}",
    ),
    (
        rf"{_POINT}fc(\d)\.(.+)",
        lambda m: f"instances.masks.point_head.layers.{int(m[1]) - 1}.{m[2]}",
    ),
    (
        rf"{_POINT}(?:fc_logits|predictor)\.(.+)",
        lambda m: f"instances.masks.point_head.predictor.{m[1]}",
    ),
    (
        r"mask_head\.(cls_convs|kernel_convs)\.(\d)\.(.+)",
        lambda m: _normed(f"instances.head.{_SOLO_TOWERS[m[1]]}.{m[2]}", m[3]),
    ),
    (
        r"mask_head\.(conv_cls|conv_kernel)\.(.+)",
        lambda m: f"instances.head.{_SOLO_PREDICTORS[m[1]]}.{m[2]}",
    ),
    (
        rf"{_MASK_FEATURE}convs_all_levels\.(\d)\.conv(\d)\.(.+)",
        lambda m: _normed(f"instances.head.mask_feature.levels.{m[1]}.{m[2]}", m[3]),
    ),
    (
        rf"{_MASK_FEATURE}conv_pred\.(.+)",
        lambda m: _normed("instances.head.mask_feature.prediction", m[1]),
    ),
)


def our_name(name: str) -> str | None:
    """Our state_dict key of a parameter or buffer; None if there is no rule for it."""
    for theirs, mmdetection in _RELEASED_SOLO.items():
        if name.startswith(theirs):
            name = mmdetection + name.removeprefix(theirs)
    for pattern, rename in _RULES:
        if match := re.fullmatch(pattern, name):
            return rename(match)
    return None


def naming(names: Iterable[str]) -> Callable[[str], str | None]:
    """`our_name` for the names of one checkpoint."""
    if not any(name.startswith(_PANOPTIC_LAYERS) for name in names):
        return our_name

    def of_panoptic_fpn(name: str) -> str | None:
        if name.startswith(_TOP_LOGITS):
            return f"semantics.head.predictor.{name.removeprefix(_TOP_LOGITS)}"
        return our_name(name)

    return of_panoptic_fpn


def version(names: Mapping[str, Tensor]) -> int:
    """1, or 2 for all later versions: by the place of the box head, which both kinds have.

    SOLOv2 has none; its weights are the same in all versions.
    """
    return (
        1 if any(re.match(r"bbox_head\.(\d\.)?(fc_cls|shared_fcs)", name) for name in names) else 2
    )


def our_tensor(our_key: str, tensor: Tensor, source_version: int) -> Tensor:
    """The values of a parameter in our order and shape.

    Args:
        our_key: what `our_name` returned.
        tensor: their values.
        source_version: 1 or 2, as `version` returns it.
    """
    if our_key.startswith("instances.masks.point_head.") and tensor.ndim == 3:
        return tensor.squeeze(2)
    is_first = source_version == 1
    if ".class_logits." in our_key:
        return tensor if is_first else tensor.roll(1, 0)
    # Version 1 has a box and a mask of the background, which nothing trains or reads.
    if is_first and ".box_deltas." in our_key and "rpn_head" not in our_key:
        return tensor if len(tensor) == 4 else tensor[4:]
    if is_first and re.match(
        r"instances\.(mask_heads|masks\.head|mask_iou_head)\b.*\.predictor\.", our_key
    ):
        return tensor[1:]
    return tensor


def fit_mmdetection_weights(
    tensors: Mapping[str, Tensor], network: Mapping[str, Tensor], *, reads_bgr: bool = False
) -> tuple[dict[str, Tensor], KeyReport]:
    """Weights of a checkpoint of mmdetection, or of SOLOv2's authors, for one of our networks.

    Half-precision weights become float32.

    Args:
        tensors: names and tensors of the file.
        network: `state_dict` of the network.
        reads_bgr: the first convolution sees blue first; ours sees red first.

    Returns:
        A complete state dict, and the report, to be checked by the caller.
    """
    counts_batches = any(name.endswith(BATCH_COUNTER) for name in network)
    weights = {
        name: tensor.float() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
        if counts_batches or not name.endswith(BATCH_COUNTER)
    }
    source_version = version(weights)

    def our_values(key: str, tensor: Tensor) -> Tensor:
        if reads_bgr and key in _FIRST_LAYERS:
            return tensor.flip(1)
        return our_tensor(key, tensor, source_version)

    return fit_keys(weights, network, naming(weights), our_values)
