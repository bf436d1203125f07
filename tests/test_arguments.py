"""What every public function refuses before it does anything."""

import numpy as np
import pytest

import clp_jax
from clp_jax import (
    ChainConfig,
    PrepareConfig,
    UserError,
    compare_vocabularies,
    convert_checkpoint,
    evaluate_perplexity,
    evaluate_tasks,
    generate_text,
    list_runs,
    load_model,
    make_mesh,
    plan_run,
    prepare_corpus,
    run_chain,
    run_quickstart,
    save_model,
    train_model,
    train_tokenizer,
    transfer_model,
)
from clp_jax.arguments import checked

LIST = "must be a list, such as"
NAMELESS = "must name something"


def test_all_public_functions_are_checked():
    functions = {name for name in clp_jax.__all__ if name[0].islower()}
    mark = checked(len).__code__
    assert {name for name in functions if getattr(clp_jax, name).__code__ is not mark} == set()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: transfer_model("m", "h", "o", data="texts"), f"data: {LIST}"),
        (lambda: transfer_model("m", "h", "o", methd="clp"), "unknown key methd"),
        (lambda: transfer_model("m", [], "o"), "helper: .*at least 1 item"),
        (lambda: transfer_model(None, "h", "o"), "source: must be a path or a name"),
        (lambda: transfer_model("m", "h", ""), f"out: {NAMELESS}"),
        (lambda: transfer_model("m", "h", "gs://b/o"), "out: gs://b/o is an address"),
        (lambda: transfer_model("m", "h", "o", seed=2**31), "seed: .*2147483647"),
        (lambda: evaluate_perplexity("m", "texts"), f"data: {LIST}"),
        (lambda: evaluate_perplexity("m", ["x"], batch_size=0), "batch_size: .*greater than 0"),
        (lambda: evaluate_perplexity("m", ["x"], batch_size=10**9), "batch_size: .*1048576"),
        (lambda: evaluate_perplexity("m", ["x"], sequence_length=-1), "sequence_length: .*than 0"),
        (lambda: evaluate_perplexity("m", ["x", 5]), "data.1: must be text"),
        (lambda: evaluate_tasks("m", "clp_pawsx_de"), f"tasks: {LIST}"),
        (lambda: evaluate_tasks("m", ["clp_pawsx_de"], limit=0), "limit: .*greater than 0"),
        (
            lambda: evaluate_tasks("m", ["clp_pawsx_de"], task_data="hf://x"),
            "task_data: .* address",
        ),
        (lambda: prepare_corpus("texts", None, "o"), f"inputs: {LIST}"),
        (lambda: prepare_corpus(["x"], None, "o", limit=-1), "limit: .*greater than 0"),
        (lambda: prepare_corpus([""], None, "o"), f"inputs.0: {NAMELESS}"),
        (lambda: prepare_corpus(["x"], None, "o", config=ChainConfig), "config: must be a section"),
        (lambda: train_tokenizer("texts", 300, "o"), f"inputs: {LIST}"),
        (lambda: train_tokenizer(["x"], 10**9, "o"), "vocab_size: .*less than or equal"),
        (lambda: compare_vocabularies("m", "n", "texts"), f"data: {LIST}"),
        (lambda: list_runs(5), "places: must be a path or a name"),
        (lambda: generate_text("m", "x", temperature=float("nan")), "temperature: .*finite number"),
        (lambda: generate_text("m", "x", temperature=-1), "temperature: .*or equal to 0"),
        (lambda: generate_text("m", "x", max_new_tokens=-1), "max_new_tokens: .*than 0"),
        (lambda: generate_text("m", "x", seed=2**31), "seed: .*less than or equal"),
        (lambda: generate_text("m", None), "prompt: must be text"),
        (lambda: convert_checkpoint("m", "o", "onnx"), "to: Input should be .*or 'gguf'"),
        (lambda: convert_checkpoint("m", "o", "hf", dtype=np.int8), "dtype: .*int8.* is not one"),
        (lambda: convert_checkpoint("m", "o", "hf", dtype=bool), "dtype: .*bool.* is not one of"),
        (lambda: convert_checkpoint("m", "gs://b/o", "hf"), "out: gs://b/o is an address"),
        (lambda: load_model("m", dtype="int8"), "dtype: int8 is not one of"),
        (lambda: load_model("m\0"), f"name: {NAMELESS}"),
        (lambda: save_model("m", "o", origin="m"), "model: Input should be an instance"),
        (lambda: make_mesh(data=-2), "data: .*greater than or equal to -1"),
        (lambda: make_mesh(devices="x"), f"devices: {LIST}"),
        (lambda: make_mesh(devices=[0]), "devices.0: .*Device"),
        (lambda: make_mesh(devices=[]), "devices: .*at least 1 item"),
        (lambda: make_mesh(1, 10**12), "fsdp: .*less than or equal"),
        (lambda: plan_run(PrepareConfig(), "v4-8"), "config: must be a section"),
        (lambda: train_model(None), "config: must be a section with keys, or a RunConfig"),
        (lambda: train_model(PrepareConfig()), "config: must be a section"),
        (lambda: run_chain("chain.yaml"), "config: must be a section with keys, or a ChainConfig"),
        (lambda: run_quickstart("s3://b"), "out: s3://b is an address"),
    ],
)
def test_arguments_that_no_function_takes(call, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        call()
    assert str(error.value).endswith(".")
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_path_is_an_input_too(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match=r"b\.txt matches no file"):
        prepare_corpus([tmp_path / "a.txt", tmp_path / "b.txt"], None, tmp_path / "out")
