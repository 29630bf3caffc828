"""The base model, loaded once per process, with a LoRA adapter that is swapped in place.

Decisions:

- A base's name becomes a folder first (llm/bases.py); everything after that, the digest included, reads files. Only
  safetensors weights are read, and no code that comes with the model is run.
- Adapter arrays carry the module's path in the *base* model, ``model.layers.0.self_attn.q_proj.lora_A``, so that
  a hashed adapter does not depend on how PEFT happens to wrap it.
- The scale stays alpha / rank of the spec even when an adapter of another rank is set: the rules of aggregation
  (a stack whose rank grows, organisations of different ranks) all assume one scale.
- Several examples share a row only where a probe shows that the architecture keeps them apart; some (OPT, Mamba,
  ALiBi) ignore positions that restart, and would let them attend to each other without a word.
- NF4 means NF4 with double quantisation. Compute is bfloat16 where the hardware has it, else float32. What is not
  quantised is bfloat16 on CUDA and float32 on the CPU.
"""

import llm.uncompiled  # noqa: F401 - before PEFT, which imports bitsandbytes

# isort: split
import gc
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from core.adapter import AdapterState
from core.canonical import Digest
from core.errors import ModelError, UsageError
from llm.bases import SHARE, check_alone, digest_of, find
from llm.batches import Batch, Example, pack
from llm.lower_blocks import LowerBlocks, lower_blocks
from llm.placement import device_map, free_memory
from llm.shared_base import share
from llm.templates import fix_date, prints_date
from llm.vocabulary import fit

# Progress bars belong to the console.
transformers_logging.disable_progress_bar()

Quantisation = Literal["nf4", "int8", "none"]

_ADAPTER = "default"
_BLOCK = re.compile(r"\.(\d+)\.")
"""The number of a block in a layer's name."""
_LAST_PARTS = {"last-half": 2, "last-third": 3}
"""Of how many equal parts, rounded up, the named one is the last."""


@dataclass(frozen=True)
class ModelSpec:
    """What to load; equal specs share one model in a process."""

    base: str
    """``smollm2``, ``foedus-tiny``, a folder in Hugging Face format, or a name on the Hub."""
    quantisation: Quantisation = "nf4"
    rank: int = 8
    """Rank of a fresh adapter; with alpha it fixes the scale alpha / rank, with `rslora` alpha / √rank."""
    alpha: float = 8.0
    modules: tuple[str, ...] = ()
    """Last parts of the names of the layers that carry the adapter; () is every linear layer but the output's."""
    blocks: str = ""
    """The blocks that carry it, FIRST-LAST from 0; "" or all is every block, last-half and last-third the last part."""
    date: str = ""
    """The date, YYYY-MM-DD, that the chat template prints for today, where it prints one; "" is today's."""
    rslora: bool = False
    """Whether the scale is alpha / √rank."""
    device: str = "auto"
    """``auto`` is CUDA where there is one, else the CPU; a base that one GPU is too small for takes several."""


