"""Problems for the methods and what they should answer, and tiny checkpoints."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from clp_jax.checkpoint.hub import copy_tokenizer, load_tokenizer
from clp_jax.checkpoint.tensors import LazyTensor, write_tensors
from clp_jax.mesh import make_mesh, single_device_mesh
from clp_jax.transfer.anchors import TableInputs
from clp_jax.transfer.config import VECTORS, TransferConfig
from clp_jax.transfer.helper import open_helper
from clp_jax.transfer.interface import Problem
from clp_jax.transfer.models import open_source
from clp_jax.transfer.pair import TransferPair
from clp_jax.transfer.table import Layout

SHARED = ["<|endoftext|>", "a", "b", "in", "die", "war", "hand", "1", "2", "3", "4", "."]
NAMES = [f"{letter}{number}" for letter in "xyz" for number in range(20)]


def english(shared=SHARED):
    return [*shared, "the", "house", "cat", "sun"]


def german(shared=SHARED):
    return ["<s>", "</s>", "<pad>", *reversed(shared), "der", "haus", "katze", "sonne", "mond"]


@pytest.fixture(scope="session")
def oracle():
    """The functions of oracle.py, which tests cannot import."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("oracle.py"))))


@pytest.fixture(params=[1, 8], ids=["1 device", "8 devices"])
def mesh(request):
    return single_device_mesh() if request.param == 1 else make_mesh(2, 2, 2)


@pytest.fixture(scope="session")
def problem():
    """Random problems of one shape, so that each program is compiled once."""

    def make(*, queries=300, anchors=120, features=12, center=1.0, mesh=None):
        """Features with a center have mostly positive cosines, as large published models do."""
        rng = np.random.default_rng(0)
        table = rng.normal(size=(queries + anchors, features)) + center
        rows = rng.normal(size=(anchors, 20)) + 0.3
        table, rows = table.astype(np.float32), rows.astype(np.float32)
        return Problem(
            queries=table[:queries], anchors=table[queries:], rows=rows,
            mean=rows.mean(axis=0), std=rows.std(axis=0), mesh=mesh or single_device_mesh(), seed=3,
        )  # fmt: skip

    return make


@pytest.fixture
def layout():
    """Twelve rows: six shared tokens, two by role, three missing, one id without a token.

    The shared tokens 4 and 9 of the target are both the source's token 7.
    """
    return Layout(
        rows=12,
        copied_source=np.array([7, 2, 5, 1, 7, 8, 0, 0]),
        copied=np.array([4, 2, 3, 6, 9, 10, 0, 1]),
        anchors=6,
        anchor_helper=np.array([4, 2, 3, 6, 9, 10]),
        roles=np.array([0, 1]),
        missing=np.array([5, 8, 11]),
        missing_helper=np.array([5, 8, 11]),
        padding=np.array([7]),
        keeps=False,
    )


@pytest.fixture
def table_inputs(layout):
    """Random tables of a source with ten rows and a helper with twelve."""
    rng = np.random.default_rng(0)
    source, helper = rng.normal(size=(10, 4)), rng.normal(size=(12, 3)) + 1
    tensors = (LazyTensor.of(table.astype(np.float32)) for table in (source, helper))
    return TableInputs(*tensors, layout, single_device_mesh(), seed=3)


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


def write_source(folder: Path, shared=SHARED) -> Path:
    """An English GPT-2 with 16 dimensions."""
    ids = {token: id for id, token in enumerate(english(shared))}
    config = gpt2_config(len(ids), 16, bos_token_id=0, eos_token_id=0)
    save_model(folder, config, gpt2_tensors(len(ids), 16, seed=0, mean=0.5))
    save_tokenizer(folder, ids, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})
    return folder


def write_helper(folder: Path, shared=SHARED) -> Path:
    """A German GPT-2 with 6 dimensions and rows beyond its tokenizer.

    Id 5 has no token, and the row of ``mond`` points away from all others: its weights are
    negative.
    """
    ids = {token: id + (id >= 5) for id, token in enumerate(german(shared))}
    rows = len(ids) + 4
    tensors = gpt2_tensors(rows, 6, seed=1, mean=2.0)
    tensors["transformer.wte.weight"][ids["mond"]] *= -1
    save_model(folder, gpt2_config(rows, 6), tensors)
    roles = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    save_tokenizer(folder, ids, roles)
    return folder


