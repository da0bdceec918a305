"""Weights of files in networks: what a run starts from, and what a trained file holds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from seamless_pr.build.networks import outline_network
from seamless_pr.config.schema import InitialWeightsConfig
from seamless_pr.datasets.class_readings import described, is_same_class
from seamless_pr.models.backbones.timm_backbone import TimmBackbone
from seamless_pr.structures.kinds import Kinded
from seamless_pr.structures.label_space import Category, LabelSpace
from seamless_pr.weights.imagenet import BUILT_IN, fit_backbone
from seamless_pr.weights.key_report import fit_keys
from seamless_pr.weights.legacy import check_names
from seamless_pr.weights.named import is_named, read_named
from seamless_pr.weights.tensor_files import read_tensors


def load_backbones(network: nn.Module, path: str | Path) -> None:
    """Fills the backbone, or both of separate networks, with ImageNet weights.

    Args:
        network: of `build_network`.
        path: file of torchvision, timm or seamseg, or a name such as `torchvision:resnet50`; the
            classifier is left out.

    Raises:
        FileNotFoundError: no such file.
        OSError: weights that are named cannot be downloaded.
        ValueError: unreadable, or not the weights of this backbone; every name is listed.
    """
    source = read_named(str(path)) if is_named(str(path)) else read_tensors(path)
    for backbone in network.modules():
        if isinstance(backbone, TimmBackbone):
            state, report = fit_backbone(source, backbone.state_dict())
            report.check(str(path), BUILT_IN)
            backbone.load_state_dict(state)


def load_initial_weights(network: nn.Module, initial: InitialWeightsConfig) -> None:
    """Fills the network with the weights of another run; its random parts stay as they are.

    Args:
        network: of `build_network`.
        initial: a file, and the parts that are not taken from it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, a part that neither file nor network has, or names and shapes that
            differ outside of these parts; every name is listed.
    """
    assert initial.file is not None
    source, own = read_tensors(initial.file), network.state_dict()
    check_names(source, initial.file)
    names = (*source, *own)
    if unknown := [part for part in initial.random_parts if not _is_part(part, names)]:
        parts = sorted({".".join(name.split(".")[:2]) for name in names})
        raise ValueError(
            f"initial_weights.random_parts names {', '.join(unknown)}, but the parts of "
            f"{initial.file} and of the network are {', '.join(parts)}; name some of these"
        )
    random_parts = tuple(f"{part}." for part in initial.random_parts)
    taken = {name: t for name, t in source.items() if not name.startswith(random_parts)}
    state, report = fit_keys(taken, own, rename=str)
    report.check(initial.file, allowed=[f"{part}*" for part in random_parts])
    # Counters of norms in random parts are not in `taken`; fit_keys set them to 0, as they were.
    network.load_state_dict(state)


def refuse_other_classes(
    initial: InitialWeightsConfig, model: Kinded, label_space: LabelSpace
) -> None:
    """Weights that tell classes apart must have learnt the classes of the run, in their order.

    A file that does not tell its classes is taken by the shapes of its tensors alone.

    Args:
        initial: a file, and the parts that are not taken from it.
        model, label_space: of the run.

    Raises:
        ValueError: the classes differ, and tensors that depend on them would be taken; shows both
            readings and names the parts.
    """
    trained = _label_space_of(Path(initial.file or ""))
    if trained is None:
        return
    different = [
        f"class {index} is {_shown(theirs)} there and {_shown(ours)} here"
        for index, (theirs, ours) in enumerate(
            zip_longest(trained.categories, label_space.categories)
        )
        if theirs is None or ours is None or not is_same_class(theirs, ours)
    ]
    if not different:
        return
    random_parts = tuple(f"{part}." for part in initial.random_parts)
    dependent = class_tensors(model, label_space)
    taken = [name for name in dependent if not name.startswith(random_parts)]
    if taken:
        parts = sorted({name.rpartition(".")[0] for name in taken})
        raise ValueError(
            f"{initial.file} was trained on other classes ('{trained.name}') than those of this "
            f"run ('{label_space.name}'): {'; '.join(different[:3])} ({len(different)} differ); "
            "let what depends on them start at random: initial_weights.random_parts="
            f"[{','.join(parts)}], or whole parts that hold these"
        )


def class_tensors(model: Kinded, label_space: LabelSpace) -> list[str]:
    """Names of the weights that depend on how many things or stuff there are."""
    shapes = []
    for space in (label_space, _with_more_classes(label_space)):
        state = outline_network(model, space).state_dict()
        shapes.append({name: tensor.shape for name, tensor in state.items()})
    return [name for name, shape in shapes[0].items() if shapes[1].get(name) != shape]


def _with_more_classes(label_space: LabelSpace) -> LabelSpace:
    """One class more of each kind that there is."""
    groups = []
    for is_thing in (False, True):
        group = [c for c in label_space.categories if c.is_thing == is_thing]
        groups += [*group, *(replace(c, category_id=-1 - is_thing) for c in group[:1])]
    return LabelSpace(label_space.name, tuple(groups))


def _label_space_of(file: Path) -> LabelSpace | None:
    if file.suffix != ".safetensors" or not file.is_file():
        return None
    try:
        with safe_open(file, framework="pt") as content:
            text = (content.metadata() or {}).get("label_space")
    except (SafetensorError, OSError):
        return None  # Whoever reads its tensors tells what is wrong.
    try:
        return None if text is None else LabelSpace.from_dict(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: {error}") from error


def _shown(category: Category | None) -> str:
    return "none" if category is None else described(category)


def _is_part(part: str, names: Iterable[str]) -> bool:
    return any(name.startswith(f"{part}.") for name in names)


def check_strictly(network: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Names and shapes of weights must be exactly those of the network.

    Raises:
        ValueError: names the first ones that differ.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    different = [
        f"{name} is {found.get(name, 'missing')}, the network has {expected.get(name, 'none')}"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]
    if different:
        raise ValueError(
            f"{len(different)} tensors do not fit the network of its config: "
            f"{'; '.join(different[:5])}; leave out overrides that change the network, or use the "
            "version of the package that wrote the file"
        )
