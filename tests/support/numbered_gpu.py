"""A GPU that has numbers, on machines without one: the processor computes, and this keeps watch.

Its tensors say that they are on a GPU. What mixes them with those of the host is an error, as it
is there; where a GPU would make the host wait is noted with the line that asked for it.
"""

from __future__ import annotations

import copy
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda", 0)
LIBRARY = Path(__file__).parents[2] / "seamless_pr"
# How many rows they give, or which number, is not known before they are computed.
_WAITING = {
    "aten::nonzero",
    "aten::masked_select",
    "aten::_local_scalar_dense",
    "aten::bincount",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::equal",
    "torchvision::nms",
}
_INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class GpuTensor(Tensor):
    """A tensor of the GPU; `numbers` is what it holds."""

    numbers: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl
    # What C++ asks is answered by the processor's device: no driver is ever looked for.
    device = property(lambda self: DEVICE)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, real: Tensor) -> GpuTensor:
        wrapper: GpuTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            layout=real.layout,
            device="cpu",
        )
        wrapper.numbers = real
        return wrapper

    def __repr__(self, **_: Any) -> str:
        return f"GpuTensor({self.numbers})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        return NumberedGpu().__torch_dispatch__(func, types, args, kwargs)


class NumberedGpu(TorchDispatchMode):
    """The GPU, while it is there.

    Attributes:
        waits: `file:function` of the library -> how often the host had to wait for it there.
        makers: (file, line) where tensors were made on the GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.makers: set[tuple[str, int]] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_gpu = [leaf for leaf in leaves if isinstance(leaf, GpuTensor)]
        on_host = [leaf for leaf in leaves if not isinstance(leaf, GpuTensor) and leaf.ndim > 0]
        name = func._schema.name
        if (kwargs.get("device") or torch.device("cpu")).type == "cuda":
            # Made by a function of torch for tensors that it was given.
            kwargs["device"] = torch.device("cpu")
            return tree_map(_wrapped, func(*args, **kwargs))
        if name == "aten::copy_":
            if isinstance(args[0], GpuTensor) != isinstance(args[1], GpuTensor):
                self._note_wait()
        elif on_gpu and on_host:
            # Where nobody calls, C++ fills in gradients of 0, which it makes where it thinks it is.
            if name not in _INDEXING and next(_functions(), ""):
                raise RuntimeError(f"{func} mixes tensors of the GPU and of the host")
            self._note_wait()
        elif on_gpu and _waits(name, args, kwargs):
            self._note_wait()
        real_args, real_kwargs = tree_map(_real, (args, kwargs))
        result = _compute(func, real_args, real_kwargs)
        if not on_gpu:
            return result
        return return_and_correct_aliasing(func, args, kwargs, tree_map(_wrapped, result))

    def moved(self, tensor: Tensor, device: torch.device, options: Mapping[str, Any]) -> Tensor:
        """`tensor.to`, for both directions."""
        is_there, is_wanted_there = isinstance(tensor, GpuTensor), device.type == "cuda"
        non_blocking = options.get("non_blocking", False)
        options = {name: value for name, value in options.items() if name != "non_blocking"}
        if is_there == is_wanted_there:
            return tensor.to(**options) if options else tensor
        if is_there or not non_blocking:
            self._note_wait()
        self.makers |= set(_frames()) if is_wanted_there else set()
        numbers = _real(tensor.detach()).to(**options)
        return GpuTensor(numbers) if is_wanted_there else numbers

    def _note_wait(self) -> None:
        self.waits[next(_functions(), "elsewhere")] += 1


class _Calls(TorchFunctionMode):
    """What names a device is seen before torch itself would look for one."""

    def __init__(self, gpu: NumberedGpu) -> None:
        super().__init__()
        self._gpu = gpu

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.to:
            args, kwargs = _named(args, kwargs)
        if func in (Tensor.cpu, Tensor.tolist, Tensor.numpy) and isinstance(args[0], GpuTensor):
            on_host = self._gpu.moved(args[0], torch.device("cpu"), {})
            return on_host if func is Tensor.cpu else func(on_host)
        if func is Tensor.new_tensor and isinstance(args[0], GpuTensor):
            func, device = torch.tensor, DEVICE
            kwargs.setdefault("dtype", args[0].dtype)
            args = args[1:]
        else:
            device = kwargs.pop("device", None)
        if device is None:
            return func(*args, **kwargs)
        device = torch.device(device)
        if func is Tensor.to:
            return self._gpu.moved(args[0], device, kwargs)
        made = func(*args, **kwargs)
        if device.type != "cuda" or isinstance(made, GpuTensor):
            return made
        self._gpu.makers |= set(_frames())
        if func in (torch.tensor, torch.as_tensor):
            # Of the host's numbers, in memory from where copies are waited for.
            self._gpu._note_wait()
        return GpuTensor(made)


def _grouped(
    lists: Any, with_indices: bool, group: Any = torch._C._group_tensors_by_device_and_dtype
) -> Any:
    """What optimisers ask C++: groups by the device that tensors say they are on."""
    return {
        (lists[0][0].device, dtype): found
        for (_, dtype), found in group(lists, with_indices).items()
    }


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments of `Tensor.to` by their names."""
    for value in args[1:]:
        if isinstance(value, Tensor):
            kwargs |= {"device": value.device, "dtype": value.dtype}
        elif isinstance(value, torch.dtype):
            kwargs["dtype"] = value
        elif isinstance(value, torch.device | str):
            kwargs["device"] = value
        else:
            raise TypeError(f"Tensor.to({value!r}) is not known here; name the argument")
    return args[:1], kwargs


