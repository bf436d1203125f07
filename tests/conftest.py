"""Eight fake CPU devices in every test run, and the real data where it is at hand.

Programs are compiled fast rather than well, and once: the workers of a test run and the processes
that its tests start find them in one folder, which goes with the run.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    programs = TemporaryDirectory(prefix="clp-jax-programs-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = programs.name

import jax
import pytest

from .marks import slow

jax.config.update("jax_num_cpu_devices", 8)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real text, tokenizers and tasks, which the project does not carry."""
    folder = Path(os.environ.get("CLP_JAX_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("real data not at hand: set CLP_JAX_TEST_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def real_models() -> Path:
    """Folder of the models with real weights that scripts/real_models.py writes."""
    folder = Path(os.environ.get("CLP_JAX_REAL_MODELS", REPOSITORY.parent / "real"))
    if not folder.is_dir():
        pytest.skip(
            "models with real weights not at hand: write them with scripts/real_models.py and set "
            "CLP_JAX_REAL_MODELS to their folder"
        )
    return folder


COMPILED_STEPS = {}


@pytest.fixture
def compiled_once():
    """Runs that compute the same share a compiled training step, wherever they are."""
    from clp_jax.train import loop

    real = loop.make_train_step
    elsewhere = {
        "data": {"validation"},
        "train": {"out", "log_every", "validate_every", "checkpoint_every"},
    }

    def make_train_step(graphdef, *args, mesh, config, teacher, **kwargs):
        assert teacher is None
        key = graphdef, mesh, config.model_dump_json(exclude=elsewhere), *kwargs.items()
        if key not in COMPILED_STEPS:
            COMPILED_STEPS[key] = real(
                graphdef, *args, mesh=mesh, config=config, teacher=teacher, **kwargs
            )
        return COMPILED_STEPS[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_train_step", make_train_step)
        yield


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory) -> Path:
    """Folder of a byte-level BPE of 300 tokens, trained on a few sentences."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    sentences = ["Die Katze schläft auf dem Dach.", "The cat sleeps on the roof."] * 20
    bpe.train_from_iterator(sentences, vocab_size=300, special_tokens=["<|endoftext|>"])
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=["gpt2", slow("bloom")])
def tiny_model(request, tiny_tokenizer, tmp_path_factory) -> Path:
    """Folder of a tiny random model, written by PyTorch's transformers, with its tokenizer."""
    import shutil

    import torch
    import transformers

    if request.param == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64,
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
    else:
        config = transformers.BloomConfig(
            vocab_size=300, hidden_size=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
        )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp(request.param)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for file in tiny_tokenizer.iterdir():
        shutil.copy(file, folder)
    return folder
