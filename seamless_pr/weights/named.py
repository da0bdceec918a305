"""ImageNet weights by name: what torchvision and timm download and keep in their caches.

torchvision:resnet50                        IMAGENET1K_V1, which the papers' recipes start from
torchvision:resnet50.IMAGENET1K_V2          another set of the same network
timm:resnext101_64x4d.c1_in1k               any pretrained network of timm
"""

from __future__ import annotations

from torch import Tensor

from seamless_pr.structures.faults import first_line

SOURCES = ("torchvision", "timm")
DEFAULT_SET = "IMAGENET1K_V1"


def is_named(weights: str) -> bool:
    """Whether these are weights to download, not a file."""
    return weights.partition(":")[0] in SOURCES and ":" in weights


def read_named(weights: str) -> dict[str, Tensor]:
    """Downloads weights, or takes them from the cache.

    Args:
        weights: `torchvision:NETWORK[.SET]` or `timm:NETWORK[.TAG]`.

    Raises:
        ValueError: no such network or set of weights.
        OSError: the download failed, such as without a network.
    """
    source, _, name = weights.partition(":")
    return _from_torchvision(weights, name) if source == "torchvision" else _from_timm(name)


def _from_torchvision(weights: str, name: str) -> dict[str, Tensor]:
    from torchvision.models import get_model_weights

    network, _, wanted = name.partition(".")
    try:
        sets = get_model_weights(network)
    except ValueError as error:
        raise ValueError(
            f"torchvision has no network '{network}'; see its list of models"
        ) from error
    names = [entry.name for entry in sets]
    chosen = wanted or DEFAULT_SET
    if chosen not in names:
        raise ValueError(f"'{weights}': {network} has the weights {', '.join(names)}")
    entry = sets[chosen]
    try:
        found: dict[str, Tensor] = dict(entry.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:
        raise _offline(weights, error, f"load {entry.url} where there is one") from error
    return found


def _from_timm(name: str) -> dict[str, Tensor]:
    import timm

    network = name.partition(".")[0]
    if not timm.is_model(network) or not timm.list_pretrained(f"{network}*"):
        raise ValueError(f"timm has no pretrained network '{name}'; see timm.list_pretrained()")
    try:
        return dict(timm.create_model(name, pretrained=True).state_dict())
    except RuntimeError as error:
        if "Invalid pretrained tag" in str(error):
            tags = ", ".join(timm.list_pretrained(f"{network}.*"))
            raise ValueError(f"timm has no weights '{name}'; it has {tags}") from error
        raise _offline(f"timm:{name}", error, "load them where there is one") from error
    # The hub's client has types of its own for a missing network.
    except Exception as error:
        raise _offline(f"timm:{name}", error, "load them where there is one") from error


def _offline(weights: str, error: Exception, remedy: str) -> OSError:
    return OSError(
        f"'{weights}' cannot be downloaded ({first_line(error)}); without a network, {remedy} and "
        "give the file as model.backbone.weights"
    )
