"""all-MiniLM-L6-v2 as a sentence encoder: what its import path gives. Imported in the sandbox."""

from __future__ import annotations

from typing import Final

import torch
from transformers import BertConfig, BertModel

CONFIG: Final = BertConfig(
    vocab_size=30522,
    hidden_size=384,
    num_hidden_layers=6,
    num_attention_heads=12,
    intermediate_size=1536,
    max_position_embeddings=512,
    attn_implementation="eager",
)
"""The published model's `config.json`."""


class SentenceEncoder(BertModel):
    """Token ids to one unit vector a sentence: the mean over its tokens, as the model was trained to be read."""

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(batch, tokens) ids and mask, int64, to (batch, 384)."""
        tokens = super().forward(input_ids=input_ids, attention_mask=attention_mask, return_dict=True).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(tokens.dtype)
        mean = (tokens * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=1)


def network() -> torch.nn.Module:
    """The untrained module; its weights come from safetensors."""
    return SentenceEncoder(CONFIG, add_pooling_layer=False)
