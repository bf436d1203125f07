"""One small tokenizer of each kind, as its ``tokenizer.json``."""

import json

import pytest
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from clp_jax.tokenizer.expressions import WORDS

TEXTS = [
    "Die Stadt liegt am Fluss, und der Fluss ist lang.",
    "Größe und Maß: 12 Äpfel, 3 Birnen – zusammen 15.\n\n  Zwölf Boxkämpfer jagen Viktor.",
    "The river is long; the town lies on it.\tNothing else happened in 1989.",
    "u\u0308ber dem Fluss \u00a0 liegt\u2003Nebel … ﬁnster und kalt.",
]


def byte_level() -> Tokenizer:
    """As GPT-2, but with a normaliser and digits alone, which its class in transformers forgets."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["</s>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.add_tokens(["größer"])
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2: a BPE over the whole text, in front of which the normaliser puts a space."""
    trained = Tokenizer(models.BPE())
    trained.train_from_iterator(
        (f"▁{word}" for text in TEXTS * 3 for word in text.split()),
        trainers.BpeTrainer(vocab_size=250, show_progress=False),
    )
    model = json.loads(trained.to_str())["model"]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    merges = [tuple(pair) for pair in model["merges"]]
    vocabulary = {name: id for id, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.add_tokens(["▁▁▁▁"])
    return tokenizer


def unigram() -> Tokenizer:
    """As XLM-R: white space is stripped and joined; a text stands between ``<s>`` and ``</s>``."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    trainer = trainers.UnigramTrainer(
        vocab_size=200,
        special_tokens=["<s>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return tokenizer


def wordpiece() -> Tokenizer:
    """As BERT."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    special = ["[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False),
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return tokenizer


def split(expression: str):
    """A pre-tokenizer as most byte-level tokenizers of today have it."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(expression), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


SPLITS = {
    "GPT-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "RoBERTa": pre_tokenizers.ByteLevel(add_prefix_space=True),
    "SmolLM2": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    ),
    "Llama 3": split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "Qwen2": split(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    "BLOOM": split(r" ?[^(\s|[.,!?…。，、।۔،])]+"),
    "ours": split(WORDS),
}
"""How the byte-level tokenizers that tiktoken stands in for cut a text."""

ENDS = {"byte_level": "</s>", "byte_fallback": "</s>", "unigram": "</s>", "wordpiece": "[SEP]"}
KINDS = {
    "byte_level": byte_level,
    "byte_fallback": byte_fallback,
    "unigram": unigram,
    "wordpiece": wordpiece,
}


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """The folder of a kind of tokenizer, with the class in it that would replace its parts."""
    folders = {}

    def folder_of(kind):
        if kind not in folders:
            folders[kind] = folder = tmp_path_factory.mktemp(kind)
            KINDS[kind]().save(str(folder / "tokenizer.json"))
            named = {"tokenizer_class": "GPT2TokenizerFast", "eos_token": ENDS[kind]}
            if kind != "wordpiece":
                named["bos_token"] = "<s>"
            (folder / "tokenizer_config.json").write_text(json.dumps(named))
        return folders[kind]

    return folder_of


@pytest.fixture(params=SPLITS)
def splitter(request):
    return SPLITS[request.param]


@pytest.fixture(params=KINDS)
def folder(request, folder_of):
    return folder_of(request.param)