@dataclass(frozen=True, eq=False)
class Model:
    """A base model with one adapter; `load` makes it."""

    spec: ModelSpec
    folder: Path
    tokenizer: Any
    module: PeftModel
    packs: bool
    """Whether an example is untouched by another one before it in its row."""
    known: Digest | None = None
    """The digest of the base's files, where it was asked for before they were read."""

    @cached_property
    def digest(self) -> Digest:
        """The digest of the base's files."""
        return self.known or digest_of(self.folder)

    @property
    def family(self) -> str:
        """The base's architecture as transformers names it, for example llama."""
        return str(self.module.config.model_type)

    @cached_property
    def layers(self) -> Mapping[str, LoraLayer]:
        """The adapted layers by their path in the base model, sorted."""
        named = dict(self.module.get_base_model().named_modules())
        return {name: named[name] for name in sorted(named) if isinstance(named[name], LoraLayer)}

    @cached_property
    def lower_blocks(self) -> LowerBlocks | None:
        """The blocks below the first adapted one, where there are any and the decoder can be split there."""
        blocks = [int(found[1]) for name in self.layers if (found := _BLOCK.search(name))]
        with self.without_adapter(), self.autocast():
            return lower_blocks(self.module.get_base_model(), min(blocks, default=0))

    def entered(self, batch: Batch) -> Batch:
        """The batch with the hidden states that enter the first adapted block, where those can be had without it."""
        if self.lower_blocks is None:
            return batch
        with self.autocast():
            return self.lower_blocks.passed(batch)

    @cached_property
    def modules(self) -> Mapping[str, tuple[int, int]]:
        """(in_features, out_features) of every adapted layer by its path in the base model."""
        return MappingProxyType({n: (layer.in_features, layer.out_features) for n, layer in self.layers.items()})

    @property
    def precision(self) -> str:
        """Its devices and the types of its weights, which decide how its sums round."""
        weights = list(self.module.parameters())
        kinds = sorted({str(weight.dtype).removeprefix("torch.") for weight in weights})
        return f"{', '.join(sorted({str(weight.device) for weight in weights}))}: {', '.join(kinds)}"

    @cached_property
    def device(self) -> torch.device:
        """Where what it reads enters, and the logits leave; the blocks of a large base may lie elsewhere."""
        return torch.device(self.module.get_base_model().get_input_embeddings().weight.device)

    def rows(self, examples: Sequence[Example], max_length: int) -> list[tuple[int, ...]]:
        """Return which examples share a row: packed where the model `packs`, else each alone."""
        return pack(examples, max_length) if self.packs else [(index,) for index in range(len(examples))]

    def factors(self) -> Iterator[tuple[str, torch.nn.Linear]]:
        """Yield the adapter's factors as (name in an AdapterState, linear layer that holds the weight)."""
        for name, layer in self.layers.items():
            yield f"{name}.lora_A", layer.lora_A[_ADAPTER]
            yield f"{name}.lora_B", layer.lora_B[_ADAPTER]

    def served(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The adapter's factors at a layer as it now stands: scale · B (out, r) and A (r, in), plain values."""
        layer = self.layers[name]
        a, b = layer.lora_A[_ADAPTER].weight.detach(), layer.lora_B[_ADAPTER].weight.detach()
        return layer.scaling[_ADAPTER] * b, a

    def set_adapter(self, state: AdapterState) -> None:
        """Replace the adapter's values by `state`, whose rank may differ from the spec's.

        Raises ModelError, and changes nothing, when a name is missing or extra or a shape does not fit.
        """
        self._check(state)
        for name, linear in self.factors():
            values = torch.from_numpy(np.array(state[name], dtype=np.float32))
            if linear.weight.shape == values.shape:
                with torch.no_grad():
                    linear.weight.copy_(values)
            else:  # the rank has changed, so the parameter itself is another one
                linear.weight = torch.nn.Parameter(values.to(linear.weight.device))
                linear.out_features, linear.in_features = values.shape

    def get_adapter(self) -> AdapterState:
        """Return a copy of the adapter's values in float32."""
        return AdapterState({n: linear.weight.detach().float().cpu().numpy().copy() for n, linear in self.factors()})

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """Inside, the model is the bare base."""
        # The flag itself: PEFT's disable_adapter takes longer than a forward pass, since it describes every layer in
        # words, and it comes back with every factor asking for a gradient.
        before = {layer: layer._disable_adapters for layer in self.layers.values()}
        for layer in before:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer, disabled in before.items():
                layer._disable_adapters = disabled

    @contextmanager
    def scaled_adapter(self, factor: float) -> Iterator[None]:
        """Inside, the adapter's scale is `factor` times what it was."""
        before = {name: layer.scaling[_ADAPTER] for name, layer in self.layers.items()}
        for name, layer in self.layers.items():
            layer.scaling[_ADAPTER] = factor * before[name]
        try:
            yield
        finally:
            for name, layer in self.layers.items():
                layer.scaling[_ADAPTER] = before[name]

    @property
    def end_tokens(self) -> frozenset[int]:
        """The tokens that end a generated answer."""
        ends = self.module.get_base_model().generation_config.eos_token_id
        return frozenset([] if ends is None else [ends] if isinstance(ends, int) else ends)

    @property
    def context_length(self) -> int | None:
        """The most tokens that the base was built for, where it says so."""
        length = getattr(self.module.config.get_text_config(), "max_position_embeddings", None)
        return None if length is None else int(length)

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Inside, a quantised model computes in bfloat16 where the hardware has it."""
        enabled = self.spec.quantisation != "none" and _has_bfloat16(self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled):
            yield

    def _check(self, state: AdapterState) -> None:
        names = {f"{name}.{factor}" for name in self.modules for factor in ("lora_A", "lora_B")}
        if missing := sorted(names - set(state)):
            raise ModelError(f"adapter lacks {len(missing)} of {len(names)} arrays, for example {missing[0]}")
        if extra := sorted(set(state) - names):
            raise ModelError(f"adapter has {len(extra)} arrays that the model does not, for example {extra[0]}")
        for name, (inputs, outputs) in self.modules.items():
            a, b = state[f"{name}.lora_A"].shape, state[f"{name}.lora_B"].shape
            if len(a) != 2 or len(b) != 2 or a != (b[1], inputs) or b != (outputs, a[0]):
                raise ModelError(f"{name}: expected lora_A (r, {inputs}) and lora_B ({outputs}, r), got {a} and {b}")


_KEPT: dict[tuple[ModelSpec, Path], Model] = {}
"""The model of the process: one at most."""


def load(spec: ModelSpec) -> Model:
    """Return the model of `spec`, its `blocks` as "" or FIRST-LAST; the most recent one is kept for the process.

    Raises ModelError when the base cannot be found, read, or lacks a tokenizer, or a layer or block that is named.
    """
    folder = find(spec.base)
    check_alone(folder)
    # Before the cache is asked: a genesis has numbers where settings say last-half, and a date where one is printed.
    day = spec.date or datetime.now(UTC).date().isoformat()
    blocks = _numbered(spec.blocks, folder)
    key = replace(spec, blocks=blocks, date=day if prints_date(folder) else ""), folder
    if key not in _KEPT:
        unload()  # first: two bases may not fit into memory
        _KEPT[key] = _load(*key)
    return _KEPT[key]


def unload() -> None:
    """Give back the memory of the model that the process keeps; the next `load` reads it again."""
    _KEPT.clear()
    gc.collect()  # PEFT's modules refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def tokenizer_in(folder: Path) -> Any:
    """The tokenizer of a base's folder, with its chat template; raises ModelError without one."""
    if not any(folder.glob("tokenizer*")) and not any(folder.glob("vocab*")):
        raise ModelError(f"base model {folder}: expected tokenizer.json beside the weights, got no tokenizer files")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"base model {folder}: its tokenizer cannot be read: {_reason(error)}") from error


