"""The paper's formulas in float64, and tiny checkpoints to transfer between."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from clp_jax.checkpoint.hub import copy_tokenizer
from clp_jax.checkpoint.tensors import LazyTensor, write_tensors
from clp_jax.mesh import make_mesh, single_device_mesh

SHARED = ["<|endoftext|>", "a", "b", "in", "die", "war", "hand", "1", "2", "3", "4", "."]
ENGLISH = [*SHARED, "the", "house", "cat", "sun"]
GERMAN = ["<s>", "</s>", "<pad>", *reversed(SHARED), "der", "haus", "katze", "sonne", "mond"]


class Oracle:
    """One token at a time, in NumPy float64, with the weights written out."""

    @staticmethod
    def weights(row, overlap_helper):
        row, overlap = row.astype(np.float64), overlap_helper.astype(np.float64)
        return overlap @ row / np.linalg.norm(overlap, axis=1) / np.linalg.norm(row)

    @classmethod
    def clp(cls, missing_helper, overlap_helper, overlap_source):
        rows = []
        for row in missing_helper:
            weights = cls.weights(row, overlap_helper)
            rows.append(weights @ overlap_source.astype(np.float64) / weights.sum())
        return np.array(rows)

    @classmethod
    def condition(cls, missing_helper, overlap_helper):
        """The signed sum over its largest possible value for weights of this length."""
        values = []
        for row in missing_helper:
            weights = cls.weights(row, overlap_helper)
            values.append(weights.sum() / np.linalg.norm(weights) / np.sqrt(len(weights)))
        return np.array(values)

    @classmethod
    def signed_share(cls, missing_helper, overlap_helper):
        """|sum w| / sum |w|."""
        values = []
        for row in missing_helper:
            weights = cls.weights(row, overlap_helper)
            values.append(abs(weights.sum()) / np.abs(weights).sum())
        return np.array(values)

    @classmethod
    def topk(cls, missing_helper, overlap_helper, overlap_source, k=10, temperature=0.1):
        rows = []
        for row in missing_helper:
            similarity = cls.weights(row, overlap_helper)
            nearest = np.argsort(-similarity)[:k]
            weights = np.exp(similarity[nearest] / temperature)
            rows.append(weights / weights.sum() @ overlap_source[nearest].astype(np.float64))
        return np.array(rows)


@pytest.fixture(scope="session")
def oracle():
    return Oracle


@pytest.fixture(params=[1, 8], ids=["1 device", "8 devices"])
def mesh(request):
    return single_device_mesh() if request.param == 1 else make_mesh(2, 2, 2)


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
