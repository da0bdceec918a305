"""Small Hugging Face networks with random weights, built from their configs without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

NUM_LABELS = 5
_SWIN = {
    "embed_dim": 24,
    "num_heads": [1, 2, 3, 4],
    "window_size": 4,
    "image_size": 64,
    "drop_path_rate": 0.0,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}


def tiny_maskformer(backbone: str = "swin", dtype: torch.dtype = torch.float32) -> Any:
    """MaskFormer on a small Swin ("swin") or ResNet ("resnet"), without dropout."""
    from transformers import (
        DetrConfig,
        MaskFormerConfig,
        MaskFormerForInstanceSegmentation,
        MaskFormerSwinConfig,
        ResNetConfig,
    )

    stages = ["stage1", "stage2", "stage3", "stage4"]
    if backbone == "swin":
        backbone_config: Any = MaskFormerSwinConfig(depths=[1, 2, 2, 2], **_SWIN)
    else:
        backbone_config = ResNetConfig(
            hidden_sizes=[32, 64, 128, 256], depths=[1, 2, 1, 1], out_features=stages
        )
    decoder = DetrConfig(
        d_model=32,
        decoder_layers=3,
        decoder_attention_heads=4,
        decoder_ffn_dim=48,
        encoder_layers=0,
        num_queries=9,
        dropout=0.0,
        use_pretrained_backbone=False,
        use_timm_backbone=False,
        backbone_config=ResNetConfig(),
    )
    config = MaskFormerConfig(
        backbone_config=backbone_config,
        decoder_config=decoder,
        fpn_feature_size=64,
        mask_feature_size=32,
        num_labels=NUM_LABELS,
    )
    return _random(MaskFormerForInstanceSegmentation(config), dtype)


def tiny_mask2former() -> Any:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    config = Mask2FormerConfig(
        backbone_config=SwinConfig(depths=[1, 1, 1, 1], **_SWIN),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=48,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=4,
        dim_feedforward=48,
        num_queries=9,
        num_labels=NUM_LABELS,
    )
    return _random(Mask2FormerForUniversalSegmentation(config))


def tiny_oneformer() -> Any:
    from transformers import OneFormerConfig, OneFormerForUniversalSegmentation, SwinConfig

    config = OneFormerConfig(
        backbone_config=SwinConfig(depths=[1, 1, 1, 1], **_SWIN),
        num_queries=9,
        hidden_dim=32,
        mask_dim=32,
        conv_dim=32,
        encoder_feedforward_dim=48,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=4,
        dim_feedforward=48,
        is_training=False,
        text_encoder_width=16,
        text_encoder_num_layers=1,
        text_encoder_proj_layers=1,
        task_seq_len=12,
        max_seq_len=12,
        num_labels=NUM_LABELS,
    )
    return _random(OneFormerForUniversalSegmentation(config))


def tiny_eomt() -> Any:
    from transformers import EomtConfig, EomtForUniversalSegmentation

    config = EomtConfig(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=64,
        patch_size=16,
        num_blocks=1,
        num_queries=9,
        num_register_tokens=2,
        num_upscale_blocks=2,
        num_labels=NUM_LABELS,
    )
    return _random(EomtForUniversalSegmentation(config))


FAMILIES = {
    "maskformer": tiny_maskformer,
    "mask2former": tiny_mask2former,
    "oneformer": tiny_oneformer,
    "eomt": tiny_eomt,
}


def save_tiny(family: str, folder: Path, labels: Sequence[str] | None = None) -> Any:
    """Writes a network with its image processor, as a downloaded repository holds them.

    Args:
        family: one of `FAMILIES`.
        folder: to write to.
        labels: names of the classes; None: made up ones.
    """
    import transformers

    torch.manual_seed(0)  # Their constructors draw from the global generator.
    network = FAMILIES[family]()
    if labels is not None:
        network.config.id2label = dict(enumerate(labels))
    network.save_pretrained(folder)
    if family == "eomt":
        size = {"shortest_edge": 64, "longest_edge": 64}
        transformers.EomtImageProcessor(size=size, do_pad=True).save_pretrained(folder)
        return network
    kinds = {
        "maskformer": transformers.MaskFormerImageProcessor,
        "mask2former": transformers.Mask2FormerImageProcessor,
        "oneformer": transformers.OneFormerImageProcessor,
    }
    size = {"shortest_edge": 64, "longest_edge": 128}
    kinds[family](size=size, image_mean=[0.5, 0.4, 0.3]).save_pretrained(folder)
    if family == "oneformer":
        _tiny_tokenizer().save_pretrained(folder)
    return network


def _tiny_tokenizer() -> Any:
    """CLIP's tokenizer that only knows single letters."""
    from transformers import CLIPTokenizer

    words = [f"{letter}{end}" for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
    vocabulary = {word: index for index, word in enumerate(words)}
    vocabulary |= {"<|startoftext|>": len(words), "<|endoftext|>": len(words) + 1}
    return CLIPTokenizer(vocab=vocabulary, merges=[])


def _random(network: Any, dtype: torch.dtype = torch.float32) -> Any:
    """Weights that make a difference: norms and biases start at 1 and 0 otherwise."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network.to(dtype).eval()
