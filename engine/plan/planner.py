"""The plan for a model on a machine: with its GPUs, or on the CPU alone.

It opens no file and imports neither torch nor llama_cpp, so that a plan is there at once. GPUs are
planned in `engine.plan.gpu_planner`, speeds predicted in `engine.plan.speed`.
"""

from __future__ import annotations

import dataclasses

from engine.common.units import count
from engine.errors import ON_CPU, RequestError
from engine.machine.types import Hardware, Problem
from engine.plan.context import check_context, largest_context, wanted_context
from engine.plan.footprint import memory_bytes, quantised_kv_obstacle, weight_bytes
from engine.plan.gpu_planner import gpu_plan
from engine.plan.memory_plan import MemoryPlan, expert_count, ram_ledger, window_words
from engine.plan.speed import predict
from engine.protocol import Auto, Device, KvKind
from engine.spec.spec import ModelSpec


def make_plan(
    source: ModelSpec,
    hardware: Hardware,
    context: int | Auto | None = None,
    device: Device = "auto",
    kv: KvKind = "f16",
) -> MemoryPlan:
    """The plan for a model on a machine. `context` None takes what the engine would choose, "auto" the
    longest that fits. `device` "auto" takes the GPUs where they can be used and something fits.

    `kv` is a wish: for heads that 8 bits do not suit, and where llama.cpp runs the model, the KV cache is in 16 bits,
    and the plan says so. Raises `RequestError` for a context below 1, and for "gpu" where none can be used.
    """
    check_context(context)
    planned, against = None, Problem("")
    in_f16 = quantised_kv_obstacle(source) if kv == "q8" else ""
    if in_f16:
        kv = "f16"
    if not hardware.use_gpus and device == "auto":
        device, against = "cpu", Problem("device is set to cpu" if hardware.gpus else "")
    if device != "cpu" and hardware.gpus:
        found = gpu_plan(source, hardware, context, kv)
        if isinstance(found, Problem):
            against = found
        elif found.fits or device == "gpu":
            return _noting(found, in_f16)
        else:
            planned = found
    if device == "gpu":
        why = against.what or "No NVIDIA GPU was found"
        todo = f"Run `{against.fix}`, or use {ON_CPU}" if against.fix else f"Use {ON_CPU}"
        raise RequestError(f"{source.name} cannot run on the GPU", why, todo)
    alone = _noting(_on_cpu(source, hardware, context, kv), in_f16)
    if planned is None:
        return dataclasses.replace(alone, no_gpu=against.what, gpu_fix=against.fix)
    if not alone.fits:
        return planned
    return dataclasses.replace(alone, no_gpu=f"With the GPU it would be {planned.fit_words}")


def _noting(plan: MemoryPlan, in_f16: str) -> MemoryPlan:
    """The plan, with why its KV cache is not in 8 bits where that was wished."""
    if not in_f16:
        return plan
    return dataclasses.replace(plan, why=(*plan.why, f"The KV cache is in 16 bits: {in_f16}"))


def _on_cpu(
    spec: ModelSpec, hardware: Hardware, context: int | Auto | None, kv: KvKind
) -> MemoryPlan:
    free = hardware.memory.available
    tokens = wanted_context(context, spec, free or 1 << 62, kv)
    ledger = ram_ledger(free, weight_bytes(spec), memory_bytes(spec, tokens, kv), spec)
    fits = not ledger.short
    speed = predict(spec, hardware, tokens, kv)
    longest = min(spec.context, largest_context(spec, free or 1 << 62, kv))
    why = [] if free else ["The size of this machine's memory is not known"]
    why += window_words(spec)
    if kv == "q8":
        why.append("The KV cache is kept in 8 bits")
    if spec.unsupported or not spec.native:
        why.append(
            f"llama.cpp runs it: {spec.unsupported or 'its architecture is not one of ours'}"
        )
    if tokens > spec.context:
        why.append(f"The model was trained for {count(spec.context)} tokens; beyond, it may fail")
    return MemoryPlan(
        model=spec.name,
        quantisation=spec.quantisation,
        machine=hardware.name,
        verdict="CPU" if fits else "does not fit",
        devices=(ledger,),
        context=tokens,
        max_context=max(longest, tokens) if fits else longest,
        runtime=spec.runtime,
        decode_tok_s=speed.decode_tok_s if fits else None,
        prefill_tok_s=speed.prefill_tok_s if fits else None,
        bound_words=speed.bound_words if fits else "",
        prefill_bound_words=speed.prefill_bound_words if fits else "",
        measured=speed.measured and fits,
        prefill_measured=speed.prefill_measured and fits,
        experts=expert_count(spec),
        why=tuple(why),
        assumed=hardware.assumed,
    )
