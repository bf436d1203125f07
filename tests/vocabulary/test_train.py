"""The trained tokenizer, against GPT-2's own and the library's."""

import json
import random

import pytest
import regex
from tokenizers import ByteLevelBPETokenizer, Tokenizer
from transformers import AutoTokenizer

from clp_jax.errors import UserError
from clp_jax.tokenizer import read_tokenizer
from clp_jax.tokenizer.expressions import WORDS
from clp_jax.vocabulary import read_vocabulary
from clp_jax.vocabulary.train import END_OF_TEXT, sample_pieces, train_tokenizer

FILES = ("merges.txt", "tokenizer.json", "tokenizer_config.json", "vocab.json")
SENTENCES = [f"Der {n}. Hund läuft über die {n % 7}. Straße und bellt laut." for n in range(200)]
STRANGE = [
    "",
    " a  b\n\n\tc\r\n ",
    "Größe über alles: „Käse“ – 日本語 🙂👩‍👩‍👧 e\u0301",
    "".join(map(chr, range(0x300))),
    "\ud7ff\ue000\uffff\U00010000\U0010ffff",
    "it's we'll HE'D <|endoftext| >",
]


def write(file, sentences):
    lines = (json.dumps({"text": sentence}) + "\n" for sentence in sentences)
    file.write_text("".join(lines))
    return [str(file)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    summary = train_tokenizer(write(folder / "text.jsonl", SENTENCES), 300, folder / "out")
    return folder / "out", summary


def test_every_text_round_trips(trained):
    tokenizer = AutoTokenizer.from_pretrained(trained[0])
    for text in (*STRANGE, *SENTENCES[:5]):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_all_loaders_agree(trained):
    folder, _ = trained
    assert sorted(file.name for file in folder.iterdir()) == sorted(FILES)
    auto = AutoTokenizer.from_pretrained(folder)
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ours = read_tokenizer(folder, "it")
    parts = ByteLevelBPETokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    assert auto.get_vocab() == library.get_vocab() == ours.vocabulary == parts.get_vocab()
    for text in (*STRANGE, *SENTENCES):
        assert auto(text)["input_ids"] == library.encode(text).ids == ours.encode(text)


@pytest.mark.parametrize(
    "sentence",
    [
        "हिन्दी भाषा में लिखते हैं और पढ़ते हैं",
        "မြန်မာဘာသာ စကားကို ပြောသည်",
        "ภาษาไทยเป็นภาษาที่มีระดับเสียง ของคำแน่นอน",
        "الْعَرَبِيَّةُ لُغَةٌ جَمِيلَةٌ",
        "می\u200cخواهم کتاب\u200cها را بخوانم",
        "Gro\u0308ße und Ma\u00df",
    ],
)
def test_combining_marks_stay_with_their_letters(tmp_path, sentence):
    """A word that occurs often becomes one token, in every script."""
    text = [*SENTENCES, *(f"{number}. {sentence}" for number in range(300))]
    size = 257 + len(sentence.encode())
    train_tokenizer(write(tmp_path / "text.jsonl", text), size, tmp_path / "out")
    tokenizer = read_tokenizer(tmp_path / "out", "it")
    assert len(tokenizer.encode(f" {sentence}")) == len(sentence.split())
    splitter = tokenizer.backend.pre_tokenizer
    assert len(splitter.pre_tokenize_str(sentence)) == len(sentence.split())


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Im Jahr 1989.", ["Im", " Jahr", " ", "198", "9", "."]),
        ("ab  cd\n\n  e", ["ab", " ", " cd", "\n\n", " ", " e"]),
        ("l'eau (froide) -- !!\n", ["l", "'eau", " (", "froide", ")", " --", " !!\n"]),
    ],
)
def test_text_is_split_as_stated(text, pieces):
    assert regex.findall(WORDS, text) == pieces


