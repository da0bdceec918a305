"""Our datasets and networks in detectron2, for its evaluators, its predictor and its visualiser.

detectron2 is on no package index and never needed by the rest of the package; it is imported where
a function of this module needs it.

    predictor = DefaultPredictor(predictor_config("model.safetensors"))
    id_map, segments_info = predictor(cv2.imread("street.jpg"))["panoptic_seg"]
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seamless_pr.build.predictor import load_predictor
from seamless_pr.datasets.class_readings import contradictions
from seamless_pr.datasets.coco_panoptic import find_png_folder, find_pngs, read_panoptic_json
from seamless_pr.inference.predictor import Predictor
from seamless_pr.integrations.detectron2_files import (
    instances_file,
    semantic_folder,
    write_evaluator_files,
)
from seamless_pr.integrations.detectron2_records import (
    ContiguousIds,
    InstanceFields,
    dataset_records,
    image_batch,
    instance_fields,
    output_sizes,
    panoptic_record,
    semantic_record,
)
from seamless_pr.models.networks.two_branch import FusedNetwork
from seamless_pr.structures.faults import Fault, FaultyDataError
from seamless_pr.structures.label_space import LabelSpace


def register_panoptic_dataset(
    name: str,
    panoptic_json: str | os.PathLike[str],
    image_dir: str | os.PathLike[str],
    png_dir: str | os.PathLike[str] | None = None,
    *,
    label_space: LabelSpace | None = None,
    merged_things: bool = False,
    evaluator_files: str | os.PathLike[str] | None = None,
) -> None:
    """Makes a COCO panoptic dataset known to detectron2's DatasetCatalog and MetadataCatalog.

    The records are those of detectron2's "standard" panoptic datasets. COCOPanopticEvaluator works
    on them as they are; COCOEvaluator and SemSegEvaluator read other files, which are written on
    request.

    Args:
        name: a new name.
        panoptic_json: ground truth in COCO's panoptic format.
        image_dir: folder of its images.
        png_dir: folder of its id PNGs; None: found beside the JSON.
        label_space: classes; None: the JSON's own. Give the network's, so that both count alike.
        merged_things: for networks whose semantic branch has one output for all things.
        evaluator_files: folder for the instances (COCO's format) and the semantic PNGs of the
            dataset; written there unless it holds them; None: none.

    Raises:
        ValueError: the name is taken, the JSON is faulty or names PNGs out of their folder, or its
            categories are not exactly the classes of the label space, by number, name and kind.
    """
    from detectron2.data import DatasetCatalog, MetadataCatalog

    json_path, image_dir = Path(panoptic_json), Path(image_dir)
    if name in DatasetCatalog.list():
        raise ValueError(f"detectron2 knows a dataset '{name}' already; choose another name")
    dataset = read_panoptic_json(json_path)
    if png_dir is None:
        names = (annotation.file_name for annotation in dataset.annotations)
        png_dir = find_png_folder(json_path, names)
    png_dir = Path(png_dir)
    _, faults = find_pngs(dataset.annotations, png_dir, json_path)
    own_space = dataset.label_space(json_path.stem)
    if label_space is None:
        label_space = own_space
    own, wanted = own_space.train_id_of.keys(), label_space.train_id_of.keys()
    if own != wanted:
        raise ValueError(
            f"categories {sorted(own - wanted)[:10]} of {json_path} are not among those of "
            f"'{label_space.name}', and {sorted(wanted - own)[:10]} the other way round; "
            "official evaluators need the same classes on both sides: complete the JSON's "
            "'categories', or give no label space"
        )
    found = contradictions(
        own_space.categories, label_space.categories, f"the label space '{label_space.name}'"
    )
    faults += [Fault(str(json_path), message) for message in found]
    if faults:
        raise FaultyDataError(f"{json_path} cannot be registered", faults)
    ids = ContiguousIds(label_space, merged_things)
    metadata: dict[str, Any] = {
        **ids.metadata(),
        "panoptic_json": str(json_path),
        "panoptic_root": str(png_dir),
        "image_root": str(image_dir),
        "evaluator_type": "coco_panoptic_seg",
    }
    folder = None
    if evaluator_files is not None:
        folder = Path(evaluator_files)
        write_evaluator_files(dataset, png_dir, ids, folder)
        metadata["json_file"] = str(instances_file(folder))
        metadata["sem_seg_root"] = str(semantic_folder(folder))
    semantic_dir = None if folder is None else semantic_folder(folder)
    DatasetCatalog.register(
        name, partial(dataset_records, dataset, image_dir, png_dir, ids, semantic_dir)
    )
    MetadataCatalog.get(name).set(**metadata)


def register_meta_architecture() -> None:
    """Makes `seamless_pr_network` known to detectron2 by that name; may be called again."""
    from detectron2.modeling import META_ARCH_REGISTRY

    if seamless_pr_network.__name__ not in META_ARCH_REGISTRY:
        META_ARCH_REGISTRY.register(seamless_pr_network)


def seamless_pr_network(cfg: Any) -> SeamlessMetaArch:
    """What detectron2's build_model calls, with a config of `predictor_config`."""
    node = cfg.MODEL.get("SEAMLESS_PR")
    if node is None or not node.WEIGHTS:
        raise ValueError(
            "cfg.MODEL.SEAMLESS_PR.WEIGHTS names no weights file; make the config with "
            "predictor_config"
        )
    predictor = load_predictor(node.WEIGHTS, cfg.MODEL.DEVICE, overrides=node.OVERRIDES)
    return _meta_arch(predictor, cfg.INPUT.FORMAT)


def _meta_arch(predictor: Predictor, input_format: str) -> SeamlessMetaArch:
    network = predictor.network
    if not isinstance(network, FusedNetwork):
        raise ValueError(
            f"detectron2 gets networks with two branches; {type(network).__name__} has none"
        )
    return SeamlessMetaArch(network, input_format)


def _check_classes(dataset: str, ids: ContiguousIds) -> None:
    """A dataset may be registered with classes in another order: all scores would be wrong."""
    from detectron2.data import MetadataCatalog

    metadata, expected = MetadataCatalog.get(dataset), ids.metadata()
    keys = (
        "thing_dataset_id_to_contiguous_id",
        "stuff_dataset_id_to_contiguous_id",
        "thing_classes",
        "stuff_classes",
    )
    if wrong := [key for key in keys if metadata.get(key) != expected[key]]:
        raise ValueError(
            f"the dataset '{dataset}' numbers or names its classes otherwise than the network "
            f"({', '.join(wrong)}); register it with label_space='{ids.label_space.name}' (the "
            f"network's) and merged_things={ids.merged_things}"
        )


def predictor_config(
    weights: str | os.PathLike[str],
    dataset: str | None = None,
    *,
    device: str = "cpu",
    overrides: Sequence[str] = (),
) -> Any:
    """A detectron2 config that builds our network and resizes images as it wants them.

    Args:
        weights: as for `load_predictor`. MODEL.WEIGHTS stays empty: the network loads its own.
        dataset: name of a registered dataset, for DATASETS.TEST.
        device: a torch device.
        overrides: changes of the stored config, as `model.fusion.score_threshold=0.4`.

    Returns:
        A CfgNode for DefaultPredictor, build_model or build_detection_test_loader.

    Raises:
        ValueError: the dataset numbers its classes otherwise than the network.
    """
    from detectron2.config import CfgNode, get_cfg

    register_meta_architecture()
    predictor = load_predictor(Path(weights), "cpu", overrides=overrides)
    if dataset is not None:
        _check_classes(dataset, _meta_arch(predictor, "RGB").ids)
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = seamless_pr_network.__name__
    cfg.MODEL.WEIGHTS = ""
    cfg.MODEL.DEVICE = device
    cfg.MODEL.SEAMLESS_PR = CfgNode({"WEIGHTS": str(weights), "OVERRIDES": list(overrides)})
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MIN_SIZE_TEST = predictor.shortest_side_pixels
    # 0 means no resizing in detectron2, so no cap is a cap that nothing reaches.
    cfg.INPUT.MAX_SIZE_TEST = predictor.longest_side_pixels or 2**20
    cfg.DATASETS.TEST = () if dataset is None else (dataset,)
    return cfg


class SeamlessMetaArch(nn.Module):
    """Our network behind detectron2's interface of models, for inference.

    forward: a list of records with "image" ([3, h, w], 0..255, at network size) and optionally
    "height" and "width" of the result -> one dict an image:

    * "panoptic_seg": ([H, W] int32 map, segments_info),
    * "instances": Instances with pred_boxes, scores, pred_classes and pred_masks,
    * "sem_seg": [K, H, W] logits;

    the latter two where the network has the branch. Class numbers are those of `ids`.

    Args:
        network: a trained network.
        input_format: order of the channels of "image", "BGR" or "RGB".
    """

    _device: Tensor

    def __init__(self, network: FusedNetwork, input_format: str = "BGR") -> None:
        super().__init__()
        self.network = network
        self.input_format = input_format
        self.ids = ContiguousIds(network.label_space, network.merged_things)
        self.register_buffer("_device", torch.zeros(0), persistent=False)

    @property
    def device(self) -> torch.device:
        return self._device.device

    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        if self.training:
            raise ValueError(
                "the network is in training mode; call eval() first, and train it with "
                "pipelines/train.py: detectron2's training loop is not supported"
            )
        return self.inference(batched_inputs)

    @torch.no_grad()
    def inference(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """As `forward`, in whatever mode."""
        batch = image_batch(batched_inputs, self.input_format).to(self.device)
        sizes = output_sizes(batched_inputs, batch)
        outputs = self.network.outputs(batch)
        logits = outputs.semantic_logits
        settings = self.network.fusion.settings
        results = []
        for index, prediction in enumerate(self.network.finish(outputs, sizes)):
            panoptic = panoptic_record(prediction.require_panoptic(), self.ids)
            result: dict[str, Any] = {"panoptic_seg": panoptic}
            if prediction.instances is not None:
                fields = instance_fields(prediction.instances, sizes[index], settings)
                result["instances"] = _instances(fields, sizes[index])
            if logits is not None:
                result["sem_seg"] = semantic_record(
                    logits[index],
                    outputs.batch.padded_size,
                    outputs.batch.image_sizes[index],
                    sizes[index],
                    self.ids,
                )
            results.append(result)
        return results


def _instances(fields: InstanceFields, image_size: tuple[int, int]) -> Any:
    from detectron2.structures import Boxes, Instances

    return Instances(
        image_size,
        pred_boxes=Boxes(fields.boxes),
        scores=fields.scores,
        pred_classes=fields.classes,
        pred_masks=fields.masks,
    )
