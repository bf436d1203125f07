"""llama.cpp, asked through the server of its Python package."""

import json
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from clp_jax.checkpoint.hub import load_tokenizer

from .tokenizers_of_all_kinds import sentences


class LlamaCpp:
    """A model that llama.cpp runs on one thread, with keys and values in float32."""

    def __init__(self, file: Path, context: int = 64):
        xllamacpp = pytest.importorskip(
            "xllamacpp", reason="llama.cpp is not at hand: pip install xllamacpp"
        )
        params = xllamacpp.CommonParams()
        params.model.path = str(file)
        params.n_ctx = context
        params.n_parallel = params.cpuparams.n_threads = 1
        params.warmup = False
        params.verbosity = -1
        params.port = 0
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.server = xllamacpp.Server(params)

    def ask(self, path: str, **body):
        request = urllib.request.Request(
            f"{self.server.listening_address}/{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """The ids of a text; with ``special``, bos and the special tokens that it spells too."""
        asked = {"content": text, "add_special": special, "parse_special": special}
        return self.ask("tokenize", **asked)["tokens"]

    def log_probabilities(self, ids: list[int], rows: int, printable: int) -> np.ndarray:
        """Those of each next token; an answer that is not printable would come without them."""
        answer = self.ask(
            "completion",
            prompt=ids,
            n_predict=1,
            n_probs=rows + 9,
            logit_bias=[[printable, 1e4]],
            cache_prompt=False,
        )
        found = answer["completion_probabilities"][0]["top_logprobs"]
        assert sorted(entry["id"] for entry in found) == [*range(rows)]
        return np.array([entry["logprob"] for entry in sorted(found, key=lambda x: x["id"])])

    def generate(self, ids: list[int], tokens: int) -> list[int]:
        """The most probable tokens, one after another."""
        return self.ask(
            "completion",
            prompt=ids,
            n_predict=tokens,
            temperature=0,
            return_tokens=True,
            ignore_eos=True,
            cache_prompt=False,
        )["tokens"]


def same_ids(model: Path, file: Path, number: int) -> None:
    """Check that llama.cpp encodes this many sentences as a model's tokenizer does."""
    tokenizer, llama_cpp = load_tokenizer(model), LlamaCpp(file)
    for text in sentences(number):
        assert llama_cpp.encode(text) == tokenizer.encode(text), text