def _load(spec: ModelSpec, folder: Path) -> Model:
    tokenizer = tokenizer_in(folder)
    digest = digest_of(folder) if os.environ.get(SHARE) else None
    base = _base(folder, spec, digest)
    try:
        if spec.date:
            fix_date(tokenizer, date.fromisoformat(spec.date))
        fit(tokenizer, base)
        check_causal(base)
    except UsageError as error:
        raise ModelError(f"base model {folder}: {error}") from error
    return replace(adapted(spec, folder, tokenizer, base), known=digest)


def adapted(spec: ModelSpec, folder: Path, tokenizer: Any, base: Any) -> Model:
    """A network with a fresh adapter as `spec` says, its `blocks` as "" or FIRST-LAST.

    Raises ModelError when the network lacks a layer that is named.
    """
    # PEFT draws a fresh A from the global generator: the draws of others must not shift because of it.
    with torch.random.fork_rng(), warnings.catch_warnings():
        # PEFT 0.21 reads a property that transformers 5.23 renamed.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        torch.manual_seed(0)
        module = get_peft_model(base, _lora(spec, base)).eval()
    return Model(spec, folder, tokenizer, module, _keeps_apart(base))


# Every message asks for its base: its configuration is read once.
@lru_cache(maxsize=16)
def _numbered(blocks: str, folder: Path) -> str:
    """The blocks that carry an adapter as FIRST-LAST, "" for all; raises ModelError when the base lacks them."""
    if blocks in ("", "all"):
        return ""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        count = int(config.get_text_config().num_hidden_layers)
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(f"base model {folder}: its number of blocks cannot be read: {_reason(error)}") from error
    blocks = f"{count - -(-count // _LAST_PARTS[blocks])}-{count - 1}" if blocks in _LAST_PARTS else blocks
    numbers = re.fullmatch(r"(\d{1,6})-(\d{1,6})", blocks)
    if not numbers or not int(numbers[1]) <= int(numbers[2]) < count:
        raise ModelError(
            f"target-blocks: expected all, {', '.join(_LAST_PARTS)}, or FIRST-LAST within 0-{count - 1}, got {blocks!r}"
        )
    return "" if (int(numbers[1]), int(numbers[2])) == (0, count - 1) else f"{int(numbers[1])}-{int(numbers[2])}"


