"""The decoder of queries: its smallest forms."""

from __future__ import annotations

import pytest
import torch

from seamless_pr.build.configs import config_from_dict
from seamless_pr.build.networks import build_network
from seamless_pr.models.queries.query_decoder import QueryDecoder
from seamless_pr.structures.image_batch import ImageBatch
from tests.config.test_maskformer_keys import BASE
from tests.support.model_keys import LABEL_SPACE
from tests.support.small_config import smallest

LAYERS = {"num_heads": 4, "hidden_channels": 16, "dropout": 0.0}


@pytest.mark.parametrize("norm_first", [False, True])
def test_without_layers_contents_are_the_learned_vectors_whatever_the_image(norm_first: bool):
    decoder = QueryDecoder(6, 16, 5, num_layers=0, norm_first=norm_first, **LAYERS)
    first, second = decoder(torch.randn(2, 6, 3, 4)), decoder(torch.randn(2, 6, 5, 1))
    assert first.shape == (decoder.num_outputs, 2, 5, 16) == (1, 2, 5, 16)
    assert first.equal(second)
    expected = torch.nn.functional.layer_norm(decoder.query_embed.weight, (16,))
    torch.testing.assert_close(first[0, 1], expected)
    assert len(first[0, 0].unique(dim=0)) == 5, "zeros would make all queries one"
    # Nothing is left that no image would train.
    names = {name for name, _ in decoder.named_parameters()}
    assert names == {"query_embed.weight", "decoder.norm.weight", "decoder.norm.bias"}


def test_a_network_without_layers_has_one_set_of_losses_and_classes_that_no_image_changes():
    model = {**BASE, "queries": {**BASE["queries"], "num_layers": 0}}
    values = smallest(model=model, loss_weights={"query_class": 1.0})
    network = build_network(config_from_dict(values, "test").model, LABEL_SPACE).eval()
    assert network.loss_names == ("query_class", "mask_focal", "mask_dice")
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    logits = network(ImageBatch.from_images(list(pixels)))
    assert logits.classes[0, 0].equal(logits.classes[0, 1])
    assert not logits.masks[0, 0].equal(logits.masks[0, 1])


def test_an_encoder_of_a_memory_that_nobody_reads_is_refused():
    queries = {**BASE["queries"], "num_layers": 0, "num_encoder_layers": 2}
    with pytest.raises(ValueError, match="'num_encoder_layers' is 2, but with 'num_layers' 0"):
        config_from_dict(smallest(model={**BASE, "queries": queries}), "test")
