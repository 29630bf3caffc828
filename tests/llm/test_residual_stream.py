from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from core.errors import ModelError
from llm import residual_stream as module
from llm.model import Model, ModelSpec, load
from llm.residual_stream import ResidualStream, Writes, residual_stream, watched_writes
from tests.llm.conftest import ARCHITECTURES, Loader
from tests.llm.small_decoder import DOWN, Decoder, O, RootMeanSquare, V, linear, small_model
from tests.llm.test_model import random_adapter

EYE = [[float(i == j) for j in range(4)] for i in range(4)]
ZERO = [[0.0] * 4] * 4
ROW = [[1.0, 0.0, 0.0, 0.0]]


def model() -> Model:
    """The embedding (1, 1, 1, 0), of which o_proj writes (0, 0, 0, 3) and down_proj (2, 2, 2, 0)."""
    network = Decoder([[1.0, 1.0, 1.0, 0.0]] * 2, (EYE, ZERO, ZERO), RootMeanSquare([1.0] * 4), [EYE[0], EYE[3]])
    return small_model(network, {O: ([[0.0], [0.0], [0.0], [3.0]], ROW), DOWN: ([[2.0], [2.0], [2.0], [0.0]], ROW)})


def test_the_writers_of_a_decoder_and_its_last_block() -> None:
    stream = residual_stream(small := model())
    assert stream.writers == {O: None, DOWN: None}
    assert stream.last_block == (O, "model.layers.0.mlp")
    network = small.module.get_base_model()
    assert (stream.embedding, stream.norm, stream.head) == (network.model.embed, network.model.norm, network.lm_head)
    assert stream.mlps == {"model.layers.0.mlp": network.model.layers[0].mlp}


def test_a_block_with_norms_behind_its_writers_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_adds_up", lambda *_: True)  # the typed block passes no such norm
    small = model()
    block = small.module.get_base_model().model.layers[0]
    block.post_attention_layernorm, block.post_feedforward_layernorm = nn.Identity(), nn.Identity()
    writers = residual_stream(small).writers
    assert writers == {O: block.post_attention_layernorm, DOWN: block.post_feedforward_layernorm}


def test_a_norm_before_the_mlp_is_none_of_them() -> None:
    small = model()
    small.module.get_base_model().model.layers[0].post_attention_layernorm = nn.Identity()
    assert residual_stream(small).writers == {O: None, DOWN: None}


def test_decoders_of_another_build_are_refused() -> None:
    values = small_model(
        Decoder(EYE[:2], (ZERO, EYE, ZERO), nn.Identity(), EYE[2:]), {V: ([[0.0]] * 4, ROW)}
    )  # its writers are not adapted
    capped, other = model(), model()
    capped.module.get_base_model().config.final_logit_softcapping = 30.0
    del other.module.get_base_model().model.norm
    for refused in (values, capped, other):
        with pytest.raises(ModelError, match="expected a decoder like Llama's, got Decoder"):
            residual_stream(refused)


@pytest.mark.parametrize("architecture", ["granite", "stablelm", "cohere", "glm4"])
def test_a_decoder_whose_parts_are_not_its_logits_is_refused(load_tiny: Loader, architecture: str) -> None:
    """Their layers have the names of Llama's; scores read off them would be wrong, or all zero."""
    with pytest.raises(ModelError, match="expected a decoder like Llama's, got"):
        residual_stream(load_tiny(architecture))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_parts_of_known_decoders_are_their_logits(load_tiny: Loader, architecture: str) -> None:
    (small := load_tiny(architecture)).set_adapter(random_adapter(small, rank=4, seed=3))
    assert len(residual_stream(small).writers) == 4


def test_a_forward_pass_fills_the_writes() -> None:
    small = model()
    with torch.no_grad(), watched_writes(small) as writes:
        small.module.get_base_model()(input_ids=torch.tensor([[0, 1]]))
    last = writes.at((0, slice(-1, None)))
    outputs = {name: tensor.tolist() for name, tensor in last.outputs.items()}
    assert outputs.pop("norm") == [pytest.approx([1, 1, 1, 1])]
    assert outputs == {
        "embedding": [[1, 1, 1, 0]],
        O: [[0, 0, 0, 3]],
        f"{O}.base": [[0, 0, 0, 0]],
        DOWN: [[2, 2, 2, 0]],
        f"{DOWN}.base": [[0, 0, 0, 0]],
    }
    assert last.inputs["norm"].tolist() == [[3, 3, 3, 3]]
    assert last.inputs[DOWN].tolist() == [[1, 1, 1, 3]]


def writes(writer_norm: nn.Module | None) -> Writes:
    """The last norm has the gain (2, 4) and read (3, 3): its constant is (2, 4) / 3."""
    head = nn.Linear(2, 2)
    head.weight, head.bias = linear([[1.0, 1.0], [0.0, 1.0]]).weight, nn.Parameter(torch.tensor([0.5, 0.25]))
    stream = ResidualStream({"writer": writer_norm}, {}, nn.Identity(), RootMeanSquare([2.0, 4.0]), head)
    outputs = {"embedding": torch.tensor([[3.0, 0.0]]), "writer": torch.tensor([[0.0, 2.0]])}
    outputs["writer.base"] = torch.tensor([[0.0, 1.0]])
    return Writes(stream, {"norm": torch.tensor([[3.0, 3.0]])}, outputs)


def test_readers_are_the_tokens_rows_times_the_norm_s_constant() -> None:
    with torch.no_grad():
        readers, base = writes(None).readers(torch.tensor([0]))
    assert readers["writer"].tolist() == [pytest.approx([2 / 3, 4 / 3])]
    assert base.tolist() == pytest.approx([3 * 2 / 3 + 1 * 4 / 3 + 0.5])


def test_a_writer_s_own_norm_is_read_through_too() -> None:
    """Behind the writer stands a norm of gain (1, 3), that read (0, 2): its constant is (1, 3) / √2."""
    with torch.no_grad():
        readers, base = writes(RootMeanSquare([1.0, 3.0])).readers(torch.tensor([1]))
    assert readers["writer"].tolist() == [pytest.approx([0, 4 / 3 * 3 / 2**0.5])]
    assert base.tolist() == pytest.approx([0 + 4 / 2**0.5 + 0.25])


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_writers_without_an_adapter_count_to_the_base(base_folder: Callable[[str], Path], architecture: str) -> None:
    partly = load(ModelSpec(str(base_folder(architecture)), "none", 4, 8.0, blocks="last-third", device="cpu"))
    partly.set_adapter(random_adapter(partly, rank=4, seed=3))
    tokens = torch.tensor([[5, 6, 7]])
    with torch.no_grad(), watched_writes(partly) as writes:
        logits = partly.module.get_base_model()(input_ids=tokens).logits[0, :-1].double()
    before = writes.at((0, slice(0, -1)))
    readers, base = before.readers(tokens[0, 1:])
    assert set(readers) == {"model.layers.1.self_attn.o_proj", "model.layers.1.mlp.down_proj"}
    taught = sum(
        (reader.double() * (before.outputs[name] - before.outputs[f"{name}.base"]).double()).sum(-1)
        for name, reader in readers.items()
    )
    assert torch.allclose(base + taught, logits.gather(-1, tokens[0, 1:, None]).squeeze(-1), rtol=1e-4, atol=1e-4)
