"""One tokenizer of each kind: real ones, or trained on real text."""

import io
import json
from functools import cache

import pytest
import zstandard
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.vocabulary import read_vocabulary

from ..marks import slow


@pytest.fixture(scope="session")
def documents(shared_data):
    """A few hundred German documents."""
    file = shared_data / "corpora" / "de" / "heldout.jsonl.zst"
    with file.open("rb") as stream:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(stream), "utf-8")
        return [json.loads(line)["text"] for line in lines]


@pytest.fixture(scope="session")
def wordpiece(documents):
    """As BERT has it, cased; the decoder's clean-up, which is made for English, is off."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False, lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(
        vocab_size=5000, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator([*documents, "東京 ¿qué? "], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip


@pytest.fixture(scope="session")
def byte_fallback(documents):
    """As Llama 2 has it: a BPE over words with their space, and names for all bytes."""
    trained = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=2000, show_progress=False)
    words = (f"▁{word}" for text in documents[:100] for word in text.split())
    trained.train_from_iterator(words, trainer)
    model = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    tokenizer = Tokenizer(
        models.BPE(
            {name: id for id, name in enumerate(names)},
            [tuple(pair) for pair in model["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    steps = [decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), *steps])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


@pytest.fixture(scope="session")
def read(request, shared_data):
    """The tokenizer and the vocabulary of a name, each read once."""

    @cache
    def read(name):
        folder = shared_data / "tokenizers" / name
        if not folder.exists():
            tokenizer = request.getfixturevalue(name)
            return tokenizer, read_vocabulary(tokenizer)
        return AutoTokenizer.from_pretrained(folder), read_vocabulary(load_tokenizer(folder))

    return read


@pytest.fixture(
    params=["gpt2", slow("de_bpe50k_focus"), "de_unigram50k_focus", "byte_fallback", "wordpiece"]
)
def kind(request, read):
    """A tokenizer and its vocabulary."""
    return read(request.param)
