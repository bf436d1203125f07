"""A tiny GPT-2 and its tokenizer, written by PyTorch's transformers."""

import pytest
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, PreTrainedTokenizerFast

TEXTS = [
    "Der Hund läuft über die Straße, und die Katze sieht ihm zu.",
    "Am Abend liest sie ein Buch.\nEs regnet.",
    "Ist dieser Satz eine Frage? Antwort: Nein. Frage: Bedeuten beide Sätze dasselbe? Ja.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
]


def train_tokenizer(texts, vocab_size):
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=vocab_size, special_tokens=["<|endoftext|>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )


def write_gpt2(folder, tokenizer, positions):
    """Random weights, large enough that the model's answers differ from question to question."""
    torch = pytest.importorskip("torch")
    from transformers import GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=positions,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.3,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def texts():
    return TEXTS


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(TEXTS * 3, vocab_size=400)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory, tokenizer):
    return write_gpt2(tmp_path_factory.mktemp("models") / "gpt2", tokenizer, positions=128)


@pytest.fixture(scope="session")
def tweet_model_folder(tmp_path_factory, shared_data):
    """A model whose tokenizer knows the real tweets' training texts."""
    tweets = (shared_data / "tasks" / "germeval2018" / "train.jsonl").read_text("utf-8")
    tokenizer = train_tokenizer(tweets.splitlines(), vocab_size=8000)
    return write_gpt2(tmp_path_factory.mktemp("models") / "tweets", tokenizer, positions=256)
