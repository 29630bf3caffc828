"""Set attention heads that copy into a half-trained model, because a few million tokens do not grow them.

What lets a transformer repeat a figure or a name from the prompt is an induction circuit (Olsson et al. 2022): a head
that notes beside every token which token came before it, and a later head that looks for the place after an earlier
occurrence of the present token and writes what stands there. Its two halves are useless one by one, so gradient
descent finds them late, after hundreds of millions of tokens, which a base trained on one core never sees. Here the
first half is written down exactly and the second is fitted by least squares; training then goes on and refines both.

The construction, for a Llama with biases in its attention:

- Layer 0, first key-value group. Queries and keys are constants (biases), rotated by RoPE: with key angle θ_i and
  query angle 0 the score Σ_i cos θ_i (m − n − 1) peaks at the previous token, with query angle θ_i at the token itself.
  Values carry a code p(t) of the token; each of the two heads writes it into 32 directions of the residual stream, of
  least variance, from which all later readers are cut off.
- Layer 2, first two groups. Queries read p(t_m) and keys p(t_{n−1}), each through half of the code, in the rotary
  pairs that turn slowest; values read p(t_n) and write its embedding, shrunk to the span of the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

MATCHING_LAYER = 2
CODE = 32
"""Width of the token code: one head's value."""
SPAN = 48
"""The code is drawn from so many of the directions in which later layers still know the token best."""
SHARPNESS = 8.0
CODE_GAIN, MATCH_GAIN, COPY_GAIN = 12.0, 1.8, 400.0


@dataclass(frozen=True)
class Reading:
    """A layer's normalised inputs (N, hidden), with the token at each place and the one before it (N,)."""

    inputs: Tensor
    tokens: Tensor
    previous: Tensor


@torch.no_grad()
def set_copying_heads(model: PreTrainedModel, documents: Sequence[Sequence[int]], seed: int) -> None:
    """Overwrite heads of `model` as above, fitted on `documents` (token ids). Expects 32-wide heads in pairs.

    Raises ValueError for a family that normalises queries and keys: a bias cannot set their size there.
    """
    if hasattr(model.model.layers[0].self_attn, "q_norm"):
        raise ValueError(f"expected a model without query and key norms, got {model.config.model_type}")
    torch.manual_seed(seed)
    table = model.model.embed_tokens.weight - model.model.embed_tokens.weight.mean(0)
    code = _token_code(table, read(model, MATCHING_LAYER, documents))
    quiet = _quiet_directions(model, documents)
    own, before = quiet[:, CODE:], quiet[:, :CODE]
    _set_positional_heads(model, fit(read(model, 0, documents), code), before, own)
    _cut_off_readers(model, torch.cat([before, own], dim=1))
    _set_matching_heads(model, read(model, MATCHING_LAYER, documents), code, table)


def read(model: PreTrainedModel, layer: int, documents: Sequence[Sequence[int]]) -> Reading:
    """Collect what `layer` reads at every place of the documents but the first."""
    rows: list[Tensor] = []
    norm = model.model.layers[layer].input_layernorm
    # The first place of a document has no token before it.
    hook = norm.register_forward_hook(lambda _module, _arguments, out: rows.append(out[0, 1:]))
    for document in documents:
        model.model(input_ids=torch.tensor([document]), use_cache=False)
    hook.remove()
    tokens = [torch.tensor(document) for document in documents]
    return Reading(torch.cat(rows), torch.cat([t[1:] for t in tokens]), torch.cat([t[:-1] for t in tokens]))


def fit(reading: Reading, code: Tensor, *, before: bool = False) -> Tensor:
    """Return the ridge regression (width, hidden) from a layer's inputs to the code of each (or the previous) token."""
    x = reading.inputs
    target = code[reading.previous if before else reading.tokens]
    # The identity keeps the system solvable in directions that hardly vary.
    gram = x.T @ x + torch.eye(x.shape[1])
    weights: Tensor = torch.linalg.solve(gram, x.T @ target)
    return weights.T


