"""What a run tells about itself: metrics.jsonl, TensorBoard and a progress bar."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
from tensorboardX import SummaryWriter
from tqdm import tqdm

from clp_jax.files import new_file
from clp_jax.mesh import peak_flops

T = TypeVar("T")

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"


def read_metrics(run_folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics in the order of the steps; a torn last line is left out."""
    file = Path(run_folder) / METRICS
    if not file.exists():
        return []
    lines = file.read_text("utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


class RunLog:
    """Writes the metrics of a run; process 0 writes, the others only keep time.

    A line of ``metrics.jsonl`` has ``step``, ``tokens`` (positions trained on so far: steps times
    batch size times sequence length), ``seconds`` (of all the run's sessions) and values. A log
    that starts at a later step than 0 first drops what an interrupted session wrote beyond it. Use
    it as a context.

    Args:
        run_folder: Folder of the run.
        start: Step after which this session starts.
        steps: Steps of the whole run.
        tokens_per_step: Batch size times sequence length.
        flops_per_token: Floating-point operations of training on one token.
    """

    def __init__(
        self,
        run_folder: Path,
        *,
        start: int,
        steps: int,
        tokens_per_step: int,
        flops_per_token: int,
    ):
        self._tokens_per_step = tokens_per_step
        self._flops_per_token = flops_per_token
        self._peak = peak_flops(jax.devices()[0].device_kind)
        self._writes = jax.process_index() == 0
        self._bar = tqdm(
            total=steps, initial=start, unit="step", desc="training", disable=not self._writes
        )
        self._seconds = 0.0
        if self._writes:
            self._seconds = _drop_lines_beyond(run_folder, start)
            self._file = (run_folder / METRICS).open("a", encoding="utf-8")
            self._tensorboard = SummaryWriter(str(run_folder / TENSORBOARD), purge_step=start + 1)
        self._began = time.monotonic()
        self.start_clock(start)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
        if self._writes:
            self._file.close()
            self._tensorboard.close()

    def start_clock(self, step: int) -> None:
        """Measure the speed from here: what came since the last line was not training."""
        self._clock = (step, time.monotonic())
        self._awaited = 0.0

    def awaited(self, batches: Iterator[T]) -> Iterator[T]:
        """The same batches; the time until each comes is measured."""
        asked = time.monotonic()
        for batch in batches:
            self._awaited += time.monotonic() - asked
            yield batch
            asked = time.monotonic()

    def training(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Write the metrics of a training step.

        With them go the speed and the share of the time that was spent waiting for batches, both
        since the clock was started. The devices may have been busy while the host waited.
        """
        (since_step, since), awaited = self._clock, self._awaited
        self.start_clock(step)
        seconds = self._clock[1] - since
        speed = (step - since_step) * self._tokens_per_step / seconds
        values = {
            "train/loss": float(metrics["loss"]),
            "train/learning_rate": float(metrics["learning_rate"]),
            "train/gradient_norm": float(metrics["gradient_norm"]),
            "train/tokens_per_second": speed,
            "train/data_wait": awaited / seconds,
        }
        shown = {
            "loss": f"{values['train/loss']:.3f}",
            "tokens/s": f"{speed:,.0f}",
            "data wait": f"{awaited / seconds:.1%}",
        }
        if self._peak is not None:
            mfu = speed * self._flops_per_token / (self._peak * jax.device_count())
            values["train/mfu"] = mfu
            shown["MFU"] = f"{mfu:.1%}"
        self._bar.set_postfix(shown, refresh=False)
        self._write(step, values)

    def validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write a measurement on the validation corpus, then start the clock."""
        self._write(step, {f"validation/{name}": value for name, value in metrics.items()})
        self.start_clock(step)

    def advance(self) -> None:
        """Move the progress bar by a step."""
        self._bar.update()

    def _write(self, step: int, values: dict[str, float]) -> None:
        if not self._writes:
            return
        line: dict[str, float] = {
            "step": step,
            "tokens": step * self._tokens_per_step,
            "seconds": round(self._seconds + time.monotonic() - self._began, 3),
        }
        self._file.write(json.dumps(line | values) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, global_step=step)


def _drop_lines_beyond(run_folder: Path, step: int) -> float:
    """Keep the lines up to ``step`` and return the seconds of the last of them."""
    kept = [line for line in read_metrics(run_folder) if step and line["step"] <= step]
    with new_file(run_folder / METRICS) as scratch:
        scratch.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
    return kept[-1]["seconds"] if kept else 0.0
