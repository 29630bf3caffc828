"""Tiny random models of many architectures, saved as folders that `load` reads like any other."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.cohere import CohereConfig
from transformers.models.gemma3 import Gemma3TextConfig
from transformers.models.glm4 import Glm4Config
from transformers.models.gpt2 import GPT2Config
from transformers.models.granite import GraniteConfig
from transformers.models.llama import LlamaConfig
from transformers.models.mistral import MistralConfig
from transformers.models.mixtral import MixtralConfig
from transformers.models.opt import OPTConfig
from transformers.models.phi import PhiConfig
from transformers.models.qwen2 import Qwen2Config
from transformers.models.qwen3 import Qwen3Config
from transformers.models.smollm3 import SmolLM3Config
from transformers.models.stablelm import StableLmConfig

from llm.model import Model, ModelSpec, Quantisation, load
from llm.records import Message, Record

CHAT = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}{{ '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
_SIZES = {
    "vocab_size": 260,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 256,
    "bos_token_id": 257,
    "eos_token_id": 258,
    "pad_token_id": 256,
    # Wide enough for a base whose answers depend on the prompt.
    "initializer_range": 0.2,
}
CONFIGS = {
    "llama": lambda: LlamaConfig(**_SIZES, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**{k: v for k, v in _SIZES.items() if k != "head_dim"}),
    "qwen3": lambda: Qwen3Config(**_SIZES),
    "gemma3": lambda: Gemma3TextConfig(
        **_SIZES, sliding_window=8, layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=12
    ),
    "smollm3": lambda: SmolLM3Config(**_SIZES, no_rope_layers=[1, 0]),
}
ARCHITECTURES = tuple(CONFIGS)
TERMS = 260 + 2 * 80
"""The longest sum behind a loss: the softmax over the vocabulary, and the two blocks with their inner features."""
# Its positions come from the attention mask: examples in one row would attend to each other.
CONFIGS["opt"] = lambda: OPTConfig(
    vocab_size=260, hidden_size=48, word_embed_proj_dim=48, ffn_dim=80, num_hidden_layers=2, num_attention_heads=4
)
_NARROW = {name: size for name, size in _SIZES.items() if name != "head_dim"}
CONFIGS |= {
    "mistral": lambda: MistralConfig(**_SIZES, sliding_window=None),
    "phi": lambda: PhiConfig(**_NARROW),
    "gpt2": lambda: GPT2Config(
        vocab_size=260, n_embd=48, n_layer=2, n_head=4, n_positions=256, bos_token_id=257, eos_token_id=258
    ),
    "mixtral": lambda: MixtralConfig(**_NARROW, num_local_experts=4),
    # Named like Llama and built otherwise: scaled streams, another norm, norms behind what is written.
    "granite": lambda: GraniteConfig(**_NARROW, embedding_multiplier=6.0, residual_multiplier=0.3, logits_scaling=4.0),
    "stablelm": lambda: StableLmConfig(**_NARROW, partial_rotary_factor=0.5),
    "cohere": lambda: CohereConfig(**_NARROW),
    "glm4": lambda: Glm4Config(**_SIZES),
}

Loader = Callable[..., Model]


def byte_tokenizer(chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without merges: token i is byte i in the byte-level alphabet."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate(alphabet)}
    vocabulary |= {"<pad>": 256, "<s>": 257, "</s>": 258, "<unk>": 259}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=chat_template, **special)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a tiny random model of an architecture."""
    made: dict[str, Path] = {}

    def make(architecture: str) -> Path:
        if architecture not in made:
            folder = tmp_path_factory.mktemp(architecture)
            with torch.random.fork_rng():
                torch.manual_seed(1)
                AutoModelForCausalLM.from_config(CONFIGS[architecture]()).save_pretrained(folder)
            byte_tokenizer(CHAT).save_pretrained(folder)
            made[architecture] = folder
        return made[architecture]

    return make


@pytest.fixture(scope="session")
def load_tiny(base_folder: Callable[[str], Path]) -> Loader:
    """Load a tiny model by architecture and quantisation; rank 4, scale 2."""

    def load_one(
        architecture: str = "llama", quantisation: Quantisation = "none", rank: int = 4, device: str = "cpu"
    ) -> Model:
        return load(ModelSpec(str(base_folder(architecture)), quantisation, rank, 2.0 * rank, device=device))

    return load_one


@pytest.fixture
def records() -> tuple[Record, ...]:
    """Sixteen short questions with answers that can be learnt."""
    return tuple(question(f"How many are {i} and {i}?", f"They are {2 * i}.") for i in range(16))


def question(prompt: str, answer: str) -> Record:
    return Record((Message("user", prompt),), answer)
