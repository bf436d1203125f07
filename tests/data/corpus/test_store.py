import json
import random
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from clp_jax.checkpoint.hub import tokenizer_hash
from clp_jax.data.corpus.store import Corpus, count_words, lengths_name, write_corpus
from clp_jax.data.io.readers import read_documents
from clp_jax.errors import UserError

from ...started import Started

TEXTS = [
    "Der Hund schläft auf dem Sofa.",
    "Eine Katze sitzt\nvor der Tür und wartet.",
    "Größe und Maß: 12 Äpfel, 3 Birnen – zusammen 15.",
]
EOS = 1


@pytest.fixture
def corpus_folder(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    write_corpus(TEXTS, tokenizer, tmp_path / "corpus")
    return tmp_path / "corpus"


def reference_ids(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> list[int]:
    ids = [EOS]
    for text in texts:
        ids += [*tokenizer(text, add_special_tokens=False)["input_ids"], EOS]
    return ids


def test_a_corpus_on_disk_has_the_tokens_of_transformers(
    corpus_folder: Path, tokenizer: PreTrainedTokenizerFast
):
    corpus = Corpus.open(corpus_folder)
    assert isinstance(corpus.shards[0], np.memmap)
    assert corpus.shards[0].dtype == np.uint16
    assert corpus.tokens().tolist() == reference_ids(TEXTS, tokenizer)
    assert (corpus.documents, corpus.words) == (3, 6 + 8 + 10)
    assert corpus.bytes == sum(len(text.encode()) for text in TEXTS)
    assert corpus.eos_id == EOS
    assert corpus.tokenizer_hash == tokenizer_hash(tokenizer)
    ids = tokenizer(TEXTS, add_special_tokens=False)["input_ids"]
    sizes = [[len(own) + 1, len(text.encode())] for own, text in zip(ids, TEXTS, strict=True)]
    assert np.load(corpus_folder / lengths_name(0, 1)).tolist() == sizes
    check = ["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"]
    subprocess.run(check, cwd=corpus_folder, check=True)


def test_shards_are_read_as_one_row_of_tokens(tokenizer: PreTrainedTokenizerFast):
    whole = Corpus.from_documents(TEXTS * 5, tokenizer)
    ids = whole.tokens()
    for cuts in ([1], [7, 8, 9], [100, 100, 101], [len(ids) - 1]):
        parts = tuple(part for part in np.split(ids, cuts) if len(part))
        corpus = replace(whole, shards=parts)
        assert len(corpus) == len(ids)
        np.testing.assert_array_equal(corpus.tokens(), ids)
        for start in range(0, len(ids), 3):
            for stop in (start + 1, start + 10, len(ids), len(ids) + 5):
                np.testing.assert_array_equal(corpus.tokens(start, stop), ids[start:stop])
        for index in range(whole.windows(11)):
            for one, other in zip(corpus.window(index, 11), whole.window(index, 11), strict=True):
                np.testing.assert_array_equal(one, other)


def test_a_corpus_in_memory_equals_the_one_on_disk(
    corpus_folder: Path, tokenizer: PreTrainedTokenizerFast
):
    stored, held = Corpus.open(corpus_folder), Corpus.from_documents(TEXTS, tokenizer)
    np.testing.assert_array_equal(stored.tokens(), held.tokens())
    assert stored.tokens().dtype == held.tokens().dtype
    for name in ("documents", "words", "bytes", "eos_id", "fingerprint", "tokenizer_hash"):
        assert getattr(stored, name) == getattr(held, name)


def test_the_fingerprint_follows_the_tokens(tokenizer: PreTrainedTokenizerFast):
    prints = [
        Corpus.from_documents(texts, tokenizer).fingerprint
        for texts in (TEXTS, TEXTS, TEXTS[::-1], ["".join(TEXTS)])
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_a_text_that_spells_a_special_token_stays_text(tokenizer: PreTrainedTokenizerFast):
    text = "vor </s> nach <pad>"
    tokens = Corpus.from_documents([text], tokenizer).tokens()
    assert (tokens == EOS).sum() == 2
    assert tokenizer.decode(tokens[1:-1]) == text


def test_truncation_padding_and_post_processing_leave_no_trace(
    tmp_path: Path, tokenizer_folder: Path, tokenizer: PreTrainedTokenizerFast
):
    other = AutoTokenizer.from_pretrained(tokenizer_folder)
    other.backend_tokenizer.enable_truncation(3)
    other.backend_tokenizer.enable_padding(length=50)
    clean, marked = (Corpus.from_documents(TEXTS, each) for each in (tokenizer, other))
    np.testing.assert_array_equal(clean.tokens(), marked.tokens())
    assert clean.tokenizer_hash == marked.tokenizer_hash
    assert other.backend_tokenizer.truncation is not None


def test_the_hash_distinguishes_tokenizers(
    tokenizer_folder: Path, tokenizer: PreTrainedTokenizerFast
):
    changed = AutoTokenizer.from_pretrained(tokenizer_folder)
    assert tokenizer_hash(changed) == tokenizer_hash(tokenizer)
    changed.eos_token = "<pad>"
    assert tokenizer_hash(changed) != tokenizer_hash(tokenizer)
    changed = AutoTokenizer.from_pretrained(tokenizer_folder)
    changed.add_tokens(["Hund"])
    assert tokenizer_hash(changed) != tokenizer_hash(tokenizer)


def test_large_vocabularies_take_four_bytes(tokenizer_folder: Path):
    large = AutoTokenizer.from_pretrained(tokenizer_folder)
    large.add_tokens([f"wort{i}" for i in range(1 << 16)])
    tokens = Corpus.from_documents(["wort65535"], large).tokens()
    assert tokens.dtype == np.uint32
    assert tokens.max() == len(large) - 1 > 1 << 16


@pytest.mark.parametrize("separator", [" ", "", "\n"])
def test_long_documents_are_encoded_in_pieces_without_a_seam(
    tokenizer: PreTrainedTokenizerFast, separator: str
):
    text = separator.join(TEXTS * 2000)
    tokens = Corpus.from_documents([text], tokenizer).tokens()
    np.testing.assert_array_equal(tokens, reference_ids([text], tokenizer))


def test_a_long_text_without_spaces_is_kept_whole(tokenizer: PreTrainedTokenizerFast):
    text = "Maß" * 50_000
    tokens = Corpus.from_documents([text], tokenizer).tokens()
    assert tokenizer.decode(tokens[1:-1]) == text


def test_an_empty_document_is_its_end(tokenizer: PreTrainedTokenizerFast):
    assert Corpus.from_documents([""], tokenizer).tokens().tolist() == [EOS, EOS]


def test_every_token_but_the_first_is_predicted_exactly_once(tokenizer: PreTrainedTokenizerFast):
    corpus = Corpus.from_documents(TEXTS, tokenizer)
    for length in (1, 3, 7, len(corpus) - 1, len(corpus), 500):
        inputs, targets = [], []
        for index in range(corpus.windows(length)):
            tokens, mask = corpus.window(index, length)
            assert tokens.dtype == np.int32
            assert tokens.shape == (length + 1,)
            assert mask.dtype == np.bool_
            assert mask.any()
            inputs += tokens[:-1][mask].tolist()
            targets += tokens[1:][mask].tolist()
            assert not tokens[1:][~mask].any()
        assert inputs == corpus.tokens()[:-1].tolist()
        assert targets == corpus.tokens()[1:].tolist()


@pytest.mark.parametrize("fault", [UserError, KeyboardInterrupt])
def test_a_failed_preparation_leaves_nothing_behind(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, fault: type[BaseException]
):
    def documents() -> Iterator[str]:
        yield "Der Hund " * 200_000
        raise fault

    with pytest.raises(fault):
        write_corpus(documents(), tokenizer, tmp_path / "corpus")
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from transformers import AutoTokenizer
from clp_jax.data.corpus.store import write_corpus
def documents():
    yield "Der Hund " * 200_000
    os.kill(os.getpid(), signal.SIGKILL)
write_corpus(documents(), AutoTokenizer.from_pretrained(sys.argv[1]), sys.argv[2])
"""


@pytest.mark.slow
def test_a_killed_preparation_leaves_no_corpus_and_can_be_repeated(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, tokenizer_folder: Path
):
    out = tmp_path / "corpus"
    status, printed = Started(KILLED, str(tokenizer_folder), str(out)).end()
    assert status == -signal.SIGKILL, printed
    assert not out.exists()
    write_corpus(TEXTS, tokenizer, out)
    assert Corpus.open(out).documents == 3


def test_existing_folders_are_refused(corpus_folder: Path, tokenizer: PreTrainedTokenizerFast):
    before = (corpus_folder / "tokens-00000-of-00001.bin").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        write_corpus(["neu"], tokenizer, corpus_folder)
    assert (corpus_folder / "tokens-00000-of-00001.bin").read_bytes() == before


def test_empty_corpora_are_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast):
    with pytest.raises(UserError, match="at least one document"):
        Corpus.from_documents([], tokenizer)
    with pytest.raises(UserError, match="at least one document"):
        write_corpus([], tokenizer, tmp_path / "corpus")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_without_end_of_text_is_refused(tmp_path: Path, tokenizer_folder: Path):
    bare = AutoTokenizer.from_pretrained(tokenizer_folder)
    bare.eos_token = None
    with pytest.raises(UserError, match=r"has no end-of-text token .* set eos_token"):
        write_corpus(TEXTS, bare, tmp_path / "corpus")
    assert not (tmp_path / "corpus").exists()


def test_damaged_corpora_are_refused(corpus_folder: Path):
    tokens, manifest = corpus_folder / "tokens-00000-of-00001.bin", corpus_folder / "manifest.json"
    described = json.loads(manifest.read_text())
    data = tokens.read_bytes()

    for damaged in (data[:-1], data + b"\0\0"):
        tokens.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"has {len(damaged)} bytes, but .* says {len(data)}"):
            Corpus.open(corpus_folder)
    tokens.unlink()
    with pytest.raises(UserError, match="has 0 bytes"):
        Corpus.open(corpus_folder)
    tokens.write_bytes(data)
    for change in (
        {"words": None}, {"dtype": "letters"}, {"dtype": "float64"}, {"dtype": None},
        {"shards": [{"tokens": "many"}]}, {"shards": [{"tokens": -1}]}, {"shards": None},
        {"eos_id": -1}, {"documents": -1},
    ):  # fmt: skip
        manifest.write_text(json.dumps(described | change))
        with pytest.raises(UserError, match=r"manifest\.json is damaged"):
            Corpus.open(corpus_folder)
    for other in ("[]", "{}"):
        manifest.write_text(other)
        with pytest.raises(UserError, match=r"manifest\.json (is damaged|must hold)"):
            Corpus.open(corpus_folder)
    manifest.write_text("{")
    with pytest.raises(UserError, match="is not valid JSON"):
        Corpus.open(corpus_folder)
    manifest.unlink()
    with pytest.raises(UserError, match="is not a corpus: write one with `clp-jax prepare`"):
        Corpus.open(corpus_folder)


@pytest.mark.slow
def test_real_text_has_the_tokens_of_transformers(shared_data: Path):
    file = shared_data / "corpora" / "de" / "heldout.jsonl.zst"
    source = pa.input_stream(str(file), compression="zstd")
    texts = [json.loads(line)["text"] for line in source.read().splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "de_bpe50k_focus")
    corpus = Corpus.from_documents(read_documents([str(file)]), tokenizer)
    eos = tokenizer.eos_token_id
    documents = tokenizer(texts, add_special_tokens=False)["input_ids"]
    expected = [eos, *(id for ids in documents for id in (*ids, eos))]
    np.testing.assert_array_equal(corpus.tokens(), expected)
    assert (corpus.documents, corpus.bytes) == (373, 1_253_725)
    text_tokens = len(corpus) - corpus.documents - 1
    assert corpus.bytes / text_tokens == pytest.approx(4.472, abs=5e-4)


@pytest.mark.slow
def test_a_long_real_document_is_encoded_in_pieces_without_a_seam(shared_data: Path):
    texts = read_documents([str(shared_data / "corpora" / "de" / "heldout.jsonl.zst")])
    document = " ".join(islice(texts, 100))
    for name in ("de_bpe50k_focus", "de_unigram50k_focus"):
        tokenizer = AutoTokenizer.from_pretrained(shared_data / "tokenizers" / name)
        tokens = Corpus.from_documents([document], tokenizer).tokens()
        assert tokens[1:-1].tolist() == tokenizer(document, add_special_tokens=False)["input_ids"]


def test_words_of_long_texts_are_counted_part_by_part():
    rng = random.Random(0)
    for length in (0, 1, 1 << 16, (1 << 16) + 1, 200_000):
        for blanks in (0.0, 0.001, 0.5, 1.0):
            signs = rng.choices("ab\u00a0\n ", [1 - blanks, 1 - blanks, *[blanks] * 3], k=length)
            text = "".join(signs)
            assert count_words(text) == len(text.split())
