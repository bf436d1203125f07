import gzip
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from transformers import PreTrainedTokenizerFast

from clp_jax.data.config import PrepareConfig
from clp_jax.data.corpus.store import Corpus
from clp_jax.data.corpus.tokenize import HELDOUT
from clp_jax.data.execution import run_stages
from clp_jax.data.io import splits as pieces
from clp_jax.data.io.readers import read_documents
from clp_jax.data.prepare import WORK, prepare_corpus
from clp_jax.errors import UserError
from clp_jax.files import write_json
from clp_jax.quickstart.inputs import made_up_text

RECIPE: dict[str, Any] = {
    "clean": {"language": "de", "repair_encoding": True, "min_words": 5, "boilerplate": True},
    "deduplicate": {"exact": True, "lines": 0.05, "near": True, "substrings": 100},
    "corpus": {"heldout": 0.1},
    "execution": {"workers": 1},
}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three files of German sentences, with some documents twice and some in English."""
    german, _ = made_up_text("de", 60_000, 0)
    english, _ = made_up_text("en", 5_000, 0)
    folder = tmp_path_factory.mktemp("texts")
    documents = [*german, *english, *german[:5]]
    random.Random(1).shuffle(documents)
    files = [folder / f"{number}.jsonl" for number in range(3)]
    for number, file in enumerate(files):
        lines = [json.dumps({"text": text}) + "\n" for text in documents[number::3]]
        file.write_text("".join(lines))
    return files


def contents(folder: Path) -> dict[str, bytes]:
    """Everything that a corpus is made of; the report tells times, which differ."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert not any("partial" in file.name for file in files)
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in files
        if file.suffix in (".bin", ".npy") or file.name == "SHA256SUMS"
    }


def test_without_a_recipe_every_document_becomes_tokens(
    tmp_path: Path,
    texts: list[Path],
    tokenizer: PreTrainedTokenizerFast,
    tokenizer_folder: Path,
):
    manifest = prepare_corpus([*map(str, texts)], tokenizer_folder, tmp_path / "corpus")
    assert manifest is not None
    read = [json.loads(line)["text"] for file in texts for line in file.open()]
    held = Corpus.from_documents(read, tokenizer)
    corpus = Corpus.open(tmp_path / "corpus")
    np.testing.assert_array_equal(corpus.tokens(), held.tokens())
    assert (corpus.documents, corpus.words, corpus.bytes) == (len(read), held.words, held.bytes)
    assert manifest == json.loads((tmp_path / "corpus" / "manifest.json").read_text())
    assert sum(manifest["lengths"]["documents"]) == len(read)
    assert str(tmp_path) not in (tmp_path / "corpus" / "manifest.json").read_text()
    assert sorted(file.name for file in (tmp_path / "corpus").iterdir()) == [
        "SHA256SUMS",
        "documents-00000-of-00001.npy",
        "manifest.json",
        "report.html",
        "report.md",
        "tokens-00000-of-00001.bin",
    ]


def test_a_limit_takes_the_first_documents(
    tmp_path: Path, texts: list[Path], tokenizer_folder: Path
):
    manifest = prepare_corpus([str(texts[0])], tokenizer_folder, tmp_path / "corpus", limit=2)
    assert manifest is not None
    assert manifest["documents"] == 2
    with pytest.raises(UserError, match="limit: Input should be greater than 0"):
        prepare_corpus([str(texts[0])], tokenizer_folder, tmp_path / "none", limit=0)


def test_nothing_is_held_out_where_no_document_falls_into_the_share(
    tmp_path: Path, texts: list[Path], tokenizer_folder: Path
):
    config = PrepareConfig.from_dict({"corpus": {"heldout": 1e-9}})
    out = tmp_path / "corpus"
    manifest = prepare_corpus([str(texts[0])], tokenizer_folder, out, config=config)
    assert manifest is not None
    assert manifest["heldout"] is None
    assert not (out / "heldout").exists()


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_TASK_BYTES", 10_000)