@pytest.fixture
def source(tmp_path):
    """A source of one's own, to change."""
    return write_source(tmp_path / "source")


@pytest.fixture
def helper(tmp_path):
    """A helper of one's own, to change."""
    return write_helper(tmp_path / "helper")


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """The same two folders, to read only."""
    folder = tmp_path_factory.mktemp("pair")
    return write_source(folder / "source"), write_helper(folder / "helper")


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    """A pair with 60 names more in common, where shared rows are the helper's, turned and moved."""
    folder = tmp_path_factory.mktemp("planted")
    source = write_source(folder / "source", [*SHARED, *NAMES])
    helper = write_helper(folder / "helper", [*SHARED, *NAMES])
    tensors, rows = (load_file(f / "model.safetensors") for f in (source, helper))
    old, new = (load_tokenizer(folder).vocabulary for folder in (source, helper))
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 6)))
    table = "transformer.wte.weight"
    for token in old.keys() & new.keys():
        tensors[table][old[token]] = 2 * turn @ rows[table][new[token]] + 0.5
    save_file(tensors, source / "model.safetensors")
    return source, helper


@pytest.fixture(scope="session")
def text():
    """Documents of the words that the helper knows, some of them much more often than others."""
    rng = np.random.default_rng(0)
    words = [token for token in german() if not token.startswith("<")]
    shares = rng.dirichlet(np.full(len(words), 0.5))
    return [" ".join(rng.choice(words, 100, p=shares)) for _ in range(8)]


@pytest.fixture(scope="session")
def vectors(tmp_path_factory):
    """The options that name vectors for `wechsel` and `focus`."""
    folder, rng = tmp_path_factory.mktemp("vectors"), np.random.default_rng(2)
    tokens = rng.normal(size=(21, 6)).astype(np.float32) + 0.5
    tokens[20] = 0
    np.save(folder / "tokens.npy", tokens)
    for name, words in (("source", english()[1:]), ("target", german()[3:-1])):
        np.save(folder / f"{name}.npy", rng.normal(size=(len(words), 6)).astype(np.float32) + 0.5)
        (folder / f"{name}.txt").write_text("\n".join(words))
    return {
        "token_vectors": str(folder / "tokens.npy"),
        "source_vectors": str(folder / "source.npy"),
        "target_vectors": str(folder / "target.npy"),
    }


def used_by(method, vectors):
    """Of the options that name vectors, those that the method does not ignore."""
    return {key: file for key, file in vectors.items() if method in ("auto", *VECTORS[key])}


@pytest.fixture(scope="session")
def make_setting(tmp_path_factory):
    def make(source, helper, text=(), **options):
        config = TransferConfig(**options)
        scratch = tmp_path_factory.mktemp("scratch") / "tokenizer"
        models = open_source(source), open_helper(helper)
        return TransferPair(*models, config, text, scratch, single_device_mesh())

    return make


@pytest.fixture(scope="session")
def byte_pair(tiny_tokenizer, tmp_path_factory):
    """A source and a helper with byte-level BPE, as an extension needs them."""
    folder = tmp_path_factory.mktemp("bytes")
    german = ByteLevelBPETokenizer()
    sentences = ["Die Häuser stehen am Fluss.", "Die Katze schläft auf dem Dach."] * 20
    german.train_from_iterator(sentences, vocab_size=330, special_tokens=["</s>"])
    tokenizers = (
        AutoTokenizer.from_pretrained(tiny_tokenizer),
        PreTrainedTokenizerFast(tokenizer_object=german._tokenizer, eos_token="</s>"),
    )
    folders = folder / "source", folder / "helper"
    for seed, (place, tokenizer, dim) in enumerate(zip(folders, tokenizers, (16, 6), strict=True)):
        rows = len(tokenizer) + 2
        save_model(place, gpt2_config(rows, dim), gpt2_tensors(rows, dim, seed=seed, mean=2.0))
        tokenizer.save_pretrained(place)
    return folders


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
