"""Memory and time of importing and exporting a checkpoint.

    python scripts/bench_checkpoint.py [--layers 24 --width 2048 --vocabulary 250880]

Writes a random BLOOM of that size to a temporary folder, loads it and writes it again, each in a
process of its own, and prints the peak of the process's own memory (RssAnon: without the pages of
the mapped file, which the kernel may drop at any time) beside the floor: the model, plus the
largest tensor of the checkpoint.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np


def write_random_model(folder: Path, layers: int, width: int, vocabulary: int) -> None:
    from clp_jax.checkpoint.tensors import LazyTensor, write_tensors
    from clp_jax.models import read_decoder_config, weight_table

    config = {
        "model_type": "bloom",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "n_layer": layers,
        "n_head": width // 64,
    }
    (folder / "config.json").write_text(json.dumps(config))
    decoder = read_decoder_config(config)
    rng = np.random.default_rng(0)

    def tensor(shape: tuple[int, ...]) -> LazyTensor:
        return LazyTensor(
            shape, np.dtype(np.float32), lambda rows: rng.random(shape, np.float32)[rows]
        )

    tensors = {
        name: tensor(weight.checkpoint_shape(decoder.sizes))
        for weight in weight_table(decoder)
        for name in weight.names(layers)
    }
    write_tensors(folder, tensors)


def own_memory() -> int:
    """Bytes of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def measure(folder: Path) -> None:
    """Load and export the model in this process and print the figures as JSON."""
    import jax

    from clp_jax.checkpoint.hf import load_model, save_model
    from clp_jax.checkpoint.tensors import open_tensors

    jax.numpy.zeros(1).block_until_ready()
    before, peak, running = own_memory(), 0, True

    def watch() -> None:
        nonlocal peak
        while running:
            peak = max(peak, own_memory())
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    model = load_model(folder)
    jax.block_until_ready(model)
    loaded, load_peak = time.monotonic(), peak
    peak = 0
    save_model(model, folder / "out", origin=folder)
    saved, save_peak = time.monotonic(), peak
    running = False
    watcher.join()
    sizes = [tensor.nbytes for tensor in open_tensors(folder).values()]
    print(
        json.dumps(
            {
                "model": sum(sizes),
                "largest": max(sizes),
                "import": (load_peak - before, loaded - began),
                "export": (save_peak - before, saved - loaded),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=250880)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        return measure(arguments.measure)
    with tempfile.TemporaryDirectory() as folder:
        write_random_model(Path(folder), arguments.layers, arguments.width, arguments.vocabulary)
        output = subprocess.run(
            [sys.executable, __file__, "--measure", folder],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    figures = json.loads(output.splitlines()[-1])
    gb = 1e9
    print(
        f"{date.today()}, {platform.machine()} CPU, jax {version('jax')}; BLOOM with "
        f"{arguments.layers} layers, width {arguments.width}, {arguments.vocabulary:,} tokens, "
        f"float32\n"
    )
    print("| | peak beyond start, GB | model + largest tensor, GB | ratio | seconds |")
    print("|---|---|---|---|---|")
    floor = figures["model"] + figures["largest"]
    for name in ("import", "export"):
        peak, seconds = figures[name]
        print(
            f"| {name} | {peak / gb:.2f} | {floor / gb:.2f} | {peak / floor:.2f} | {seconds:.1f} |"
        )


if __name__ == "__main__":
    main()
