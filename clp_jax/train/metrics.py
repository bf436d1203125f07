"""What a run reports to metrics.jsonl, TensorBoard, Weights & Biases and the console."""

import json
import math
import re
import resource
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import jax
from etils import epath
from tqdm import tqdm

from clp_jax.errors import UserError
from clp_jax.files import is_address, new_file, parse_json, regular_file
from clp_jax.mesh import peak_flops
from clp_jax.train.goodput import TimeSpent, time_before
from clp_jax.train.trackers import EventFile

T = TypeVar("T")

METRICS = "metrics.jsonl"
_LONGEST_LINE = 1 << 20
_SET = re.compile(r"validation/(?:(.+)/)?byte_perplexity")
TENSORBOARD = "tensorboard"
COUNTED = ("skipped", "spike", "tokens")
"""Metrics of a step that are counted, not reported step by step."""


def read_metrics(run_folder: str | Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics in the order of the steps; null is read as NaN.

    A last line that a power failure tore or filled with zero bytes is left out.

    Raises:
        UserError: the file or one of its lines was not written by a run.
    """
    file = epath.Path(run_folder) / METRICS
    if not file.exists():
        return []
    if not is_address(str(file)):
        regular_file(str(file))
    lines: list[dict[str, Any]] = []
    with file.open("rb") as stream:
        while line := stream.readline(_LONGEST_LINE):
            if not line.endswith(b"\n") or b"\0" in line:
                break
            lines.append(_parse_line(line, f"{file}, line {len(lines) + 1},"))
    return lines


def _parse_line(line: bytes, name: str) -> dict[str, Any]:
    values = {key: _number(value) for key, value in parse_json(line, name).items()}
    if None in values.values() or not values.keys() >= {"step", "tokens", "seconds"}:
        raise UserError(
            f"{name} is not from a run: it needs step, tokens, seconds and only numbers."
        )
    if not all(isinstance(values[key], int) for key in ("step", "tokens")):
        raise UserError(f"{name} is not from a run: step and tokens must be integers.")
    return values


def _number(value: Any) -> int | float | None:
    """A number in a line, NaN for null; None for any other type."""
    if value is None:
        return math.nan
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


Curve = tuple[tuple[int, float], ...]
"""Tokens trained on, and what was measured then."""


def validation_metric(name: str, figure: str) -> str:
    """A figure of a held-out set: ``validation/FIGURE``, or ``validation/NAME/FIGURE``."""
    return "/".join(filter(None, ("validation", name, figure)))


def validation_sets(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the held-out sets in the lines of a run's metrics; the first decides what is best.

    A set without a name is ``""``.
    """
    found = (_SET.fullmatch(key) for line in lines for key in line)
    return list(dict.fromkeys(match[1] or "" for match in found if match))


def validation_curve(
    lines: Sequence[Mapping[str, Any]], unit: str = "token", name: str | None = None
) -> Curve:
    """Tokens trained on and perplexity per ``unit`` (token, word or byte) at each validation.

    Args:
        lines: The lines of a run's metrics.
        unit: What the perplexity is normalised by.
        name: The held-out set; by default the first.
    """
    if name is None:
        name = next(iter(validation_sets(lines)), "")
    key = validation_metric(name, f"{unit}_perplexity")
    return tuple((line["tokens"], line[key]) for line in lines if key in line)


def bits_per_byte(lines: Sequence[Mapping[str, Any]]) -> dict[str, Curve]:
    """Tokens trained on and bits per byte at each validation, by the name of the held-out set."""
    return {
        name: tuple(
            (tokens, math.log2(value)) for tokens, value in validation_curve(lines, "byte", name)
        )
        for name in validation_sets(lines)
    }


def memory_high_water() -> dict[str, int]:
    """Peak bytes in use so far, on one device of this process and on the host.

    The device's peak is left out where the backend does not report it, as on CPUs.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [found["peak_bytes_in_use"] for found in stats if "peak_bytes_in_use" in found]
    unit = 1 if sys.platform == "darwin" else 1024
    host = {"host_peak_bytes": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    return {"device_peak_bytes": max(peaks)} | host if peaks else host


class RunLog:
    """Writes the metrics of a run; process 0 writes, the others only keep time.

    A line of ``metrics.jsonl`` has ``step``, ``tokens`` (positions trained on so far: steps times
    batch size times sequence length), ``seconds`` (over all sessions of the run) and values. Those
    under ``train/``, ``validation/`` and ``embeddings/`` are computed, and the same whenever the
    run is repeated; those under ``speed/``, ``time/`` and ``memory/`` are measured. NaN and
    infinite values are written as null. A failed write is a `UserError`. A log that starts after
    step 0 first drops what an interrupted session wrote beyond it. Use it as a context manager.

    Model FLOPs utilisation (MFU, Chowdhery et al. 2022, arXiv 2204.02311, appendix B) is tokens/s
    times ``flops_per_token`` divided by the chips' dense bfloat16 peak.

    Args:
        run_folder: Folder of the run.
        start: Step after which this session starts.
        steps: Steps of the whole run.
        tokens_per_step: Batch size times sequence length.
        flops_per_token: Floating-point operations of a step per token, see `step_flops_per_token`.
        since: `time.monotonic` when this session began.
        wandb: The Weights & Biases run that also gets the values, if any.
    """

    def __init__(
        self,
        run_folder: Path,
        *,
        start: int,
        steps: int,
        tokens_per_step: int,
        flops_per_token: int,
        since: float,
        wandb: Any = None,
    ):
        self.folder = run_folder
        self._steps = steps
        self._tokens_per_step = tokens_per_step
        self._flops_per_token = flops_per_token
        self._wandb = wandb
        self._peak = peak_flops(jax.devices()[0].device_kind)
        self._writes = jax.process_index() == 0
        before: dict[str, float] = {}
        if self._writes:
            before = _drop_lines_beyond(run_folder, start)
            self._file = (run_folder / METRICS).open("ab", buffering=0)
            self._tensorboard = EventFile(run_folder / TENSORBOARD, start)
        self._on_screen = self._writes and sys.stderr.isatty()
        self._bar = tqdm(
            total=steps, initial=start, unit="step", desc="training", disable=not self._on_screen
        )
        self.spent = TimeSpent(since, before)
        self._last = (start, self._working())

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
        if self._writes:
            self._file.close()
            self._tensorboard.close()

    def awaited(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; the wait for each counts as data, and the rest as training."""
        self.spent.go_to("data")
        for batch in batches:
            self.spent.go_to("training")
            yield batch
            self.spent.go_to("data")

    def during(self, stage: str) -> AbstractContextManager[None]:
        """Count the time in this context as a stage other than training."""
        return self.spent.during(stage)

    def training(self, step: int, metrics: Mapping[str, Any], skipped: int) -> None:
        """Write the metrics of a training step, and the speed of the steps since the last line.

        The speed comes with the share of the time spent waiting for batches; the devices may have
        been busy while the host waited.

        Args:
            step: The step.
            metrics: What the compiled step returned.
            skipped: Steps of the whole run that changed nothing.
        """
        computed: dict[str, float | int] = {
            key: float(value) for key, value in metrics.items() if key not in COUNTED
        }
        self.spent.go_to("training")
        since_step, (training, waited) = self._last
        self._last = (step, self._working())
        waited = self._last[1][1] - waited
        seconds = self._last[1][0] - training + waited
        speed = (step - since_step) * self._tokens_per_step / seconds
        measured: dict[str, float | int] = {
            "tokens_per_second": speed,
            "tokens_per_second_per_chip": speed / jax.device_count(),
            "data_wait": waited / seconds,
        }
        if self._peak is not None:
            measured["mfu"] = speed * self._flops_per_token / (self._peak * jax.device_count())
        computed["skipped_steps"] = skipped
        if "loss" in computed:
            computed["perplexity"] = _exp(computed["loss"])
        self._show(step, computed, measured, seconds / (step - since_step))
        self._write(
            step,
            _under("train", computed)
            | _under("speed", measured)
            | _under("time", {**self.spent.seconds, "goodput": self.spent.goodput})
            | _under("memory", memory_high_water()),
        )

    def validation(
        self, step: int, metrics: Mapping[str, Mapping[str, float]], norms: Mapping[str, float]
    ) -> None:
        """Write what was measured on each held-out set, and the norms of the embeddings."""
        self._write(
            step,
            {
                validation_metric(name, figure): value
                for name, figures in metrics.items()
                for figure, value in figures.items()
            }
            | _under("embeddings", norms)
            | _under("time", self.spent.seconds),
        )

    def embeddings(self, step: int, values: Mapping[str, float]) -> None:
        """Write facts about the rows of the embeddings."""
        self._write(step, _under("embeddings", values) | _under("time", self.spent.seconds))

    def advance(self) -> None:
        """Move the progress bar by one step."""
        self._bar.update()

    def print_time(self) -> None:
        """Print where the time of the run went."""
        self.spent.go_to("start")
        if self._writes:
            print(f"\n{self.spent.table()}\n", flush=True)

    def _working(self) -> tuple[float, float]:
        return self.spent.seconds["training"], self.spent.seconds["data"]

    def _show(
        self,
        step: int,
        computed: Mapping[str, float | int],
        measured: Mapping[str, float | int],
        seconds_per_step: float,
    ) -> None:
        """Show the most important values next to the progress bar, or print them without one."""
        losses = {"loss": "loss", "teacher/hidden_states": "hidden states"}
        shown = {
            **{name: f"{computed[key]:.3f}" for key, name in losses.items() if key in computed},
            "tokens/s": f"{measured['tokens_per_second']:,.0f}",
            "data wait": f"{measured['data_wait']:.1%}",
        }
        if "mfu" in measured:
            shown["MFU"] = f"{measured['mfu']:.1%}"
        if computed["skipped_steps"]:
            shown["skipped"] = f"{computed['skipped_steps']:,.0f}"
        if self._on_screen:
            self._bar.set_postfix(shown, refresh=False)
        elif self._writes:
            more = {
                "learning rate": f"{computed['learning_rate']:.3g}",
                "gradient norm": f"{computed['gradient_norm']:.3g}",
                "tokens/s/chip": f"{measured['tokens_per_second_per_chip']:,.0f}",
                "left": tqdm.format_interval((self._steps - step) * seconds_per_step),
            }
            if "perplexity" in computed:
                shown["perplexity"] = f"{computed['perplexity']:,.4g}"
            values = ", ".join(f"{name} {value}" for name, value in (shown | more).items())
            print(f"step {step:,}/{self._steps:,}: {values}", flush=True)

    def _write(self, step: int, values: Mapping[str, float | int]) -> None:
        if not self._writes:
            return
        line = {
            "step": step,
            "tokens": step * self._tokens_per_step,
            "seconds": round(self.spent.total, 3),
            **values,
        }
        try:
            self._file.write(_to_json(line).encode())
            self._tensorboard.write(step, values)
        except OSError as error:
            raise UserError(
                f"{self._file.name} and {TENSORBOARD}/ cannot be written ({error.strerror}): "
                "fix that and resume the run."
            ) from error
        if self._wandb is not None:
            self._wandb.log(line)


def _under(prefix: str, values: Mapping[str, float | int]) -> dict[str, float | int]:
    return {f"{prefix}/{key}": value for key, value in values.items()}


def _exp(loss: float) -> float:
    """The perplexity of a loss; infinite where it overflows."""
    return math.exp(loss) if loss < 700 else math.inf


def _drop_lines_beyond(run_folder: Path, step: int) -> dict[str, float]:
    """Keep the lines up to ``step`` and return the time spent so far."""
    lines = read_metrics(run_folder) if step else []
    kept = [line for line in lines if line["step"] <= step]
    with new_file(run_folder / METRICS) as scratch:
        scratch.write_text("".join(_to_json(line) for line in kept), "utf-8")
    return time_before(lines, kept)


def _to_json(line: Mapping[str, Any]) -> str:
    return json.dumps({k: v if math.isfinite(v) else None for k, v in line.items()}) + "\n"
