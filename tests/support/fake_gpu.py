"""A GPU without numbers, on machines without one, and a watch over what would make it wait."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

DEVICE = torch.device("cuda")
# They give a tensor of the host's numbers, or the other way round.
_COPIES = {"aten::_to_copy", "aten::copy_"}


class Watch(TorchDispatchMode):
    """Counts what a GPU would be asked to do, and copies between devices.

    Attributes:
        operations: by name, without views, for which nothing is started.
        copies: what was copied, in words, one after the other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.copies: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        before = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if _is_array(leaf)}
        result = func(*args, **kwargs)
        if not _is_view(func):
            self.operations[str(func)] += 1
        after = {leaf.device.type for leaf in tree_leaves(result) if _is_array(leaf)}
        if func._schema.name in _COPIES and len(before | after) > 1:
            self.copies.append(f"{func} {sorted(before)} -> {sorted(after)}")
        return result


def _is_view(func: Any) -> bool:
    """Whether an operation only looks at its input in another way, or asks for its device."""
    returns = func._schema.returns
    aliases = [value.alias_info for value in returns]
    return func.namespace == "prim" or (
        bool(returns) and all(alias is not None and not alias.is_write for alias in aliases)
    )


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0


@contextmanager
def fake_gpu() -> Iterator[Watch]:
    """Tensors made inside have shapes and a device, and no numbers; asking for one is an error."""
    with FakeTensorMode(allow_non_fake_inputs=False), Watch() as watch:
        yield watch


def moved(module: nn.Module) -> nn.Module:
    """A copy of a real module on the fake GPU; inside of `fake_gpu`."""
    with torch.utils._python_dispatch._disable_current_modes():
        twin = copy.deepcopy(module).to("meta")
    for owner in twin.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                empty = torch.empty_strided(
                    parameter.shape, parameter.stride(), dtype=parameter.dtype, device=DEVICE
                )
                owner._parameters[name] = nn.Parameter(empty, parameter.requires_grad)
        for name, buffer in owner._buffers.items():
            if buffer is not None:
                owner._buffers[name] = torch.empty_strided(
                    buffer.shape, buffer.stride(), dtype=buffer.dtype, device=DEVICE
                )
    return twin
