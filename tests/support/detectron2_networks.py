"""detectron2's own networks with seeded weights, those of the golden cases among them."""

from __future__ import annotations

from typing import Any

from tests.support.zoo_networks import zoo_tensor

_FPN_LEVELS = ["p2", "p3", "p4", "p5"]


NETWORKS = (
    "instance_cityscapes",
    "instance_coco",
    "instance_coco_x101",
    "mask_rcnn_coco",
    "semantic_cityscapes",
    "semantic_fpn_cityscapes",
    "panoptic_fpn_coco",
)


def detectron2_config(network: str) -> Any:
    """The released configuration of one of `NETWORKS`, on the CPU."""
    from detectron2.config import get_cfg
    from detectron2.projects.point_rend import add_pointrend_config

    cfg = get_cfg()
    add_pointrend_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    if network.startswith("semantic"):
        _semantic(cfg)
        if network == "semantic_cityscapes":
            _semantic_point_rend(cfg)
    else:
        _instances(cfg)
    if network == "panoptic_fpn_coco":
        cfg.MODEL.META_ARCHITECTURE = "PanopticFPN"
    elif network.startswith("instance"):
        _point_rend(cfg, num_things=8 if network == "instance_cityscapes" else 80)
    if network == "instance_coco_x101":
        _resnext_101(cfg)
    return cfg


def _resnext_101(cfg: Any) -> None:
    cfg.MODEL.RESNETS.DEPTH = 101
    cfg.MODEL.RESNETS.NUM_GROUPS = 32
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 8
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.PIXEL_STD = [57.375, 57.120, 58.395]


def _instances(cfg: Any) -> None:
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.RPN.IN_FEATURES = [*_FPN_LEVELS, "p6"]
    cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 1000
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = _FPN_LEVELS
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 2
    cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 7
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MaskRCNNConvUpsampleHead"
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 4
    cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION = 14


def _point_rend(cfg: Any, num_things: int) -> None:
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.POINT_HEAD.NUM_CLASSES = num_things
    cfg.MODEL.ROI_MASK_HEAD.NAME = "PointRendMaskHead"
    cfg.MODEL.ROI_MASK_HEAD.POOLER_TYPE = ""
    cfg.MODEL.ROI_MASK_HEAD.POINT_HEAD_ON = True


def _semantic(cfg: Any) -> None:
    cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
    cfg.MODEL.RESNETS.DEPTH = 101
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 19


def _semantic_point_rend(cfg: Any) -> None:
    cfg.MODEL.SEM_SEG_HEAD.NAME = "PointRendSemSegHead"
    cfg.MODEL.POINT_HEAD.NUM_CLASSES = 19
    cfg.MODEL.POINT_HEAD.SUBDIVISION_STEPS = 2
    cfg.MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS = 8192
    cfg.MODEL.POINT_HEAD.COARSE_PRED_EACH_LAYER = False


def detectron2_network(seed: int, network: str) -> Any:
    """The network itself, in evaluation mode; where there is a golden case, with its weights."""
    from detectron2.modeling import build_model

    model = build_model(detectron2_config(network)).eval()
    model.load_state_dict(
        {
            name: zoo_tensor(seed, name, tuple(tensor.shape))
            for name, tensor in model.state_dict().items()
        }
    )
    return model
