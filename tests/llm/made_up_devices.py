"""A base spread over devices that are made up: tensors lie on the CPU, and say that they lie elsewhere.

The hooks between the blocks are accelerate's. What takes tensors of two devices at once, which GPUs would refuse,
raises here; the numbers are those of the base as it was.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module, remove_hook_from_module
from peft.tuners.lora import LoraLayer
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from llm.model import Model

FIRST, SECOND = torch.device("cpu", 0), torch.device("cpu", 1)
HOST = torch.device("cpu")
_FREE = (torch.autograd.backward, torch.Tensor.backward, torch.Tensor.copy_)
_IN_A_BLOCK = re.compile(r"\.\d+(\.|$)")
_MANY = ("_foreach", "_fused", "_group_tensors")
"""Functions of the optimiser, which sort tensors by device themselves."""


class Devices(TorchFunctionMode):
    """Inside, tensors have the devices that they were moved to; of one that torch itself made none is known."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Any = WeakIdKeyDictionary()
        self.moves = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The result of a call of torch; raises RuntimeError for tensors on several devices."""
        named, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if func == torch.Tensor.device.__get__:
            return self.of.get(args[0], HOST)
        if func in {torch.Tensor.to, torch.Tensor.cpu}:
            return self._moved(func, args, named)
        if func is torch.autograd.grad:
            made = func(*args, **named)
            for gradient, tensor in zip(made, args[1] if isinstance(args[1], list | tuple) else [args[1]], strict=True):
                self._tag(gradient, self.of.get(tensor))
            return made
        if func in _FREE or any(part in name for part in _MANY):
            return func(*args, **named)
        asked = named.get("device")
        if asked is not None:
            named["device"] = HOST
        tensors = [each for each in tree_flatten((args, named))[0] if isinstance(each, torch.Tensor)]
        # A number on the host goes anywhere, and an index on the host goes into anything.
        free = {HOST} if func is torch.Tensor.__getitem__ else set()
        places = {
            self.of[each] for each in tensors if each in self.of and not (_number(each) and self.of[each] == HOST)
        }
        first = self.of.get(tensors[0]) if tensors else HOST
        if len(places - (free - {first})) > 1:
            raise RuntimeError(f"{name}: expected tensors on one device, got {sorted(map(str, places))}")
        made = func(*args, **named)
        place = torch.device(asked) if asked is not None else next(iter(places - (free - {first})), first)
        tree_map(lambda each: self._tag(each, place), made)
        return made

    def _moved(self, func: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any]) -> torch.Tensor:
        tensor, *rest = args
        place = HOST if func is torch.Tensor.cpu else None
        plain: list[Any] = []
        for each in [*rest, named.pop("device", None)]:
            if isinstance(each, torch.Tensor):
                place = self.of.get(each, HOST)
                plain.append(each.dtype)
            elif isinstance(each, str | int | torch.device) and not isinstance(each, bool):
                place = torch.device(each)
            elif each is not None:
                plain.append(each)
        made: torch.Tensor = torch.Tensor.to(tensor, *plain, **named) if plain or named else tensor
        before = self.of.get(tensor)
        if place is not None and place != before and made is tensor:
            made = tensor.view_as(tensor) if func is torch.Tensor.to else tensor.clone()
            self.moves += 1
        self._tag(made, place or before)
        return made

    def _tag(self, made: Any, place: torch.device | None) -> Any:
        if isinstance(made, torch.Tensor) and place is not None:
            self.of[made] = place
        return made


def _number(tensor: torch.Tensor) -> bool:
    return tensor.dim() == 0


class _Hook(AlignDevicesHook):  # type: ignore[misc] # accelerate has no types
    def init_hook(self, module: torch.nn.Module) -> torch.nn.Module:
        return module  # its weights lie there by word alone


@contextmanager
def spread(model: Model, second: tuple[str, ...]) -> Iterator[Devices]:
    """Inside, the parts of a model's base with these names lie on the second device, all else on the first."""
    network, devices = model.module.get_base_model(), Devices()
    for name, module in network.named_modules():
        place = SECOND if name.startswith(second) else FIRST
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            devices.of[tensor] = devices.of.get(tensor, place)
        # As dispatched before the adapter was added: neither its layers nor its factors have hooks.
        added = isinstance(module, LoraLayer) or ".lora_" in name
        if not added and (_IN_A_BLOCK.search(name) or list(module.parameters(recurse=False))):
            add_hook_to_module(module, _Hook(place))
    skipped = network._skip_keys_device_placement
    add_hook_to_module(network, _Hook(FIRST, io_same_device=True, skip_keys=skipped))
    _forget_devices(model)
    try:
        with devices:
            yield devices
    finally:
        remove_hook_from_module(network, recurse=True)
        _forget_devices(model)


def _forget_devices(model: Model) -> None:
    for kept in ("device", "lower_blocks"):
        model.__dict__.pop(kept, None)
