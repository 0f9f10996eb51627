"""Attention that stops at the beginnings of documents.

B rows, T tokens, V vocab
"""

from typing import Any

import pytest
import torch
from picochat_contract.configs import ModelConfig
from picochat_trainer.model import GPT, KVCache
from picochat_trainer.model.context import document_ids, document_mask, document_positions

VOCAB = 50
BOS = 0
FIRST, SECOND = [BOS, 7, 8, 9, 3], [BOS, 4, 9, 9, 7, 21, 30]
PACKED = torch.tensor([[BOS, 11, *FIRST, *SECOND], [*SECOND, *FIRST, BOS, 5]])


def build(**changes: Any) -> GPT:
    config = ModelConfig(
        **{"n_layer": 2, "n_head": 4, "n_kv_head": 2, "n_embd": 32, "sequence_len": 32} | changes
    )
    model = GPT(config, VOCAB)
    model.init_weights(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.ndim == 2 else 1)  # so that attention is far from uniform
    model.document_token = BOS
    return model


@pytest.mark.parametrize("position_encoding", ["rope", "learned"])
@pytest.mark.parametrize("training", [True, False])
def test_a_packed_document_has_the_logits_it_has_alone(position_encoding: str, training: bool) -> None:
    model = build(position_encoding=position_encoding).train(training)
    with torch.no_grad():
        packed_BTV = model(PACKED)
        for document, places in ((FIRST, (2, 7)), (SECOND, (7, 0))):
            alone_TV = model(torch.tensor([document]))[0]
            for row, start in enumerate(places):
                there_TV = packed_BTV[row, start : start + len(document)]
                torch.testing.assert_close(there_TV, alone_TV, atol=1e-4, rtol=1e-4)


def test_without_a_document_token_the_text_before_is_seen() -> None:
    model = build()
    model.document_token = None
    with torch.no_grad():
        difference = (model(PACKED)[0, 2:7] - model(torch.tensor([FIRST]))[0]).abs().max()
    assert difference > 0.01


def test_losses_of_a_packed_row_are_those_of_its_documents() -> None:
    model = build()
    targets_BT = PACKED.roll(-1, dims=1)
    with torch.no_grad():
        losses_BT = model.token_losses(PACKED, targets_BT)
        alone_BT = model.token_losses(torch.tensor([SECOND]), targets_BT[1:, : len(SECOND)])
    torch.testing.assert_close(losses_BT[1, : len(SECOND)], alone_BT[0], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_cache_takes_no_notice_of_documents() -> None:
    model = build().eval()
    cache = KVCache.empty(model.config, 2, device="cpu", dtype=torch.float32)
    cached_BTV = model(PACKED, cache)
    model.document_token = None
    torch.testing.assert_close(cached_BTV, model(PACKED), atol=1e-5, rtol=1e-5)


def test_ids_positions_and_mask_begin_anew_with_each_document() -> None:
    tokens_BT = torch.tensor([[5, 5, BOS, 5, BOS, BOS]])
    assert document_ids(tokens_BT, BOS).tolist() == [[0, 0, 1, 1, 2, 3]]
    assert document_positions(tokens_BT, BOS).tolist() == [[0, 1, 0, 1, 0, 0]]
    visible_TT = document_mask(document_ids(tokens_BT, BOS))[0]
    assert [[s for s in range(6) if visible_TT[t, s]] for t in range(6)] == [
        [0],
        [0, 1],
        [2],
        [2, 3],
        [4],
        [5],
    ]
