"""Small tokenizers of both languages, models with them, and text that is hard to split."""

import itertools
import json
import random

import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from tokenizers.pre_tokenizers import ByteLevel, Sequence

from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.quickstart.sentences import documents

from ..tiny import KINDS, write_weights

GEMMA = {"query_pre_attn_scalar": 4, "sliding_window": 8}
TEXTS = [*itertools.islice(documents("de", 0), 100), *itertools.islice(documents("en", 0), 100)]
SIGNS = [
    *(" ", "  ", "   ", "\t", "\n", "\n\n", " \n", "\r\n", "\u00a0", "\u2003", "\u200b", "\ufeff"),
    *(
        "1",
        "12",
        "123",
        "12345",
        "3.14",
        "-5",
        "½",
        "²",
        "Ⅷ",
        "٣",
        "€",
        "$",
        "%",
        "…",
        "—",
        "„",
        "“",
    ),
    *("'s", "'S", "'m", "'ll", "n't", "ÄÖÜß", "é", "e\u0301", "字", "漢字", "😀", "👩\u200d👧"),
    *(
        "!",
        "?!",
        "...",
        "::",
        "()",
        "[x]",
        "{",
        "}",
        "<a>",
        "@",
        "#1",
        "\\",
        "/",
        "|",
        "~",
        "^",
        "_",
    ),
    *("“", "_", "नमस्ते", "مرحبا", "שלום", "ไทย", "Haus", "house", " Wort", " word", "<|endoftext|>"),
]


def sentences(number: int) -> list[str]:
    """Sentences of both languages, and rows of signs, numbers and white space."""
    draw = random.Random(0)
    rows = ["".join(draw.choices(SIGNS, k=draw.randint(1, 14))) for _ in range(number // 2)]
    plain = [sentence for text in TEXTS for sentence in text.split("\n") if sentence]
    return rows + list(itertools.islice(itertools.cycle(plain), number - len(rows)))


def bpe(*split, use_regex: bool = False, ignore_merges: bool = False) -> Tokenizer:
    """A byte-level BPE of both languages; ``split`` comes before the letters."""
    tokenizer = Tokenizer(models.BPE())
    letters = ByteLevel(add_prefix_space=False, use_regex=use_regex)
    tokenizer.pre_tokenizer = Sequence([*split, letters])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, "".join(SIGNS)], trainer)
    state = json.loads(tokenizer.to_str())
    state["model"]["ignore_merges"] = ignore_merges
    return Tokenizer.from_str(json.dumps(state))


def sentence_piece() -> Tokenizer:
    """As Gemma: BPE of the whole text with all pairs that spell a token, and single bytes."""
    trained = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=600, show_progress=False)
    trained.train_from_iterator((f"▁{word}" for text in TEXTS for word in text.split()), trainer)
    pieces = json.loads(trained.to_str())["model"]["vocab"]
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    names = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    ids = {name: id for id, name in enumerate(names)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces
        for cut in range(1, len(piece))
        if piece[:cut] in pieces and piece[cut:] in pieces
    ]
    tokenizer = Tokenizer(
        models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(special)
    return tokenizer


def write_model(folder, tokenizer: Tokenizer, eos: str = "<|endoftext|>", **values):
    """A tiny model with a tokenizer."""
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos)
    fast.save_pretrained(folder)
    kind = values.pop("model_type", "llama")
    rows = load_tokenizer(folder).rows + values.pop("more_rows", 0)
    write_weights(folder, 0, scale=0.2, model_type=kind, vocab_size=rows, **KINDS[kind], **values)
    return folder
