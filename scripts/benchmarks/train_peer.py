"""The side of PyTorch in scripts/benchmarks/train.py, which starts it: figures as JSON.

Needs torch and transformers alone, so that it can run in an environment of its own.
"""

import argparse
import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import transformers

WARM_UP = 2


class Step:
    """A training step of transformers with the model and tokens of the folder."""

    def __init__(self, options: argparse.Namespace, device: torch.device):
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            options.folder / "model", attn_implementation=options.attention, dtype=torch.float32
        )
        self.model = model.to(device).train()
        decayed, plain = [], []
        for name, parameter in self.model.named_parameters():
            norm_or_bias = name.endswith("bias") or "ln_" in name or "norm" in name
            (plain if norm_or_bias else decayed).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": 0.01},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=1e-4,
            betas=(0.9, 0.98),
            eps=1e-8,
            fused=True,
        )
        tokens = torch.from_numpy(np.load(options.folder / "tokens.npy")[: options.batch])
        self.tokens = tokens.long().to(device)
        self.device = device
        half = options.dtype == "bfloat16"
        self.precision = torch.autocast(device.type, torch.bfloat16) if half else nullcontext()
        self.loss = self._loss
        if device.type == "cuda":
            self.loss = torch.compile(self._loss)

    def _loss(self, tokens: torch.Tensor) -> torch.Tensor:
        logits = self.model(tokens[:, :-1], use_cache=False).logits
        return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())

    def losses(self, steps: int) -> list[float]:
        """Take steps on the same batch; the losses come when all are done."""
        losses = []
        for _ in range(steps):
            with self.precision:
                loss = self.loss(self.tokens)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            losses.append(loss.detach())
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return [float(loss) for loss in losses]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Losses of the warm-up, then time, and the peak memory of a GPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    step = Step(options, device)
    losses = step.losses(WARM_UP)
    began = time.perf_counter()
    step.losses(options.steps)
    figures = {"losses": losses, "seconds": (time.perf_counter() - began) / options.steps}
    memory = {"peak": torch.cuda.max_memory_allocated()} if device.type == "cuda" else {}
    return figures | memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--attention", required=True)
    options = parser.parse_args()
    torch.set_float32_matmul_precision("highest")
    transformers.logging.set_verbosity_error()
    print("ready", flush=True)
    try:
        figures = measure(options)
    except torch.OutOfMemoryError:
        figures = {"out_of_memory": True}
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(json.dumps(figures | {"version": versions}))


if __name__ == "__main__":
    main()
