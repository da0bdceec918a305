"""Converts published weights into files of this package, and back.

examples:
  # the released Vistas checkpoint: a folder with the unpacked .tar, config.ini and metadata.bin
  python tools/convert_weights.py from-seamseg downloads/vistas seamless_vistas.safetensors

  # label images with it
  python pipelines/predict.py --weights seamless_vistas.safetensors --images DIR --output DIR

  # its trunk for other classes: the layers that depend on the classes keep their random start
  python tools/convert_weights.py from-seamseg vistas.tar start.safetensors \\
      --label-space cityscapes --config configs/cityscapes/seamless_r50.yaml \\
      --allow "rpn_head.*" "roi_head.*" "sem_head.conv_sem.*" "body.fpn.extra.*"

  # weights trained here, for the released code
  python tools/convert_weights.py to-seamseg runs/cityscapes/seamless_r50 seamless_r50.tar

  # PointRend R50 of detectron2 on Cityscapes
  python tools/convert_weights.py from-detectron2 model_final.pkl pointrend_cityscapes.safetensors

  # one of the 3D-FUTURE winner's models: half precision, names and numerics of mmdetection 1
  python tools/convert_weights.py from-mmdetection epoch_44.pth winner.safetensors

  # MaskFormer of its authors; of Hugging Face, a repository's folder
  python tools/convert_weights.py from-maskformer model_final_6f60dc.pkl maskformer.safetensors
  python tools/convert_weights.py from-maskformer maskformer-swin-tiny-ade ade.safetensors

  # a weights file, run or YAML config of version 0.1 of this package
  python tools/convert_weights.py update runs/old/checkpoints/best.safetensors new.safetensors

  # does an ImageNet file fit a backbone? (training reads it directly: model.backbone.weights)
  python tools/convert_weights.py backbone resnet50.pth resnet50.safetensors --name resnet50

`COMMAND --help` says which networks it takes. Every name of both sides is accounted for; anything
but a complete match is an error that lists all names, unless --allow names them. Nothing in a file
is executed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

# Run from a clone, from any folder: the package beside this script needs no installation.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from seamless_pr.build.published_weights import (
    convert_backbone,
    import_detectron2,
    import_maskformer,
    import_mmdetection,
)
from seamless_pr.build.released_weights import export_snapshot, import_snapshot
from seamless_pr.build.updates import update_config, update_weights
from seamless_pr.datasets.label_spaces import LABEL_SPACE_NAMES
from seamless_pr.pipelines.stage import Stage
from seamless_pr.structures.faults import spelled

TASKS = ("semantic", "panoptic", "general")

DETECTRON2 = """PointRend and plain Mask R-CNN (R50, R101, X101-32x8d, FPN; COCO or Cityscapes),
SemanticFPN with and without PointRend (Cityscapes), Panoptic FPN and Implicit PointRend (COCO). The
configuration is read off the weights: nothing is asked about pixel order, strides or class order.
"""
MMDETECTION = """Mask R-CNN, Panoptic FPN, PointRend, HTC and SOLOv2 (also of its authors) of
versions 1 to 3 on ResNet, ResNeXt or Res2Net with FPN or BFP, for COCO, Cityscapes or 3D-FUTURE.
The configuration is read off the weights, order and scale of pixels and the "caffe" style off the
text beside them; what neither shows can be overridden, such as model.instances.average_masks=false
for HTC trained with version 3.
"""
MASKFORMER = """MaskFormer and both per-pixel baselines on ResNet (R50, R101, R101c) and Swin (T, S,
B, L). The configuration is read off the weights. ADE20K-Full and COCO-Stuff-10K have no table here:
a COCO panoptic JSON names their categories, in the order of the weights (--categories). The
published weights are licensed CC BY-NC 4.0.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", required=True)
    allow: dict[str, Any] = {
        "nargs": "+",
        "default": [],
        "metavar": "NAME",
        "help": "names that may be missing, left over or of another shape; * stands for anything",
    }
    seamseg = commands.add_parser("from-seamseg", help="a snapshot of the released Seamless code")
    seamseg.add_argument("source", type=Path, help="the .tar, or the folder with it")
    seamseg.add_argument("output", type=Path, help=".safetensors to write")
    seamseg.add_argument("--label-space", choices=LABEL_SPACE_NAMES, help="its classes")
    seamseg.add_argument("--metadata", type=Path, help="metadata.bin with names and colours")
    seamseg.add_argument("--config", metavar="YAML", help="its network, instead of its own config")
    seamseg.add_argument("--allow", **allow)
    back = commands.add_parser("to-seamseg", help="weights of this package for the released code")
    back.add_argument("source", type=Path, help="a .safetensors file, or the folder of a run")
    back.add_argument("output", type=Path, help=".tar to write")
    _add_import(commands, "detectron2", DETECTRON2, ".pkl of the model zoo, or a .pth")
    _add_import(commands, "mmdetection", MMDETECTION, ".pth file")
    queries = _add_import(
        commands, "maskformer", MASKFORMER, "weights file, or folder of a Hugging Face repository"
    )
    queries.add_argument("--task", choices=TASKS, help="default: that of the published network")
    queries.add_argument(
        "--categories", type=Path, help="COCO panoptic JSON with the classes, in their order"
    )
    backbone = commands.add_parser("backbone", help="ImageNet weights of torchvision or timm")
    backbone.add_argument("source", type=Path, help=".pth or .safetensors")
    backbone.add_argument("output", type=Path, help=".safetensors to write")
    backbone.add_argument("--name", default="resnet50", help="model name in timm")
    backbone.add_argument("--allow", **allow)
    update = commands.add_parser("update", help="weights or a YAML config of version 0.1")
    update.add_argument("source", type=Path, help=".safetensors, the folder of a run, or .yaml")
    update.add_argument("output", type=Path, help="file to write")


def _add_import(commands: Any, name: str, networks: str, source: str) -> argparse.ArgumentParser:
    """A command for another program's weights, whose config is read off them."""
    parser: argparse.ArgumentParser = commands.add_parser(
        f"from-{name}",
        help=f"weights of {name}",
        description=f"Networks: {networks}",
    )
    parser.add_argument("source", type=Path, help=source)
    parser.add_argument("output", type=Path, help=".safetensors to write")
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="changes of the imported config"
    )
    return parser


def convert(options: argparse.Namespace) -> str:
    """Runs the command that was asked for."""
    source, output = options.source, options.output
    match options.command:
        case "from-seamseg":
            return import_snapshot(
                source,
                output,
                label_space_name=options.label_space,
                config_path=options.config,
                metadata=options.metadata,
                allowed=options.allow,
            )
        case "to-seamseg":
            return export_snapshot(source, output)
        case "from-detectron2":
            return import_detectron2(source, output, options.overrides)
        case "from-mmdetection":
            return import_mmdetection(source, output, options.overrides)
        case "from-maskformer":
            return import_maskformer(
                source,
                output,
                options.overrides,
                task=options.task,
                categories=options.categories,
            )
        case "backbone":
            return convert_backbone(source, output, options.name, options.allow)
    is_config = source.suffix in (".yaml", ".yml")
    return (update_config if is_config else update_weights)(source, output)


def run(options: argparse.Namespace) -> None:
    # Layers that may keep their start get the same start every time.
    torch.manual_seed(0)
    print(spelled(convert(options)))


STAGE = Stage(
    doc=__doc__ or "",
    add_options=add_options,
    run=run,
    inputs=("source", "metadata", "config", "categories"),
    has_commands=True,
    when_stopped="nothing was written",
)
main = STAGE.main

if __name__ == "__main__":
    sys.exit(main())