@pytest.mark.slow
def test_the_whole_recipe_splits_and_drops(
    tmp_path: Path,
    texts: list[Path],
    tokenizer_folder: Path,
    small_tasks: None,
):
    manifest = prepare_corpus(
        [*map(str, texts)],
        tokenizer_folder,
        tmp_path / "corpus",
        config=PrepareConfig.from_dict(RECIPE),
    )
    assert manifest is not None
    assert len(manifest["shards"]) > 3
    dropped = {step["name"]: sum(step["dropped"].values()) for step in manifest["steps"]}
    assert dropped["language"] > 0
    assert dropped["exact"] >= 5
    train, heldout = (Corpus.open(tmp_path / name) for name in ("corpus", "corpus/heldout"))
    assert 0.02 < heldout.documents / (train.documents + heldout.documents) < 0.25
    assert manifest["heldout"]["tokens"] == len(heldout)
    assert train.tokenizer_hash == heldout.tokenizer_hash
    tokens = np.concatenate([train.tokens(), heldout.tokens()])
    assert (tokens == train.eos_id).sum() == train.documents + heldout.documents + 2


def test_the_number_of_processes_does_not_change_the_corpus(
    tmp_path: Path, texts: list[Path], tokenizer_folder: Path, small_tasks: None
):
    for workers in (1, 2):
        config = PrepareConfig.from_dict({**RECIPE, "execution": {"workers": workers}})
        out = tmp_path / str(workers)
        prepare_corpus([*map(str, texts)], tokenizer_folder, out, config=config)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


ALONE = """
import json, sys
from clp_jax.data.config import PrepareConfig
from clp_jax.data.io import splits as pieces
from clp_jax.data.prepare import prepare_corpus
if __name__ == "__main__":
    pieces._TASK_BYTES = 10_000
    recipe, tokenizer, out, *texts = sys.argv[1:]
    prepare_corpus(texts, tokenizer, out, config=PrepareConfig.from_dict(json.loads(recipe)))
"""


@pytest.mark.slow
def test_ten_kills_at_random_moments_leave_no_trace(
    tmp_path: Path, texts: list[Path], tokenizer_folder: Path
):
    (tmp_path / "alone.py").write_text(ALONE)
    log = tmp_path / "log"

    def begin(name: str) -> subprocess.Popen[bytes]:
        recipe = json.dumps({**RECIPE, "execution": {"workers": 2}})
        command = [sys.executable, tmp_path / "alone.py", recipe, tokenizer_folder, tmp_path / name]
        with log.open("wb") as errors:
            return subprocess.Popen([*command, *texts], stderr=errors)

    began = time.monotonic()
    assert begin("unbroken").wait() == 0
    whole = time.monotonic() - began
    seed = int.from_bytes(os.urandom(4), "big")
    moments = random.Random(seed)
    kills, finished = 0, 0
    while kills < 10:
        child = begin(f"killed-{finished}")
        time.sleep(moments.uniform(0.2, 0.7) * whole)
        child.kill()
        if child.wait() != 0:
            assert child.returncode == -signal.SIGKILL, log.read_text()
            kills += 1
        begun = tmp_path / f"killed-{finished}"
        finished += begun.exists() and not (begun / WORK).exists()
    assert begin(f"killed-{finished}").wait() == 0, log.read_text()
    for number in range(finished + 1):
        assert contents(tmp_path / f"killed-{number}") == contents(tmp_path / "unbroken"), seed


def test_without_a_tokenizer_the_clean_text_is_written(tmp_path: Path, texts: list[Path]):
    recipe = {"deduplicate": {"exact": True}}
    manifest = prepare_corpus(
        [str(texts[0])], None, tmp_path / "clean", config=PrepareConfig.from_dict(recipe)
    )
    assert manifest is not None
    assert "tokens" not in manifest
    written = [*read_documents([str(tmp_path / "clean" / "text" / "*.jsonl.zst")])]
    read = [json.loads(line)["text"] for line in texts[0].open()]
    assert written == [*dict.fromkeys(read)]
    assert manifest["documents"] == len(written)


def test_text_is_held_out_as_tokens_are(tmp_path: Path, tokenizer_folder: Path, texts: list[Path]):
    config = PrepareConfig.from_dict({"corpus": {"heldout": 0.3}})
    made = {
        name: prepare_corpus([str(texts[0])], tokenizer, tmp_path / name, config=config)
        for name, tokenizer in (("text", None), ("tokens", tokenizer_folder))
    }
    assert made["text"] is not None
    assert made["tokens"] is not None
    for part in ("documents", "words", "bytes"):
        assert made["text"][part] == made["tokens"][part]
        assert made["text"]["heldout"][part] == made["tokens"]["heldout"][part] > 0
    written = {
        split: [*read_documents([str(tmp_path / "text" / split / "text" / "*.jsonl.zst")])]
        for split in (".", "heldout")
    }
    read = [json.loads(line)["text"] for line in texts[0].open()]
    assert sorted(written["."] + written["heldout"]) == sorted(read)
    assert len(written["heldout"]) == made["text"]["heldout"]["documents"]


