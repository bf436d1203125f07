"""Problems for the methods and what they should answer, and tiny checkpoints."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from clp_jax.checkpoint.hub import copy_tokenizer
from clp_jax.checkpoint.tensors import LazyTensor, write_tensors
from clp_jax.mesh import make_mesh, single_device_mesh
from clp_jax.transfer.problem import Problem

SHARED = ["<|endoftext|>", "a", "b", "in", "die", "war", "hand", "1", "2", "3", "4", "."]
ENGLISH = [*SHARED, "the", "house", "cat", "sun"]
GERMAN = ["<s>", "</s>", "<pad>", *reversed(SHARED), "der", "haus", "katze", "sonne", "mond"]


@pytest.fixture(scope="session")
def oracle():
    """The functions of oracle.py, which tests cannot import."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("oracle.py"))))


@pytest.fixture(params=[1, 8], ids=["1 device", "8 devices"])
def mesh(request):
    return single_device_mesh() if request.param == 1 else make_mesh(2, 2, 2)


@pytest.fixture
def problem(mesh):
    """Random problems of one shape, so that each program is compiled once."""

    def make(*, queries=300, anchors=120, features=12, center=1.0):
        """Features with a center have mostly positive cosines, as large published models do."""
        rng = np.random.default_rng(0)
        table = rng.normal(size=(queries + anchors, features)) + center
        rows = rng.normal(size=(anchors, 20)) + 0.3
        table, rows = table.astype(np.float32), rows.astype(np.float32)
        return Problem(
            queries=table[:queries], anchors=table[queries:], rows=rows,
            mean=rows.mean(axis=0), std=rows.std(axis=0), mesh=mesh, seed=3,
        )  # fmt: skip

    return make


def relative_error(found, expected):
    """Length of each row's error over the length of the row."""
    return np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)


@pytest.fixture(scope="session")
def row_error():
    return relative_error


def save_tokenizer(folder: Path, vocabulary: dict[str, int], roles: dict[str, str]) -> None:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=next(iter(vocabulary))))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(folder)


def save_model(folder: Path, config: dict, tensors: dict[str, np.ndarray]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_tensors(folder, {name: LazyTensor.of(value) for name, value in tensors.items()})


def gpt2_config(rows: int, dim: int, **more) -> dict:
    sizes = {"vocab_size": rows, "n_embd": dim, "n_layer": 1, "n_head": 2, "n_positions": 8}
    return {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], **sizes, **more}


def gpt2_tensors(rows: int, dim: int, seed: int, mean: float) -> dict[str, np.ndarray]:
    """A GPT-2 whose token vectors share the mean direction more, the larger ``mean`` is."""
    rng = np.random.default_rng(seed)
    layer = {
        "ln_1.weight": (dim,), "ln_1.bias": (dim,),
        "attn.c_attn.weight": (dim, 3 * dim), "attn.c_attn.bias": (3 * dim,),
        "attn.c_proj.weight": (dim, dim), "attn.c_proj.bias": (dim,),
        "ln_2.weight": (dim,), "ln_2.bias": (dim,),
        "mlp.c_fc.weight": (dim, 4 * dim), "mlp.c_fc.bias": (4 * dim,),
        "mlp.c_proj.weight": (4 * dim, dim), "mlp.c_proj.bias": (dim,),
    }  # fmt: skip
    shapes = {
        "transformer.wpe.weight": (8, dim),
        **{f"transformer.h.0.{name}": shape for name, shape in layer.items()},
        "transformer.ln_f.weight": (dim,),
        "transformer.ln_f.bias": (dim,),
    }
    body = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    table = rng.normal(size=(rows, dim)) + mean * rng.normal(size=dim)
    return {"transformer.wte.weight": table.astype(np.float32), **body}


@pytest.fixture
def source(tmp_path):
    """An English GPT-2 with 16 dimensions."""
    folder = tmp_path / "source"
    ids = {token: id for id, token in enumerate(ENGLISH)}
    config = gpt2_config(len(ids), 16, bos_token_id=0, eos_token_id=0)
    save_model(folder, config, gpt2_tensors(len(ids), 16, seed=0, mean=0.5))
    save_tokenizer(folder, ids, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})
    return folder


@pytest.fixture
def helper(tmp_path):
    """A German GPT-2 with 6 dimensions and rows beyond its tokenizer.

    Id 5 has no token, and the row of ``mond`` points away from all others: its weights are
    negative.
    """
    folder = tmp_path / "helper"
    ids = {token: id + (id >= 5) for id, token in enumerate(GERMAN)}
    rows = len(ids) + 4
    tensors = gpt2_tensors(rows, 6, seed=1, mean=2.0)
    tensors["transformer.wte.weight"][ids["mond"]] *= -1
    save_model(folder, gpt2_config(rows, 6), tensors)
    roles = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    save_tokenizer(folder, ids, roles)
    return folder


@pytest.fixture(params=[0.0, 1.0], ids=["random", "anisotropic"])
def real_pair(request, shared_data, tmp_path):
    """Random models under GPT-2's tokenizer and a German one."""
    folders = []
    for seed, (name, rows, dim) in enumerate(
        [("gpt2", 50_257, 24), ("de_bpe50k_focus", 50_000, 12)]
    ):
        folders.append(tmp_path / name)
        tensors = gpt2_tensors(rows, dim, seed=seed, mean=request.param)
        save_model(folders[-1], gpt2_config(rows, dim), tensors)
        copy_tokenizer(shared_data / "tokenizers" / name, folders[-1])
    return folders
