"""A trained network out of a file, ready to label images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.network_size import refuse_large
from seamless_pr.build.networks import build_network
from seamless_pr.build.weights import check_strictly
from seamless_pr.config.schema import DataConfig
from seamless_pr.inference.predictor import Predictor, usable_device
from seamless_pr.layers.folded_norms import fold_norms
from seamless_pr.models.networks.network import Network
from seamless_pr.models.networks.views import ViewedNet
from seamless_pr.structures.image_batch import ImageBatch
from seamless_pr.structures.label_space import LabelSpace
from seamless_pr.structures.views import View, described_views
from seamless_pr.training.checkpoints import find_weights, load_weights

# Files may hold halves of what networks compute with; tables of windows stand in no file.
_MEMORY_OF_BYTES, _MEMORY_OF_TABLES = 2, 100_000_000
# Of an image that shows which layer comes before which norm.
_PASS_SIDE = 64


def load_predictor(
    path: str | Path,
    device: torch.device | str | None = None,
    *,
    label_space: LabelSpace | None = None,
    overrides: Sequence[str] = (),
    batch_size: int = 1,
    amp: str = "none",
    views: Sequence[View] = (),
) -> Predictor:
    """A trained network, ready to label images.

    Args:
        path: a .safetensors file that training has written, or the folder of a run or checkpoint
            (then its best weights, else its last).
        device: where the network runs; None: a GPU if there is one, else the CPU.
        label_space: demanded classes; None: whatever the network was trained on.
        overrides: changes of the stored config, as `model.fusion.score_threshold=0.4`.
        batch_size: see `Predictor`.
        amp: see there; in 16 bits `fold_norms` is applied.
        views: every image is seen this often, and what was seen is merged; none: those of the
            config's `data.view_sides_pixels`, else it is seen once, as it is.

    Raises:
        FileNotFoundError: no weights there.
        ValueError: no such device; or the file is truncated, not of this package, its weights do
            not fit its config, or its classes are not the demanded ones; the message names the file
            and the fix.
    """
    device = usable_device(device)
    file = find_weights(path)
    weights, metadata = load_weights(file)
    if not {"config", "label_space"} <= metadata.keys():
        raise ValueError(
            f"{file} has no config and label space in its metadata, so it is not a checkpoint of "
            "this package; give one that training has written, or import the weights first"
        )
    try:
        trained_space = LabelSpace.from_dict(metadata["label_space"])
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if label_space is not None:
        _check_label_space(trained_space, label_space, file)
    config = config_from_dict(metadata["config"], f"the config in {file}", overrides)

    def check(outline: Network) -> None:
        """A small file may describe a network of any size."""
        check_strictly(outline, weights)
        held = sum(tensor.nbytes for tensor in weights.values())
        most = (_MEMORY_OF_BYTES * held + _MEMORY_OF_TABLES) / 1e9
        refuse_large(outline, most, advice=f"its file holds only {held / 1e9:.3g}")

    try:
        network = build_network(config.model, trained_space, check)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    network.load_state_dict(weights)
    if amp != "none":
        fold_predictor_norms(network.eval())
    settings: dict[str, Any] = {"weights_sha256": _sha256(file), "overrides": sorted(overrides)}
    if views:
        network = ViewedNet(network, views)
        settings["views"] = described_views(views)
    elif config.data.view_sides_pixels:
        network = ViewedNet(network, _views_of_sides(config.data))
    return Predictor(
        network,
        shortest_side_pixels=config.data.shortest_side_pixels,
        longest_side_pixels=config.data.longest_side_pixels,
        rounded_sides=config.data.rounded_sides,
        device=device,
        batch_size=batch_size,
        amp=amp,
        settings=settings,
    )


def fold_predictor_norms(network: Network) -> None:
    """`fold_norms` for prediction in 16 bits, where norms cost much of the time.

    In single precision they cost little, and what comes out shall stay the same to the last bit.

    Args:
        network: on the CPU, in evaluation mode; not to be trained or saved from now on.
    """
    size = (_PASS_SIDE, _PASS_SIDE)
    batch = ImageBatch(torch.zeros(1, 3, *size, dtype=torch.uint8), (size,))
    fold_norms(network, lambda: network.outputs(batch))


def _views_of_sides(data: DataConfig) -> list[View]:
    longest = data.view_longest_side_pixels
    return [
        View(1.0, flip, side, longest, data.rounded_sides)
        for side in data.view_sides_pixels
        for flip in (False, True)
    ]


def _check_label_space(trained: LabelSpace, demanded: LabelSpace, file: Path) -> None:
    """The classes agree if each category id means the same name and kind on both sides."""
    trained_meaning = {c.category_id: (c.name, c.is_thing) for c in trained.categories}
    demanded_meaning = {c.category_id: (c.name, c.is_thing) for c in demanded.categories}
    different = sorted(
        category_id
        for category_id in trained_meaning.keys() | demanded_meaning.keys()
        if trained_meaning.get(category_id) != demanded_meaning.get(category_id)
    )
    if different:
        category_id = different[0]
        raise ValueError(
            f"{file} was trained on label space '{trained.name}', but '{demanded.name}' is wanted: "
            f"{len(different)} categories differ, for example {category_id} "
            f"({_meaning(trained_meaning, category_id)} instead of "
            f"{_meaning(demanded_meaning, category_id)}); give weights trained on those classes"
        )


def _meaning(meanings: dict[int, tuple[str, bool]], category_id: int) -> str:
    name, is_thing = meanings.get(category_id, ("", False))
    return f"{'thing' if is_thing else 'stuff'} '{name}'" if name else "no class"


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
