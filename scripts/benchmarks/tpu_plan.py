"""What published models need of TPU slices: memory per chip, traffic, largest batch that fits.

Compiles with the TPU's own compiler, which needs libtpu and no TPU:

    JAX_PLATFORMS=cpu python scripts/benchmarks/tpu_plan.py
"""

import argparse

from harness import gib, print_machine, print_table
from models import MODELS, run_config

from clp_jax.plan import plan_largest_batch

LENGTHS = {"gpt2-xl": 1024, "bloom-7b1": 2048, "llama-3.1-8b": 4096, "gemma-3-1b": 4096}
SLICES = (
    ("gpt2-xl", "v5litepod-8"),
    ("bloom-7b1", "v5litepod-32"),
    ("bloom-7b1", "v4-32"),
    ("bloom-7b1", "v5p-16"),
    ("llama-3.1-8b", "v5litepod-32"),
    ("llama-3.1-8b", "v5p-16"),
    ("gemma-3-1b", "v5litepod-8"),
)
HEADERS = (
    *("model and slice", "chips", "largest batch per chip"),
    *("state, GiB per chip", "memory, GiB per chip", "received, GiB per chip and step"),
    *("TFLOP per chip and step", "least ms per step"),
)


def row(model: str, accelerator: str, remat: str) -> tuple[str, ...]:
    with run_config(MODELS[model], LENGTHS[model], remat=remat) as config:
        plan = plan_largest_batch(config, accelerator)
    return (
        f"{model} on {accelerator}",
        f"{plan.chips}",
        f"{plan.batch_size // plan.chips} x {plan.sequence_length:,}",
        gib(plan.state_bytes),
        gib(plan.memory_bytes),
        gib(sum(plan.collective_bytes.values())),
        f"{plan.flops / plan.chips / 1e12:.1f}",
        f"{1000 * plan.least_seconds:,.0f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="TEXT", default="", help="slices that hold this text")
    parser.add_argument("--remat", default="full", help="default: %(default)s")
    options = parser.parse_args()
    print_machine("libtpu")
    chosen = (pair for pair in SLICES if options.only in " ".join(pair))
    print_table(HEADERS, (row(*pair, options.remat) for pair in chosen))


if __name__ == "__main__":
    main()
