"""Published weights of other programs become weights files of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_norm_act, outline_network
from seamless_pr.build.runs import run_metadata
from seamless_pr.config.networks import ABNSettings
from seamless_pr.config.schema import Config
from seamless_pr.datasets.label_spaces import load_label_space
from seamless_pr.models.backbones.timm_backbone import TimmBackbone
from seamless_pr.structures.kinds import Kinded
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.training.checkpoints import save_weights
from seamless_pr.weights.detectron2 import fit_zoo_weights, read_zoo_file
from seamless_pr.weights.detectron2_config import zoo_config_values
from seamless_pr.weights.imagenet import fit_backbone
from seamless_pr.weights.key_report import KeyReport
from seamless_pr.weights.maskformer import (
    LICENCE,
    described_classes,
    fit_maskformer_weights,
    official_order,
    original_names,
)
from seamless_pr.weights.maskformer_config import maskformer_config_values
from seamless_pr.weights.mmdetection import fit_mmdetection_weights
from seamless_pr.weights.mmdetection_config import config_values
from seamless_pr.weights.mmdetection_inputs import TheirInputs
from seamless_pr.weights.named_sources import reading
from seamless_pr.weights.tensor_files import (
    read_pickled,
    read_tensors,
    stored_config,
    tensors_of,
)

# Weights inside the folder of a Hugging Face repository, the safe form first.
REPOSITORY_FILES = ("model.safetensors", "pytorch_model.bin")

Weights = Mapping[str, Tensor]


def import_detectron2(source: Path, output: Path, overrides: Sequence[str] = ()) -> str:
    """Checkpoint of detectron2 -> weights file of this package.

    Args:
        source: .pkl of the model zoo, or .pth that detectron2 trained.
        output: .safetensors to write.
        overrides: changes of the imported config, as `model.instances.box.max_detections=300`.

    Returns:
        A report of all names.

    Raises:
        FileNotFoundError, ValueError: what is missing or does not fit.
    """
    with reading(source):
        tensors = read_zoo_file(source)
        config = _config(zoo_config_values(tensors), source, overrides)
        label_space = load_label_space(config.data.label_space)
        return _written(
            source, output, config, label_space, lambda ours: fit_zoo_weights(tensors, ours)
        )


def import_mmdetection(source: Path, output: Path, overrides: Sequence[str] = ()) -> str:
    """Checkpoint of mmdetection, versions 1 to 3 -> weights file; otherwise as above."""
    with reading(source):
        content = {} if source.suffix == ".safetensors" else read_pickled(source)
        tensors = tensors_of(content, source) if content else read_tensors(source)
        inputs = TheirInputs.told_by(stored_config(content))
        config = _config(config_values(tensors, inputs), source, overrides)
        label_space = load_label_space(config.data.label_space)

        def fit(ours: Weights) -> tuple[dict[str, Tensor], KeyReport]:
            return fit_mmdetection_weights(tensors, ours, reads_bgr=inputs.reads_bgr)

        return _written(source, output, config, label_space, fit)


def import_maskformer(
    source: Path,
    output: Path,
    overrides: Sequence[str] = (),
    *,
    task: str | None = None,
    categories: Path | None = None,
) -> str:
    """Published MaskFormer -> weights file; otherwise as above.

    Args:
        source: .pkl, .pth, .safetensors or .bin, or a folder with one of the last two.
        output, overrides: as above.
        task: "semantic", "panoptic" or "general"; None: that of the published network.
        categories: COCO panoptic JSON whose categories are those of the weights, in their order;
            None: the table with this number of classes.
    """
    with reading(source):
        tensors = original_names(_maskformer_tensors(source))
        name = None if categories is None else categories.stem
        values = maskformer_config_values(tensors, task=task, label_space=name)
        config = _config(values, source, overrides)
    if categories is None:
        label_space = load_label_space(config.data.label_space)
        order = official_order(label_space)
    else:
        with reading(categories):
            label_space, order = described_classes(categories)
    with reading(source):
        report = _written(
            source,
            output,
            config,
            label_space,
            lambda ours: fit_maskformer_weights(tensors, ours, order),
        )
    return f"{report}\n{LICENCE}"


def convert_backbone(source: Path, output: Path, name: str, allowed: Sequence[str] = ()) -> str:
    """ImageNet file of torchvision, timm or seamseg -> backbone weights under timm's names."""
    backbone = TimmBackbone(name, build_norm_act(ABNSettings()))
    state, report = fit_backbone(read_tensors(source), backbone.state_dict())
    report.check(str(source), allowed)
    save_weights(output, state, {"backbone": name, "source": source.name})
    return f"{source} -> {output}: {report.summary()}"


def _config(values: Mapping[str, Any], source: Path, overrides: Sequence[str]) -> Config:
    return config_from_dict(values, f"the config read off {source}", overrides)


def _written(
    source: Path,
    output: Path,
    config: Config,
    label_space: LabelSpace,
    fit: Callable[[Weights], tuple[dict[str, Tensor], KeyReport]],
) -> str:
    """Writes the weights that fit, if all do; returns the report."""
    state, report = fit(outline_network(config.model, label_space).state_dict())
    report.check(str(source))
    save_weights(output, state, run_metadata(config, label_space))
    parts = ", ".join([label_space.name, *_parts(config.model)])
    return f"{source} -> {output} ({parts}): {report.summary()}"


def _parts(model: Kinded) -> list[str]:
    """Kind, backbone and branches of a network, as far as it has them."""
    branches = [getattr(model, name, None) for name in ("instances", "semantics")]
    kinds = [branch.kind for branch in branches if isinstance(branch, Kinded)]
    return [model.kind, model.backbone.name, *kinds]  # type: ignore[attr-defined]


def _maskformer_tensors(source: Path) -> dict[str, Tensor]:
    """Names and tensors of a file of any of the published forms; no pickle runs."""
    if source.is_dir():
        found = [source / name for name in REPOSITORY_FILES if (source / name).is_file()]
        if not found:
            raise FileNotFoundError(
                f"{source} holds neither {' nor '.join(REPOSITORY_FILES)}; give the folder of a "
                "downloaded repository, or a weights file"
            )
        source = found[0]
    if source.suffix in (".pkl", ".pth"):
        return read_zoo_file(source)
    return read_tensors(source)
