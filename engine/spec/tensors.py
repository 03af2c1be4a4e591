"""A model's tensors checked before anything reads them, and their bytes by what they are for.

`engine.spec.tensor_table` has the tensors that our architectures must have; a few rules hold for every other one.
"""

from __future__ import annotations

import re

from engine.errors import ModelFileError
from engine.gguf.file import GGUFFile, TensorInfo
from engine.gguf.header import DOWNLOAD, shown
from engine.spec.architectures import ARCHITECTURES
from engine.spec.spec import Group, GroupSize, ModelSpec
from engine.spec.tensor_table import pieces, wanted_tensors
from kernels.gpu.sizes import PLANES, device_bytes
from kernels.quants import BY_NAME, MATRIX_TYPES, resident_bytes

FLOATS = frozenset({"F32", "F16", "BF16"})
_F32 = frozenset({"F32"})
_NEVER = frozenset({"F64", "I64", "I16", "I8", "Q8_1", "Q8_K"})
"""Types that no runtime multiplies; llama.cpp crashes on them at the first token."""

_GROUPS: tuple[tuple[re.Pattern[str], Group], ...] = (
    (re.compile(r"^token_embd\."), "embedding"),
    (re.compile(r"^output\."), "output"),
    (re.compile(r"_norm(_\d)?\.|_norm$|^rope_|layer_output_scale"), "norms"),
    (re.compile(r"_exps\.scale$"), "router"),
    (re.compile(r"_shexp\."), "shared"),
    (re.compile(r"_exps\."), "experts"),
    (re.compile(r"ffn_gate_inp|exp_probs_b"), "router"),
    (re.compile(r"\.ffn_(gate|up|down)\."), "dense"),
    (re.compile(r"\.(attn|ssm)_"), "attention"),
)
_LAYER = re.compile(r"^blk\.(\d+)\.")
_ROUTER = re.compile(r"ffn_gate_inp\.weight$")
_VECTOR = re.compile(r"(_norm\.weight|_sinks\.weight|\.bias)$")
_ROPE = re.compile(r"^(blk\.\d+\.)?rope_(freqs|factors_\w+)\.weight$")


def check_types(file: GGUFFile, native: bool) -> None:
    """Refuse tensors in types that crash the runtime, whatever the architecture.

    llama.cpp adds and multiplies with vectors in float32 only, ours reads them in any float. Both take a router
    in any type of matrix.
    """
    allowed = (
        (_ROUTER, MATRIX_TYPES),
        (_VECTOR, FLOATS if native else _F32),
        (_ROPE, _F32),
    )
    for info in file.tensors.values():
        wrong = info.type.name in _NEVER or any(
            pattern.search(info.name) and info.type.name not in types for pattern, types in allowed
        )
        if wrong:
            raise ModelFileError(
                f"{shown(file.path.name)} cannot be used",
                f"Its tensor {shown(info.name)} is stored as {info.type.name},"
                " which no runtime can compute with",
                "Use another version of the model",
            )


def check_tensors(file: GGUFFile, spec: ModelSpec) -> str:
    """Check that everything the native runtime reads is there, in shape and in a type it can take.

    Returns why the model needs another runtime, empty when it needs none.
    Raises `ModelFileError` when a tensor is missing or has the wrong shape or type.
    """
    used = {}
    for wanted in wanted_tensors(spec):
        info = file.tensors.get(wanted.name)
        if info is None:
            raise _damaged(file, f"The tensor {wanted.name} is missing")
        if info.shape != wanted.shape and _without_ones(info.shape) != _without_ones(wanted.shape):
            raise _damaged(
                file,
                f"The tensor {wanted.name} has the shape {list(info.shape)},"
                f" not {list(wanted.shape)}",
            )
        if len(info.shape) < len(wanted.shape):
            return f"its tensor {wanted.name} has fewer dimensions than usual"
        vector = len(wanted.shape) == 1 or wanted.name.endswith(".bias")
        allowed = FLOATS if vector else MATRIX_TYPES
        if info.type.name not in allowed:
            raise _damaged(file, f"The tensor {wanted.name} is stored as {info.type.name}")
        used[wanted.name] = info
    unexpected = [
        name for name, info in file.tensors.items() if name not in used and not _unused(info, spec)
    ]
    if unexpected:
        return f"it has tensors that our engine does not know, such as {shown(unexpected[0])}"
    return ""


class Sizes:
    """Sums of tensors: by group, and for each layer by group."""

    def __init__(self, layers: int) -> None:
        self.groups: dict[Group, GroupSize] = {}
        self.layers: tuple[dict[Group, GroupSize], ...] = tuple({} for _ in range(layers))

    def add(self, name: str, group: Group, size: GroupSize) -> None:
        """Count the tensor `name`."""
        self.groups[group] = self.groups.get(group, GroupSize()) + size
        match = _LAYER.match(name)
        if match is not None and int(match[1]) < len(self.layers):
            layer = self.layers[int(match[1])]
            layer[group] = layer.get(group, GroupSize()) + size


def tensor_sizes(file: GGUFFile, spec: ModelSpec) -> Sizes:
    """Bytes and parameters of each group of tensors, over all layers and in each."""
    sizes = Sizes(spec.layers)
    for info in file.tensors.values():
        group = "unused" if _unused(info, spec) else group_of(info.name)
        cols = info.shape[-1]
        resident = resident_bytes(info.type, info.elements // cols, cols)
        device = _device_bytes(info, spec) if info.type.name in PLANES else 0
        sizes.add(info.name, group, GroupSize(info.nbytes, info.elements, resident, device))
    return sizes


def _device_bytes(info: TensorInfo, spec: ModelSpec) -> int:
    """On a GPU; a joined attn_kv_b becomes two stacks there (`WeightLoader.latent_projections`), and rope's
    factors go into a table."""
    mla = spec.mla
    if _ROPE.match(info.name):
        return 0
    if mla is None or not info.name.endswith("attn_kv_b.weight"):
        parts = [(*info.shape[:-2], part, info.shape[-1]) for part in _pieces(info, spec)]
        return sum(device_bytes(info.name, info.type, shape) for shape in parts or [info.shape])
    keys = BY_NAME["F32" if info.type.name in {"F32", "BF16"} else "F16"]
    return device_bytes("k_b", keys, (spec.heads, mla.kv_lora, mla.nope)) + device_bytes(
        "v_b", info.type, (spec.heads, mla.value, mla.kv_lora)
    )


def _pieces(info: TensorInfo, spec: ModelSpec) -> tuple[int, ...]:
    match = _LAYER.match(info.name)
    if match is None or not spec.native or int(match[1]) >= spec.layers:
        return ()
    return pieces(spec, int(match[1]), info.name[match.end() :])


def group_of(name: str) -> Group:
    """What the tensor called `name` is for."""
    for pattern, group in _GROUPS:
        if pattern.search(name):
            return group
    return "other"


def _unused(info: TensorInfo, spec: ModelSpec) -> bool:
    """Layers behind the last one predict further tokens (DeepSeek-V3); nobody reads them here."""
    match = _LAYER.match(info.name)
    known = spec.architecture in ARCHITECTURES
    return (
        known
        and match is not None
        and spec.layers <= int(match[1]) < spec.layers + spec.extra_layers
    )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without leading dimensions of 1, which some writers leave out."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def _damaged(file: GGUFFile, why: str) -> ModelFileError:
    return ModelFileError(f"{shown(file.path.name)} is damaged", why, DOWNLOAD)
