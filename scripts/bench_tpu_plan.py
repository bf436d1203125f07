"""What published models need of TPU slices: memory of a chip, traffic, largest batch that fits.

Compiles with the TPU's own compiler, which needs libtpu and no TPU:

    JAX_PLATFORMS=cpu python scripts/bench_tpu_plan.py
"""

import argparse
import json
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path

from clp_jax.config import RunConfig
from clp_jax.evaluate.tables import markdown_table
from clp_jax.plan import GIB, Plan, plan_largest_batch

MODELS = {
    "gpt2-xl": {
        "model_type": "gpt2",
        "vocab_size": 50257,
        "n_embd": 1600,
        "n_layer": 48,
        "n_head": 25,
        "n_positions": 1024,
    },
    "bloom-7b1": {
        "model_type": "bloom",
        "vocab_size": 250880,
        "hidden_size": 4096,
        "n_layer": 30,
        "n_head": 32,
    },
}
LENGTHS = {"gpt2-xl": 1024, "bloom-7b1": 2048}
SETTINGS = (
    ("gpt2-xl", "v5litepod-8"),
    ("bloom-7b1", "v5litepod-32"),
    ("bloom-7b1", "v4-32"),
    ("bloom-7b1", "v5p-16"),
)


def largest(model: str, accelerator: str, remat: str) -> Plan:
    with tempfile.TemporaryDirectory() as folder:
        values = MODELS[model] | {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        (Path(folder) / "config.json").write_text(json.dumps(values))
        config = RunConfig.from_dict(
            {
                "model": {"path": folder},
                "data": {"train": "none", "sequence_length": LENGTHS[model]},
                "train": {"out": "none", "steps": 1000, "remat": remat},
            }
        )
        return plan_largest_batch(config, accelerator)


def row(model: str, plan: Plan) -> tuple[str, ...]:
    rows = plan.batch_size // plan.chips
    moved = sum(plan.collective_bytes.values())
    return (
        f"{model} on {plan.accelerator}",
        f"{plan.chips}",
        f"{rows} x {plan.sequence_length:,}",
        f"{plan.state_bytes / GIB:.2f}",
        f"{plan.memory_bytes / GIB:.2f}",
        f"{moved / GIB:.2f}",
        f"{plan.flops / plan.chips / 1e12:.1f}",
        f"{1000 * plan.least_seconds:,.0f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="TEXT", default="", help="settings that hold this text")
    parser.add_argument("--remat", default="full", help="default: %(default)s")
    arguments = parser.parse_args()
    rows = []
    for model, accelerator in SETTINGS:
        if arguments.only in f"{model} {accelerator}":
            rows.append(row(model, largest(model, accelerator, arguments.remat)))
            print(rows[-1], flush=True)
    print(f"\n{date.today()}, jax {version('jax')}, libtpu {version('libtpu')}\n")
    header = (
        "model and slice",
        "chips",
        "largest batch of a chip",
        "state, GiB a chip",
        "memory, GiB a chip",
        "received, GiB a chip and step",
        "TFLOP a chip and step",
        "least ms a step",
    )
    print(markdown_table(header, rows))


if __name__ == "__main__":
    main()
