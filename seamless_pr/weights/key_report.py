"""Fitting the tensors of a file to a network by name, with an account of every name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor

BATCH_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class KeyReport:
    """What became of every name.

    Attributes:
        mapped: (name in the file, name in the network) of the tensors that were taken.
        counters: batch counters of norms that the file lacks; they start at 0, which changes
            nothing.
        missing: names of the network without a tensor in the file.
        left_over: names of the file without a place in the network.
        misshapen: "name: shape in the file, shape in the network".
    """

    mapped: tuple[tuple[str, str], ...]
    counters: tuple[str, ...]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    misshapen: tuple[str, ...]

    def faults(self, allowed: Sequence[str] = ()) -> list[str]:
        """One line per missing, left over or misshapen name that no pattern of `allowed` names.

        Args:
            allowed: names, or patterns with `*`, of names in the file or in the network.
        """
        kinds = {
            "missing in the file": self.missing,
            "left over in the file": self.left_over,
            "of another shape": self.misshapen,
        }
        return [
            f"{kind}: {name}"
            for kind, names in kinds.items()
            for name in names
            if not any(fnmatchcase(name.partition(":")[0], pattern) for pattern in allowed)
        ]

    def check(self, source: str, allowed: Sequence[str] = ()) -> None:
        """Raises ValueError, naming every key, unless the match is complete but for `allowed`."""
        faults = self.faults(allowed)
        if faults:
            raise ValueError(
                f"{source} does not fit the network ({len(self.mapped)} tensors do, "
                f"{len(faults)} names do not); name what may differ, or give the weights of this "
                "network:\n  " + "\n  ".join(faults)
            )

    def summary(self) -> str:
        """The counts, and every name that was not mapped."""
        counts = (
            f"{len(self.mapped)} mapped, {len(self.missing)} missing, "
            f"{len(self.left_over)} left over, {len(self.misshapen)} of another shape"
        )
        if self.counters:
            counts += f"; {len(self.counters)} batch counters start at 0"
        return "\n  ".join([counts, *self.faults()])


def fit_keys(
    source: Mapping[str, Tensor],
    network: Mapping[str, Tensor],
    rename: Callable[[str], str | None],
    convert: Callable[[str, Tensor], Tensor] = lambda name, tensor: tensor,
) -> tuple[dict[str, Tensor], KeyReport]:
    """The network's state with the tensors of a file in it.

    Args:
        source: names and tensors of the file.
        network: `state_dict` of the network; keeps its values where the file has none that fits.
        rename: name in the file -> name in the network, or None.
        convert: (name in the network, tensor of the file) -> tensor in the network's order.

    Returns:
        A complete state dict, and the report, which nothing has checked yet.
    """
    state = dict(network)
    mapped, left_over, misshapen = [], [], []
    for name, tensor in source.items():
        ours = rename(name)
        if ours is None or ours not in network:
            left_over.append(name)
            continue
        converted = convert(ours, tensor)
        if converted.shape != network[ours].shape:
            misshapen.append(f"{name}: {tuple(converted.shape)}, not {tuple(network[ours].shape)}")
            continue
        state[ours] = converted.to(network[ours].dtype)
        mapped.append((name, ours))
    taken = {ours for _, ours in mapped}
    wrong_shape = {rename(text.partition(":")[0]) for text in misshapen}
    absent = [name for name in network if name not in taken | wrong_shape]
    counters = [name for name in absent if name.endswith(BATCH_COUNTER)]
    for name in counters:
        state[name] = torch.zeros_like(network[name])
    missing = [name for name in absent if name not in counters]
    report = KeyReport(
        tuple(mapped), tuple(counters), tuple(missing), tuple(left_over), tuple(misshapen)
    )
    return state, report
