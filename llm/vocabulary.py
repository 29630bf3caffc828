"""How a tokenizer fits the network that it comes with, made sure of once, when a base is loaded.

- Every token has an embedding. Tokens behind the last row that the chat template never writes (Gemma 3 has one for
  images) are taken out of the tokenizer: their text is then text like any other.
- An answer's last token ends it. Beside the end tokens that the base names, that is the special token with which its
  chat template closes an answered turn: many bases that were not trained to chat name another one.
"""

import json
from typing import Any

from tokenizers import Tokenizer

from core.canonical import parse_json
from core.errors import ModelError
from llm.batches import encode
from llm.records import Message, Record

_PROBE = Record((Message("user", "Which one?"),), "This one.")
_LONGEST = 2**20
"""Tokens of the probe: nothing of it is cut."""


def fit(tokenizer: Any, network: Any) -> None:
    """Take tokens without an embedding out of the tokenizer, and name the network's end tokens.

    Raises ModelError when the chat template or the plain vocabulary needs one that has no embedding, and when the
    template cannot write a question and its answer; DataError when it fails on them.
    """
    rows = int(network.get_input_embeddings().weight.shape[0])
    example = encode(tokenizer, _PROBE, _LONGEST)
    added = {int(index): str(token) for index, token in tokenizer.added_tokens_decoder.items()}
    # The plain vocabulary may be scattered: what counts is whether a token can come out of the tokenizer.
    plain = [index for index in tokenizer.get_vocab().values() if index >= rows and index not in added]
    if beyond := sorted({*plain, *(token for token in example.tokens if token >= rows)}):
        raise ModelError(
            f"expected an embedding for each token, got {rows} for a tokenizer with token {beyond[0]}: "
            "resize the embeddings to the tokenizer and save the base again"
        )
    if any(index >= rows for index in added):
        if not hasattr(tokenizer, "backend_tokenizer"):
            raise ModelError(f"expected a tokenizer of at most {rows} tokens, got {len(tokenizer)}")
        state = parse_json(tokenizer.backend_tokenizer.to_str().encode())
        state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < rows]
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))
    named = network.generation_config.eos_token_id
    ends = {named} if isinstance(named, int) else set(named or ())
    ends |= {tokenizer.eos_token_id} - {None}
    if example.tokens[-1] in added:
        ends.add(example.tokens[-1])
    network.generation_config.eos_token_id = sorted(ends) or None