def _token_code(table: Tensor, reading: Reading) -> Tensor:
    """Return a code (vocabulary, CODE): a random rotation of the whitened embedding's best preserved directions."""
    _, sizes, directions = torch.linalg.svd(table, full_matrices=False)
    white = table @ (directions.T / (sizes / len(table) ** 0.5))
    known = reading.inputs @ fit(reading, white).T
    _, kept = torch.linalg.eigh(known.T @ known)
    rotation, _ = torch.linalg.qr(torch.randn(SPAN, SPAN))
    code: Tensor = white @ (kept[:, -SPAN:] @ rotation[:, :CODE])
    return code


def _quiet_directions(model: PreTrainedModel, documents: Sequence[Sequence[int]]) -> Tensor:
    """Return the 2 · CODE directions (hidden, 2 · CODE) in which the residual stream varies least."""
    rows: list[Tensor] = []
    hook = model.model.layers[MATCHING_LAYER].register_forward_pre_hook(lambda _module, args: rows.append(args[0][0]))
    for document in documents:
        model.model(input_ids=torch.tensor([document]), use_cache=False)
    hook.remove()
    directions: Tensor = torch.linalg.eigh(torch.cat(rows).T.cov())[1]
    return directions[:, : 2 * CODE]


def _set_positional_heads(model: PreTrainedModel, values: Tensor, before: Tensor, own: Tensor) -> None:
    """Make the heads of layer 0's first group attend to the previous token and to the token itself."""
    attention, width = model.model.layers[0].self_attn, CODE
    turns = 1.0 / model.config.rope_parameters["rope_theta"] ** (torch.arange(width // 2) / (width // 2))
    turned, straight = torch.cat([turns.cos(), turns.sin()]), torch.cat([torch.ones(16), torch.zeros(16)])
    attention.q_proj.weight[: 2 * width] = 0.0
    attention.q_proj.bias[: 2 * width] = SHARPNESS * torch.cat([straight, turned])
    attention.k_proj.weight[:width] = 0.0
    attention.k_proj.bias[:width] = SHARPNESS * turned
    attention.v_proj.weight[:width] = values
    attention.o_proj.weight[:, : 2 * width] = CODE_GAIN * torch.cat([before, own], dim=1)


def _cut_off_readers(model: PreTrainedModel, directions: Tensor) -> None:
    """Make every matrix that reads the residual stream after layer 0's attention blind to `directions`."""
    for i, layer in enumerate(model.model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        readers = [(layer.post_attention_layernorm.weight, [mlp.gate_proj, mlp.up_proj])]
        if i > 0:
            readers.append((layer.input_layernorm.weight, [attention.q_proj, attention.k_proj, attention.v_proj]))
        for gain, matrices in readers:
            for matrix in matrices:
                matrix.weight -= ((matrix.weight * gain) @ directions @ directions.T) / gain


def _set_matching_heads(model: PreTrainedModel, reading: Reading, code: Tensor, table: Tensor) -> None:
    """Make one head of each of the matching layer's first two groups find and copy what followed a token."""
    attention, width = model.model.layers[MATCHING_LAYER].self_attn, CODE
    # Rotary pairs are (i, i + 16); their slower half hardly turns within a row.
    slow = [i for i in range(width) if i % 16 >= 8]
    now, before = fit(reading, code), fit(reading, code, before=True)
    decode = torch.linalg.lstsq(code, table).solution.T / model.model.norm.weight[:, None]
    for group in range(2):
        half, head = slice(16 * group, 16 * group + 16), slice(2 * width * group, 2 * width * group + width)
        key = slice(width * group, width * group + width)
        query_rows, key_rows = torch.zeros(width, now.shape[1]), torch.zeros(width, now.shape[1])
        query_rows[slow], key_rows[slow] = now[half], before[half]
        attention.q_proj.weight[head] = MATCH_GAIN * query_rows
        attention.k_proj.weight[key] = MATCH_GAIN * key_rows
        attention.v_proj.weight[key] = now
        attention.o_proj.weight[:, 2 * width * group : 2 * width * (group + 1)] = 0.0
        attention.o_proj.weight[:, head] = COPY_GAIN * decode