def test_bad_input_is_reported_and_leaves_nothing_behind(tmp_path: Path, tokenizer_folder: Path):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text('{"text": "Ein Satz."}\n')
    bad.write_text('{"text": "Ein Satz."}\n{"text": \n')
    out = tmp_path / "corpus"
    with pytest.raises(UserError, match=r"bad\.jsonl, line 2"):
        prepare_corpus([str(bad)], tokenizer_folder, out)
    assert not out.exists()
    with pytest.raises(UserError, match="nothing to read"):
        prepare_corpus([], tokenizer_folder, out)
    with pytest.raises(UserError, match="text_field would be ignored, because it is that of --inp"):
        prepare_corpus([], tokenizer_folder, out, text_field="body")
    with pytest.raises(UserError, match="source_tokenizer would be ignored, because there is no"):
        prepare_corpus([str(good)], None, out, source_tokenizer=tokenizer_folder)
    with pytest.raises(UserError, match="nowhere"):
        prepare_corpus([str(good)], tokenizer_folder, out, source_tokenizer=tmp_path / "nowhere")
    assert not out.exists()
    recipe = PrepareConfig.from_dict({"corpus": {"max_broken": 1}})
    manifest = prepare_corpus([str(bad)], tokenizer_folder, out, config=recipe)
    assert manifest is not None
    assert (manifest["documents"], manifest["broken"]) == (1, 1)
    with pytest.raises(UserError, match="exists already"):
        prepare_corpus([str(good)], tokenizer_folder, out)
    recipe = PrepareConfig.from_dict({"clean": {"min_words": 5}})
    left = r"No document is left: min-length dropped 1 \(too short\)"
    with pytest.raises(UserError, match=left):
        prepare_corpus([str(good)], tokenizer_folder, tmp_path / "none", config=recipe)
    assert not (tmp_path / "none").exists()
    recipe = PrepareConfig.from_dict({"corpus": {"heldout": 0.999999}})
    with pytest.raises(UserError, match=r"All 1 documents are held out"):
        prepare_corpus([str(good)], tokenizer_folder, tmp_path / "none", config=recipe)
    assert not (tmp_path / "none").exists()


def test_a_folder_of_the_user_stays(tmp_path: Path, tokenizer_folder: Path):
    bad, out = tmp_path / "bad.jsonl", tmp_path / "corpus"
    out.mkdir()
    bad.write_text('{"text": \n')
    with pytest.raises(UserError, match=r"bad\.jsonl, line 1"):
        prepare_corpus([str(bad)], tokenizer_folder, out)
    bad.write_text('{"text": " "}\n')
    with pytest.raises(UserError, match=r"bad\.jsonl: no document holds any text\."):
        prepare_corpus([str(bad)], tokenizer_folder, out)
    assert out.is_dir()
    assert not [*out.iterdir()]
    (out / "mine").touch()
    with pytest.raises(UserError, match="exists already"):
        prepare_corpus([str(bad)], tokenizer_folder, out)
    assert [file.name for file in out.iterdir()] == ["mine"]


EMPTY: dict[str, bytes] = {
    "nothing.txt": b"",
    "blank.txt": b" \n\t\n",
    "mark.txt": b"\xef\xbb\xbf",
    "nothing.jsonl": b"",
    "blank.jsonl": b"\n \n",
    "mark.jsonl": b"\xef\xbb\xbf\n",
    "no-text.jsonl": b'{"text": ""}\n',
    "list.json": b"[]",
    "nothing.txt.gz": gzip.compress(b""),
    "no-byte.txt.gz": b"",
    "nothing.jsonl.zst": zstandard.ZstdCompressor().compress(b""),
    "rows.parquet": b"",
}


@pytest.mark.parametrize("name", EMPTY)
def test_empty_text_is_named_and_leaves_nothing(tmp_path: Path, tokenizer_folder: Path, name: str):
    file, out = tmp_path / name, tmp_path / "corpus"
    if name.endswith("parquet"):
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), file)
    else:
        file.write_bytes(EMPTY[name])
    one = PrepareConfig.from_dict({"execution": {"workers": 1}})
    with pytest.raises(UserError, match=rf"{name}: no document holds any text\.$"):
        prepare_corpus([str(file)], tokenizer_folder, out, config=one)
    assert not out.exists()