def _waits(name: str, args: Any, kwargs: Any) -> bool:
    if name == "aten::repeat_interleave":
        return kwargs.get("output_size") is None
    if name in _INDEXING:
        return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])
    return name in _WAITING


def _real(leaf: Any) -> Any:
    return leaf.numbers if isinstance(leaf, GpuTensor) else leaf


def _wrapped(leaf: Any) -> Any:
    return GpuTensor(leaf) if isinstance(leaf, Tensor) else leaf


def _compute(func: Any, args: Any, kwargs: Any) -> Any:
    if func is torch.ops.aten.batch_norm_elemt.out:  # The processor has none.
        x, scale, shift, mean, inverse_std, _ = args
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale, shift, mean, inverse_std = (v.view(shape) for v in (scale, shift, mean, inverse_std))
        return kwargs["out"].copy_((x - mean) * inverse_std * scale + shift)
    return func(*args, **kwargs)


def _frames() -> Iterator[tuple[str, int]]:
    """File and line of every function of the library that is running, the innermost first."""
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(str(LIBRARY)):
            yield str(Path(path).relative_to(LIBRARY)), frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]


def _functions() -> Iterator[str]:
    frame = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(str(LIBRARY)):
            yield f"{Path(path).relative_to(LIBRARY)}:{frame.f_code.co_qualname}"
        frame = frame.f_back  # type: ignore[assignment]


@contextmanager
def numbered_gpu() -> Iterator[NumberedGpu]:
    """Inside, "cuda" is a device whose numbers the processor computes."""
    with (
        patch("torch.cuda._lazy_init"),
        patch("torch._C._group_tensors_by_device_and_dtype", _grouped),
        # There are no random numbers of the GPU to be kept.
        patch("torch.random.fork_rng", lambda devices: nullcontext()),
        NumberedGpu() as gpu,
        _Calls(gpu),
    ):
        yield gpu


def on_gpu(tree: Any) -> Any:
    """Tensors, modules and records of them, moved there without being seen."""
    with torch.utils._python_dispatch._disable_current_modes():
        if isinstance(tree, nn.Module):
            return _moved(copy.deepcopy(tree))
        return tree_map(_wrapped, tree)


def _moved(module: nn.Module) -> nn.Module:
    for owner in module.modules():
        for name, parameter in owner._parameters.items():
            if parameter is not None:
                wrapped = GpuTensor(parameter.detach())
                owner._parameters[name] = nn.Parameter(wrapped, parameter.requires_grad)
        for name, buffer in owner._buffers.items():
            if buffer is not None:
                owner._buffers[name] = GpuTensor(buffer)
    return module
