"""In-place ABN against the inplace_abn package's numbers, its twin and finite differences."""

from __future__ import annotations

import copy
import importlib.util
import sys

import pytest
import torch
from torch import Tensor, nn

from seamless_pr.layers.abn import ABN, InPlaceABN, make_norm_act
from seamless_pr.layers.batch_norm import BatchNormAct, TrainedBatchNorm
from seamless_pr.layers.norm_act import GroupNormAct, NormAct
from tests.support.golden import load_golden

PACKAGE_MISSING = (
    "the inplace_abn package is not installed; it builds against current torch by: pip install "
    "setuptools_scm ninja, then pip install --no-build-isolation inplace-abn==1.1.0 (a CUDA build "
    "of torch needs nvcc, TORCH_CUDA_ARCH_LIST and the folder of libcudart on LIBRARY_PATH)"
)


def golden_case(activation: str, mode: str) -> dict[str, Tensor]:
    prefix = f"{activation}_{mode}_"
    arrays = load_golden("inplace_abn")
    return {name[len(prefix) :]: arrays[name] for name in arrays if name.startswith(prefix)}


def random_layer(kind: type[ABN], channels: int, activation: str = "leaky_relu") -> ABN:
    """With negative weights and running statistics that are not the initial ones."""
    generator = torch.Generator().manual_seed(channels)
    layer = kind(channels, activation)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(channels, generator=generator))
        layer.bias.copy_(torch.randn(channels, generator=generator))
        layer.running_mean.copy_(torch.randn(channels, generator=generator))
        layer.running_var.copy_(torch.rand(channels, generator=generator) + 0.5)
    return layer


def random_input(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 1).to(dtype)


def run(layer: nn.Module, x: Tensor, grad: Tensor) -> dict[str, Tensor]:
    """Output, gradients and buffers after one forward and backward pass."""
    leaf = x.clone().requires_grad_()
    output = layer(leaf.clone())
    output.backward(grad)
    assert leaf.grad is not None
    results = {"y": output.detach(), "dx": leaf.grad}
    results |= {f"d{name}": p.grad for name, p in layer.named_parameters() if p.grad is not None}
    return results | {name: buffer.clone() for name, buffer in layer.named_buffers()}