def _lora(spec: ModelSpec, base: Any) -> LoraConfig:
    """PEFT's configuration of the layers that carry the adapter; raises ModelError when none has such a name.

    They are the linear layers but the output's, each by its whole name: PEFT's own choice, all-linear, would wrap fused
    experts, in a form that it can't load again.
    """
    first, last = map(int, spec.blocks.split("-")) if spec.blocks else (0, sys.maxsize)
    head = base.get_output_embeddings()
    names = [
        name
        for name, layer in base.named_modules()
        if isinstance(layer, torch.nn.Linear | Conv1D) and layer is not head
        if not spec.blocks or ((block := _BLOCK.search(name)) and first <= int(block[1]) <= last)
        if not spec.modules or name.rpartition(".")[2] in spec.modules
    ]
    ends = {name.rpartition(".")[2] for name in names}
    if absent := sorted(set(spec.modules) - ends) or not names:
        raise ModelError(f"target-modules: expected names of linear layers, got {absent or 'no such layer'}")
    return LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        use_rslora=spec.rslora,
        target_modules=names,
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in base.modules()),
        task_type="CAUSAL_LM",
    )


def _base(folder: Path, spec: ModelSpec, shared: Digest | None) -> Any:
    """The quantised network without an adapter; on a CPU that of all processes where its files' digest is given."""
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(automatic if spec.device == "auto" else spec.device)
    settings = _quantisation(spec.quantisation, device)
    if shared is None or device.type != "cpu":
        return _read(folder, spec, device, quantization_config=settings)
    described = {"quantisation": settings.to_json_string() if settings else "none"}

    def read(source: Path) -> Any:
        # A copy's own configuration says how it is quantised, unless anything is said here.
        return _read(source, spec, device, **({"quantization_config": settings} if source == folder else {}))

    return share(folder, shared, described, read)


def _read(folder: Path, spec: ModelSpec, device: torch.device, **options: Any) -> Any:
    """The network of a folder, with options of transformers."""
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"base model {folder}: expected *.safetensors and config.json, got no safetensors weights")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    # A GPU that is named, by its number, is the only one.
    several = device.type == "cuda" and device.index is None and torch.cuda.device_count() > 1
    try:
        base, found = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map=device_map(folder, options.get("quantization_config"), dtype, free_memory())
            if several
            else {"": device},
            attn_implementation="sdpa",
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"base model {folder} cannot be loaded as {spec.quantisation}: {_reason(error)}") from error
    if missing := sorted(found["missing_keys"]):
        # transformers would draw them at random, other ones in every process.
        raise ModelError(
            f"base model {folder}: expected weights of {missing[0]}, got none ({len(missing)} are missing)"
        )
    for layer in base.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            # Otherwise the first no-grad forward repacks the weights for good: later logits differ.
            layer.support_avx512bf16_for_cpu = False
    return base


def check_causal(base: Any) -> None:
    """Raise ModelError for an encoder, whose logits know the tokens that they are to predict."""
    entered: list[torch.Tensor] = []

    def leaf(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        entered.append(output.detach().requires_grad_())
        return entered[0]

    handle = base.get_input_embeddings().register_forward_hook(leaf)
    try:
        logits = base(input_ids=torch.tensor([[1, 2, 3, 4]], device=base.device), use_cache=False).logits
    finally:
        handle.remove()
    # The gradient, and not other tokens' logits: it is exactly zero, however a kernel rounds.
    (gradient,) = torch.autograd.grad(logits[0, 2].sum(), entered[0])
    if gradient[0, 3].any():
        raise ModelError(f"expected a decoder, got {type(base).__name__}, whose logits depend on later tokens")


def _keeps_apart(base: Any) -> bool:
    """Whether an example's logits are the same after either of two others in its row."""
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]], device=base.device)
    logits = []
    for first in ((4, 5, 6), (7, 8, 9)):
        tokens = torch.tensor([[*first, 1, 2, 3]], device=base.device)
        with torch.no_grad():
            logits.append(base(input_ids=tokens, position_ids=positions, use_cache=False).logits[0, 3:])
    return torch.equal(*logits)


def _quantisation(quantisation: Quantisation, device: torch.device) -> BitsAndBytesConfig | None:
    """The settings of bitsandbytes; None for a base that is not quantised."""
    if quantisation == "none":
        return None
    if quantisation == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if _has_bfloat16(device) else torch.float32,
    )


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Without AVX-512 BF16 the CPU emulates bfloat16, many times slower than float32.
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def _reason(error: Exception) -> str:
    """Why a base cannot be read, in one line."""
    # The library would advise to run it.
    if "trust_remote_code" in str(error):
        return "expected a base without code of its own, which is never run, got one that brings some"
    return _first_line(error)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