def test_ids_are_laid_out_as_gpt2_has_them(trained, shared_data):
    folders = (trained[0], shared_data / "tokenizers" / "gpt2")
    ours, theirs = map(AutoTokenizer.from_pretrained, folders)
    assert ours.special_tokens_map == theirs.special_tokens_map
    for tokenizer in (ours, theirs):
        assert tokenizer.eos_token_id == len(tokenizer) - 1
        assert tokenizer.convert_tokens_to_ids(END_OF_TEXT) == len(tokenizer) - 1
    assert ours.convert_ids_to_tokens(range(256)) == theirs.convert_ids_to_tokens(range(256))
    first_lines = [(folder / "merges.txt").read_text().splitlines()[0] for folder in folders]
    assert first_lines == ["#version: 0.2"] * 2


def test_it_is_a_vocabulary_of_bytes_and_roles(trained):
    vocabulary = read_vocabulary(AutoTokenizer.from_pretrained(trained[0]))
    known = {token.bytes for token in vocabulary.tokens.values()}
    assert known >= {bytes([value]) for value in range(256)}
    assert " Straße".encode() in known


def test_the_summary_counts(trained):
    folder, summary = trained
    total = sum(len(sentence.encode()) for sentence in SENTENCES)
    assert summary.tokens == 300
    assert summary.bytes + summary.heldout_bytes == total
    assert summary.heldout_bytes == pytest.approx(total / 50, rel=0.1)
    # Every sentence is made alike: any of them tells what those kept out need.
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = sum(map(len, tokenizer(SENTENCES)["input_ids"]))
    assert summary.bytes_per_token == pytest.approx(total / tokens, rel=0.05)
    assert str(summary).startswith(f"300 tokens from {summary.bytes:,} bytes of text; ")


def test_the_same_text_in_any_order_gives_the_same_files(trained, tmp_path):
    shuffled = [*SENTENCES, *SENTENCES[:50]]
    random.Random(0).shuffle(shuffled)
    train_tokenizer(write(tmp_path / "text.jsonl", shuffled), 300, tmp_path / "out")
    for file in FILES:
        assert (tmp_path / "out" / file).read_bytes() == (trained[0] / file).read_bytes()


def test_a_sample_is_bounded_and_spread_over_the_text():
    documents = [f"{number:08d}" for number in range(1000)]
    sample = sample_pieces(documents, 800)
    assert len(sample) == 100
    assert sample == sample_pieces(documents[::-1] * 2, 800)
    numbers = sorted(map(int, sample))
    assert numbers[0] < 100
    assert numbers[-1] > 900
    # A larger sample goes on where a smaller one ends.
    assert sample_pieces(documents, 1600)[:100] == sample


def test_a_long_document_is_sampled_in_pieces():
    document = "".join(f"{number:08d}" for number in range(10_000))
    pieces = sample_pieces([document], 80_000)
    assert [len(piece) for piece in pieces] == [10_000] * 8
    assert sorted(pieces) == [document[i : i + 10_000].encode() for i in range(0, 80_000, 10_000)]


@pytest.mark.parametrize(
    ("sentences", "size", "message"),
    [
        (SENTENCES, 256, "vocab_size: Input should be greater than or equal to 257"),
        (
            SENTENCES,
            50257,
            r"enough for only \d+ tokens, not 50,257: add text, or request fewer tokens",
        ),
        (SENTENCES[:1], 300, "more than 10,000 characters of distinct text"),
        ([" "], 300, "no document holds any text"),
    ],
)
def test_a_mistake_is_a_sentence_and_leaves_nothing(tmp_path, sentences, size, message):
    inputs = write(tmp_path / "text.jsonl", sentences)
    with pytest.raises(UserError, match=message):
        train_tokenizer(inputs, size, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["text.jsonl"]


def test_an_existing_folder_is_kept(trained, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        train_tokenizer(write(tmp_path / "text.jsonl", SENTENCES), 300, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.slow
def test_german_needs_fewer_tokens_than_gpt2s_tokenizer_makes_of_it(tmp_path, documents, read):
    summary = train_tokenizer(write(tmp_path / "text.jsonl", documents), 8000, tmp_path / "out")
    gpt2, _ = read("gpt2")
    tokens = sum(map(len, gpt2(documents, verbose=False)["input_ids"]))
    assert summary.bytes_per_token > 1.4 * sum(len(text.encode()) for text in documents) / tokens
