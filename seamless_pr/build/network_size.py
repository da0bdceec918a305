"""How large a network may be, asked of its outline: names and shapes without memory.

Settings may come with a file of somebody, and a digit too much in one's own is soon written: what
they ask for is known before it is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from seamless_pr.structures.settings import MAX_NETWORK_GIGABYTES

# Six times those of the largest published network; as many take a second to build.
MAX_TENSORS = 10_000


@contextmanager
def few_tensors() -> Iterator[None]:
    """Ends the building of a network at the tensor after the last that one may have.

    Stages, layers and blocks multiply, and a tensor without memory takes some, too.

    Raises:
        ValueError: there are more than MAX_TENSORS.
    """
    count = 0

    def add(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > MAX_TENSORS:
            raise ValueError(
                f"it would have more than {MAX_TENSORS} tensors; lessen its stages and layers"
            )

    hook = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        hook.remove()


def refuse_large(
    outline: nn.Module,
    max_gigabytes: float = MAX_NETWORK_GIGABYTES,
    *,
    advice: str = "lessen its widths, or raise training.max_network_gigabytes",
) -> None:
    """A network may take so much memory, parameters and tables together.

    Args:
        outline: the network on the meta device.
        max_gigabytes: of 10^9 bytes.
        advice: ends the message.

    Raises:
        ValueError: it takes more; the message names the largest tensor.
    """
    tensors = [*outline.named_parameters(), *outline.named_buffers()]
    gigabytes = {name: tensor.numel() * tensor.element_size() / 1e9 for name, tensor in tensors}
    total = sum(gigabytes.values())
    if total > max_gigabytes:
        largest = max(gigabytes, key=gigabytes.__getitem__)
        raise ValueError(
            f"the network of 'model' would take {total:.3g} GB of memory, {largest} alone "
            f"{gigabytes[largest]:.3g}, but may take {max_gigabytes:.3g}; {advice}"
        )