def test_a_preparation_with_another_recipe_is_not_resumed(
    tmp_path: Path, texts: list[Path], tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(stages: Any, *arguments: Any) -> None:
        if count := done.pop():
            run_stages(stages[:count], *arguments)
        raise KeyboardInterrupt

    done = [1, 0]  # stages; with nothing done, nothing is lost

    monkeypatch.setattr("clp_jax.data.prepare.run_stages", interrupted)
    first, second = (PrepareConfig.from_dict({"clean": {"min_words": n}}) for n in (1, 2))
    out = tmp_path / "corpus"
    for recipe in (second, first):
        with pytest.raises(KeyboardInterrupt):
            prepare_corpus([str(texts[0])], tokenizer_folder, out, config=recipe)
    with pytest.raises(UserError, match=r"started with another recipe: .* or remove the folder"):
        prepare_corpus([str(texts[0])], tokenizer_folder, out)
    with pytest.raises(UserError, match="started with another recipe and tasks"):
        prepare_corpus([str(texts[1])], tokenizer_folder, out)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("logs/clean/stats/00000.json", "[{}]", "KeyError: 'name'"),
        ("logs/clean/stats/00000.json", "{}", "must hold a JSON list"),
        ("logs/clean/stats/00000.json", None, "is missing"),
        ("documents/clean/00000.jsonl.zst", "zstd", "has changed since it was written"),
    ],
)
def test_a_damaged_preparation_is_not_resumed(
    tmp_path: Path,
    tokenizer_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    content: str | None,
    reason: str,
):
    def interrupted(stages: Any, *arguments: Any) -> None:
        run_stages(stages[:1], *arguments)
        raise KeyboardInterrupt

    text, out = tmp_path / "a.txt", tmp_path / "corpus"
    text.write_text("eins zwei drei")
    recipe = PrepareConfig.from_dict({"deduplicate": {"exact": True}, "execution": {"workers": 1}})
    monkeypatch.setattr("clp_jax.data.prepare.run_stages", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_corpus([str(text)], tokenizer_folder, out, config=recipe)
    monkeypatch.undo()
    if content is None:
        (out / WORK / file).unlink()
    else:
        (out / WORK / file).write_text(content)
    with pytest.raises(UserError, match=f"cannot be resumed .*{reason}|{file}.*{reason}"):
        prepare_corpus([str(text)], tokenizer_folder, out, config=recipe)


@pytest.mark.slow
def test_a_folder_called_tilde_is_not_the_home_folder(
    tmp_path: Path, tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "home").mkdir()
    (tmp_path / "a.txt").write_text("eins zwei drei")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    recipe = PrepareConfig.from_dict({"execution": {"workers": 1}})
    assert prepare_corpus(["a.txt"], tokenizer_folder, Path("~/corpus"), config=recipe)
    assert Corpus.open(tmp_path / "~/corpus")
    assert [*(tmp_path / "home").iterdir()] == []


def test_one_flipped_bit_and_one_lost_record_between_stages_are_found(
    tmp_path: Path, texts: list[Path], tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def flipping(stages: Any, work: Path, section: Any) -> bool:
        known, found = {work / "plan.json", work / "lock", work / "workers.lock"}, set()
        later = {"samples": stages[-1], "tests": stages[-2], "logs": None}

        def due(file: Path, stage: Any) -> bool:
            return all(later.get(part, stage) is stage for part in file.parts)

        for before, after in itertools.pairwise(stages):
            run_stages([before], work, section)
            files = {file for file in out.rglob("*") if file.is_file()} - known
            files = {file for file in files if due(file, after)}
            for file in {file.suffix: file for file in files}.values():
                content = file.read_bytes()
                middle = len(content) // 2
                flipped = bytes([content[middle] ^ 4]) if content else b"new"
                file.write_bytes(content[:middle] + flipped + content[middle + 1 :])
                with pytest.raises(UserError, match="has changed since it was written"):
                    run_stages([after], work, section)
                if file.suffix == ".sums":
                    file.unlink()
                    with pytest.raises(UserError, match=f"{file.name} is missing"):
                        run_stages([after], work, section)
                file.write_bytes(content)
            known |= files
            found |= {file.suffix for file in files}
        expected = {".zst", ".npy", ".sig", ".dups", ".txt", ".json", ".bin", ".sums"}
        assert found == expected
        return run_stages(stages[-1:], work, section)

    monkeypatch.setattr("clp_jax.data.prepare.run_stages", flipping)
    (tmp_path / "tests.txt").write_text("eins zwei drei vier fünf sechs sieben acht neun")
    tests = {"decontaminate": {"against": [str(tmp_path / "tests.txt")]}}
    clean = {"clean": {"min_words": 5}}  # fast, and drops some
    recipe = PrepareConfig.from_dict(RECIPE | clean | tests)
    out = tmp_path / "corpus"
    assert prepare_corpus([str(texts[0])], tokenizer_folder, out, config=recipe)


def test_what_killed_writers_leave_is_neither_read_nor_kept(
    tmp_path: Path, texts: list[Path], monkeypatch: pytest.MonkeyPatch
):
    def killed(stages: Any, work: Path, section: Any) -> bool:
        for stage in stages:
            left = [file for file in work.parent.rglob("[0-9]*.*") if file.is_file()]
            for file in left:
                copy = file.with_name(f".{file.stem}.0123abcd.partial{file.suffix}")
                copy.write_bytes(file.read_bytes())
            run_stages([stage], work, section)
        return True

    changes = {"clean": {"min_words": 5}, "deduplicate": {"exact": True, "lines": 0.05}}
    recipe = PrepareConfig.from_dict(RECIPE | changes | {"corpus": {"heldout": 0.3}})
    made = {}
    for name in ("whole", "killed"):
        made[name] = prepare_corpus([str(texts[0])], None, tmp_path / name, config=recipe)
        monkeypatch.setattr("clp_jax.data.prepare.run_stages", killed)
    for manifest in made.values():
        assert manifest is not None
        for step in manifest["steps"]:
            step.pop("seconds")
    assert made["killed"] == made["whole"]
    assert made["whole"]["heldout"]["documents"]
    assert not [*(tmp_path / "killed").rglob(".*")]


def test_a_corpus_is_freed_of_one_version_of_the_tests(
    tmp_path: Path, texts: list[Path], tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(stages: Any, *arguments: Any) -> None:
        run_stages(stages[:1], *arguments)
        raise KeyboardInterrupt

    tests, out = tmp_path / "tests.txt", tmp_path / "corpus"
    tests.write_text("eins zwei drei vier fünf sechs sieben acht neun")
    recipe = PrepareConfig.from_dict({"decontaminate": {"against": [str(tests)]}})
    monkeypatch.setattr("clp_jax.data.prepare.run_stages", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_corpus([str(texts[0])], tokenizer_folder, out, config=recipe)
    kept = (out / WORK / "tests" / "index.npy").read_bytes()
    tests.write_text("eins zwei drei vier fünf sechs sieben acht neun zehn")
    with pytest.raises(UserError, match="started with another tests_hash"):
        prepare_corpus([str(texts[0])], tokenizer_folder, out, config=recipe)
    assert (out / WORK / "tests" / "index.npy").read_bytes() == kept


def test_a_second_run_is_refused_and_leaves_the_first_alone(
    tmp_path: Path, texts: list[Path], tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("clp_jax.data.execution._PATIENCE", 0.2)
    out, before = tmp_path / "corpus", []

    def meanwhile(*arguments: Any) -> bool:
        before.extend(sorted(out.rglob("*")))
        with pytest.raises(UserError, match="Another run is using"):
            prepare_corpus([str(texts[0])], tokenizer_folder, out)
        assert sorted(out.rglob("*")) == before
        return run_stages(*arguments)

    monkeypatch.setattr("clp_jax.data.prepare.run_stages", meanwhile)
    (out / HELDOUT).mkdir(parents=True)
    (out / WORK).mkdir()
    for folder in (out, out / HELDOUT):
        (folder / ".tokens-00000-of-00001.0123abcd.partial.bin").touch()
    write_json(out / WORK / "plan.json", {})
    assert prepare_corpus([str(texts[0])], tokenizer_folder, out) is not None
    assert before
    assert not [*out.rglob(".*")]


def test_a_run_that_was_stopped_at_its_very_end_is_cleared_up(
    tmp_path: Path, texts: list[Path], tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*arguments: Any) -> None:
        run_stages(*arguments)
        raise KeyboardInterrupt

    out = tmp_path / "corpus"
    with monkeypatch.context() as patch:
        patch.setattr("clp_jax.data.prepare.run_stages", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare_corpus([str(texts[0])], tokenizer_folder, out)
    before = Corpus.open(out)
    manifest = prepare_corpus([str(texts[0])], tokenizer_folder, out)
    assert manifest == json.loads((out / "manifest.json").read_text())
    assert not (out / "work").exists()
    assert Corpus.open(out).fingerprint == before.fingerprint
