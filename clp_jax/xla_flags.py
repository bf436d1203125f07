"""Compiler flags that overlap communication with computation."""

import os
from importlib.util import find_spec

GPU_FLAGS = (
    # Collectives start as early and end as late as the data dependencies allow.
    "--xla_gpu_enable_latency_hiding_scheduler=true",
    # In a loop over layers, each layer's parameters are fetched during the previous one and its
    # gradients are sent during the next one.
    "--xla_gpu_enable_pipelined_all_gather=true",
    "--xla_gpu_enable_pipelined_reduce_scatter=true",
    "--xla_gpu_enable_pipelined_all_reduce=true",
)
"""Flags for GPUs. On TPUs the compiler's defaults already overlap."""


def set_compiler_flags() -> None:
    """If JAX is installed for GPUs, add `GPU_FLAGS` to ``XLA_FLAGS`` before a backend starts.

    A flag that the user has set, to any value, stays unchanged.
    """
    if find_spec("jax_cuda13_plugin") is None and find_spec("jax_cuda12_plugin") is None:
        return
    given = os.environ.get("XLA_FLAGS", "")
    names = {flag.partition("=")[0] for flag in given.split()}
    more = [flag for flag in GPU_FLAGS if flag.partition("=")[0] not in names]
    os.environ["XLA_FLAGS"] = " ".join([given, *more]).strip()