@pytest.mark.parametrize("kind", [InPlaceABN, ABN])
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("activation", ["leaky_relu", "identity"])
def test_numbers_are_those_of_the_inplace_abn_package(kind, mode, activation):
    golden = golden_case(activation, mode)
    layer = kind(len(golden["weight"]), activation)
    layer.load_state_dict(
        {
            "weight": golden["weight"],
            "bias": golden["bias"],
            "running_mean": golden["running_mean_before"],
            "running_var": golden["running_var_before"],
        }
    )
    results = run(layer.train(mode == "train"), golden["x"], golden["dy"])
    for name in ("y", "dx", "dweight", "dbias"):
        torch.testing.assert_close(results[name], golden[name], rtol=1e-5, atol=2e-6)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(results[name], golden[name + "_after"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("shape", [(7, 5), (3, 5, 6), (2, 5, 4, 6)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", ["leaky_relu", "identity"])
def test_in_place_layer_equals_its_plain_twin_to_the_last_digits(shape, training, activation):
    x, grad = random_input(*shape, dtype=torch.float64), random_input(*shape, dtype=torch.float64)
    layers = [random_layer(kind, 5, activation).double() for kind in (InPlaceABN, ABN)]
    in_place, plain = (run(layer.train(training), x, grad) for layer in layers)
    torch.testing.assert_close(in_place, plain, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("training", [True, False])
def test_gradients_equal_finite_differences(training):
    layer = random_layer(InPlaceABN, 3).double().train(training)
    x = random_input(4, 3, 2, dtype=torch.float64).requires_grad_()

    def function(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x.clone(),))

    # Away from the kink of the activation, where differences mean nothing.
    assert function(x, layer.weight, layer.bias).abs().min() > 1e-4
    assert torch.autograd.gradcheck(function, (x, layer.weight, layer.bias))


@pytest.mark.parametrize("training", [True, False])
def test_channels_last_memory_is_kept_and_changes_no_number(training):
    x, grad = random_input(3, 8, 6, 10), random_input(3, 8, 6, 10)
    expected = run(random_layer(InPlaceABN, 8).train(training), x, grad)
    last = torch.channels_last
    layer = random_layer(InPlaceABN, 8).train(training)
    results = run(layer, x.contiguous(memory_format=last), grad.contiguous(memory_format=last))
    assert results["y"].is_contiguous(memory_format=last)
    assert results["dx"].is_contiguous(memory_format=last)
    torch.testing.assert_close(results, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_activation_of_a_sum_is_that_of_a_norm_a_sum_and_an_activation(training, dtype):
    """The norm's output is not kept but in 16 bits, and recovered to the last digits."""
    x, shortcut, grad = (
        random_input(*shape, dtype=dtype) for shape in [(2, 5, 9, 7), (2, 5, 9, 7), (2, 5, 9, 7)]
    )
    shortcut = shortcut.flip(0) * 3
    results = []
    for is_joined in (True, False):
        layer = random_layer(InPlaceABN, 5, "identity").train(training)
        layer = layer.double() if dtype == torch.float64 else layer
        layer.sum_slope = 0.02
        leaves = [tensor.clone().requires_grad_() for tensor in (x, shortcut)]
        if is_joined:
            output = layer(leaves[0].clone(), leaves[1])
        else:
            total = layer(leaves[0].clone()) + leaves[1]
            output = nn.functional.leaky_relu(total, 0.02)
        output.backward(grad)
        results.append([output, *(leaf.grad for leaf in [*leaves, *layer.parameters()])])
        results[-1] += [buffer.clone() for buffer in layer.buffers()]
    limit = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 0.0}[dtype]
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=limit, atol=limit)


def test_strided_input_that_is_in_no_memory_format_works():
    wide = random_input(2, 6, 8, 10)
    expected = random_layer(ABN, 6)(wide[..., ::2])
    result = random_layer(InPlaceABN, 6)(wide[..., ::2])
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_the_output_is_the_overwritten_input():
    x = random_input(2, 4, 3, 3)
    assert random_layer(InPlaceABN, 4)(x).data_ptr() == x.data_ptr()


def test_plain_twin_leaves_its_input_alone():
    x = random_input(2, 4, 3, 3)
    before = x.clone()
    random_layer(ABN, 4)(x)
    torch.testing.assert_close(x, before, rtol=0, atol=0)


def test_reading_the_output_after_it_was_changed_in_place_is_an_error():
    layer = random_layer(InPlaceABN, 4, "identity")
    output = layer(random_input(2, 4, 3, 3))
    output.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("training", [True, False])
def test_frozen_parameters_get_no_gradient_but_pass_it_on(training):
    x, grad = random_input(2, 4, 5, 3), random_input(2, 4, 5, 3)
    expected = run(random_layer(InPlaceABN, 4).train(training), x, grad)
    frozen = random_layer(InPlaceABN, 4).train(training).requires_grad_(False)
    results = run(frozen, x, grad)
    assert "dweight" not in results
    torch.testing.assert_close(results["dx"], expected["dx"], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(results["running_var"], expected["running_var"])


def test_parameters_train_when_the_input_needs_no_gradient():
    x, grad = random_input(2, 4, 5, 3), random_input(2, 4, 5, 3)
    expected = run(random_layer(InPlaceABN, 4), x, grad)
    layer = random_layer(InPlaceABN, 4)
    layer(x.clone()).backward(grad)
    torch.testing.assert_close(layer.weight.grad, expected["dweight"])
    torch.testing.assert_close(layer.bias.grad, expected["dbias"])


def test_evaluation_without_gradients_equals_evaluation_with_them():
    x = random_input(2, 4, 5, 3)
    layer = random_layer(InPlaceABN, 4).eval()
    with torch.no_grad():
        result = layer(x.clone())
    assert not result.requires_grad
    torch.testing.assert_close(result, layer(x.clone()).detach(), rtol=0, atol=0)


def test_a_weight_of_zero_learns():
    layer = InPlaceABN(2)
    nn.init.zeros_(layer.weight)
    layer(random_input(3, 2, 4, 4)).square().sum().backward()
    assert (layer.weight.grad != 0).all()


@pytest.mark.parametrize("kind", [InPlaceABN, ABN])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 7, 7)])
def test_an_empty_batch_gives_zero_gradients_and_changes_no_statistics(kind, training, shape):
    layer = random_layer(kind, 4).train(training)
    before = copy.deepcopy(layer.state_dict())
    results = run(layer, torch.zeros(shape), torch.zeros(shape))
    assert results["y"].shape == shape
    assert results["dx"].shape == shape
    torch.testing.assert_close(results["dweight"], torch.zeros(4))
    torch.testing.assert_close(results["dbias"], torch.zeros(4))
    torch.testing.assert_close(layer.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [InPlaceABN, ABN])
def test_a_single_element_is_its_own_mean(kind):
    layer = random_layer(kind, 4, "identity")
    results = run(layer, random_input(1, 4), random_input(1, 4))
    torch.testing.assert_close(results["y"], layer.bias.detach()[None], rtol=0, atol=1e-4)
    assert all(result.isfinite().all() for result in results.values())


def test_statistics_of_bfloat16_inputs_are_float32():
    x, grad = random_input(4, 6, 16, 16).bfloat16(), random_input(4, 6, 16, 16).bfloat16()
    expected = run(random_layer(InPlaceABN, 6), x.float(), grad.float())
    results = run(random_layer(InPlaceABN, 6), x, grad)
    assert results["y"].dtype == results["dx"].dtype == torch.bfloat16
    assert results["dweight"].dtype == torch.float32
    torch.testing.assert_close(results["running_mean"], expected["running_mean"])
    torch.testing.assert_close(results["running_var"], expected["running_var"])
    torch.testing.assert_close(results["y"].float(), expected["y"], rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(results["dweight"], expected["dweight"], rtol=2e-2, atol=2.0)


def test_two_passes_give_the_same_bits():
    x, grad = random_input(4, 16, 33, 29), random_input(4, 16, 33, 29)
    first, second = (run(random_layer(InPlaceABN, 16), x, grad) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_state_dict_has_the_keys_of_the_package_and_the_batch_counter_may_be_missing():
    layer = random_layer(InPlaceABN, 3)
    layer(random_input(2, 3, 4))
    state = layer.state_dict()
    assert sorted(state) == sorted(
        ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    )
    assert state["num_batches_tracked"] == 1
    del state["num_batches_tracked"]
    nn.Sequential(InPlaceABN(3)).load_state_dict({f"0.{name}": state[name] for name in state})


def test_running_statistics_use_momentum_and_the_unbiased_variance():
    layer = ABN(1, "identity", momentum=0.25)
    in_place = InPlaceABN(1, "identity", momentum=0.25)
    for each in (layer, in_place):
        each(torch.tensor([[0.0], [2.0], [4.0]]))
        torch.testing.assert_close(each.running_mean, torch.tensor([0.5]))
        torch.testing.assert_close(each.running_var, torch.tensor([0.75 + 0.25 * 4.0]))


def test_group_norm_variant_equals_group_norm_and_leaky_relu():
    x = random_input(2, 24, 5, 4)
    expected = nn.functional.leaky_relu(nn.functional.group_norm(x, 8), 0.01)
    torch.testing.assert_close(GroupNormAct(24)(x), expected)


@pytest.mark.parametrize(
    "kind, layer",
    [
        ("inplace_abn", InPlaceABN),
        ("abn", ABN),
        ("batch_norm", BatchNormAct),
        ("group_norm", GroupNormAct),
    ],
)
def test_make_norm_act_passes_its_numbers_on(kind, layer):
    module = make_norm_act(kind, slope=0.2, eps=1e-3, momentum=0.3, sync=True)(32)
    assert type(module) is layer
    assert isinstance(module, NormAct)
    assert (module.slope, module.eps, module.activation) == (0.2, 1e-3, "leaky_relu")
    if isinstance(module, TrainedBatchNorm):
        assert (module.momentum, module.sync) == (0.3, True)


def test_unknown_kinds_and_activations_are_named():
    with pytest.raises(ValueError, match="got 'instance_norm'"):
        make_norm_act("instance_norm")
    with pytest.raises(ValueError, match="got 'relu'"):
        make_norm_act()(8, "relu")
    with pytest.raises(ValueError, match="positive"):
        InPlaceABN(8, slope=0.0)


def test_a_missing_package_is_an_error_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "inplace_abn", None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-build-isolation inplace-abn"):
        make_norm_act("inplace_abn_package")


@pytest.mark.skipif(importlib.util.find_spec("inplace_abn") is None, reason=PACKAGE_MISSING)
@pytest.mark.parametrize("activation", ["leaky_relu", "identity"])
def test_installed_package_and_own_layer_are_interchangeable(activation):
    x, grad = random_input(3, 6, 5, 4), random_input(3, 6, 5, 4)
    own = random_layer(InPlaceABN, 6, activation)
    package = make_norm_act("inplace_abn_package")(6, activation)
    package.load_state_dict(own.state_dict())
    torch.testing.assert_close(run(own, x, grad), run(package, x, grad), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gpu_equals_cpu(training, memory_format):
    x, grad = random_input(3, 8, 6, 10), random_input(3, 8, 6, 10)
    expected = run(random_layer(InPlaceABN, 8).train(training), x, grad)
    on_gpu = [each.cuda().contiguous(memory_format=memory_format) for each in (x, grad)]
    results = run(random_layer(InPlaceABN, 8).cuda().train(training), *on_gpu)
    results = {name: result.cpu() for name, result in results.items()}
    torch.testing.assert_close(results, expected, rtol=1e-4, atol=1e-5)
