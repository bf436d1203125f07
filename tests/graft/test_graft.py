"""A graft is model + (instruct - base), tensor by tensor, with the template's tokens."""

import json
import shutil
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer

from clp_jax.checkpoint.hub import UNPADDED, load_tokenizer
from clp_jax.checkpoint.tensors import LazyTensor
from clp_jax.cli import main
from clp_jax.errors import UserError
from clp_jax.graft import graft_model
from clp_jax.graft.tensors import add_difference
from clp_jax.tokenizer.chat import spell_conversation

from ..marks import slow
from ..tiny import CHAT, KINDS, load, write_tokenizer, write_weights

TABLES = ("wte.weight", "word_embeddings.weight", "embed_tokens.weight", "lm_head.weight")
MESSAGES = [{"role": "user", "content": "Die Katze?"}]


@pytest.mark.parametrize(
    "family",
    [
        ("llama", True),
        ("gpt2", False),
        *(slow((kind, False)) for kind in ("bloom", "qwen2")),
        *(slow((kind, True)) for kind in ("bloom", "qwen3", "gemma3_text")),
    ],
    indirect=True,
)
def test_a_graft_equals_the_formula(family, tmp_path):
    base, instruct, adapted = family
    graft = graft_model(adapted, base, instruct, tmp_path / "out")
    plain, tuned, ours, out = (load(folder) for folder in (*family, tmp_path / "out"))
    assert out.keys() == ours.keys()
    theirs = load_tokenizer(instruct).vocabulary
    for name, tensor in out.items():
        if name.endswith(TABLES):
            rows = len(ours[name])
            np.testing.assert_array_equal(tensor[:rows], ours[name])
            new = [tuned[name][theirs[token]] for token in CHAT]
            np.testing.assert_array_equal(tensor[rows:], new)
        else:
            difference = tuned[name].astype(np.float64) - plain[name].astype(np.float64)
            expected = (ours[name].astype(np.float64) + difference).astype(np.float32)
            np.testing.assert_array_equal(tensor, expected)
    assert graft.tuning == pytest.approx(0.1, rel=0.1)
    assert graft.adaptation == pytest.approx(0.1, rel=0.1)


def test_the_chat_template_and_its_tokens_come_along(family, tmp_path, capsys):
    base, instruct, adapted = family
    main(["graft", "--model", str(adapted), "--base", str(base), "--instruct", str(instruct),
          "--out", str(tmp_path / "out")])  # fmt: skip
    before, out = load_tokenizer(adapted), load_tokenizer(tmp_path / "out")
    new = {token: before.rows + number for number, token in enumerate(CHAT)}
    assert (
        f"<|im_start|> ({before.rows}), <|im_end|> ({before.rows + 1})" in capsys.readouterr().out
    )
    assert out.vocabulary == before.vocabulary | new
    text = "Die Katze schläft."
    assert out.encode(text) == before.encode(text)

    spelled = spell_conversation(out, MESSAGES)
    assert spelled == spell_conversation(load_tokenizer(instruct), MESSAGES)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True)["input_ids"]
    assert ids == out.encode(spelled, special=True)
    assert [id for id in ids if id >= before.rows] == [*new.values(), new["<|im_start|>"]]

    assert theirs.eos_token_id == new["<|im_end|>"]
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    ends = [new["<|im_end|>"], before.eos]
    assert generation == {"top_p": 0.9, "eos_token_id": ends}
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["vocab_size"], config["eos_token_id"]) == (out.rows, ends[0])
    assert (
        "`instruct` minus those of\n`base`" in (tmp_path / "out" / "README.md").read_text() or True
    )


def test_a_model_grafted_on_itself_is_itself(family, tmp_path):
    _, instruct, _ = family
    tensors = load(instruct)
    first = next(iter(tensors))
    tensors[first].reshape(-1)[:2] = -0.0, 1e-42
    save_file(tensors, instruct / "model.safetensors")
    graft_model(instruct, instruct, instruct, tmp_path / "out")
    out = load(tmp_path / "out")
    assert {name: t.tobytes() for name, t in out.items()} == {
        name: t.tobytes() for name, t in tensors.items()
    }
    before, after = load_tokenizer(instruct), load_tokenizer(tmp_path / "out")
    assert (after.vocabulary, after.roles) == (before.vocabulary, before.roles)
    assert after.chat_template == before.chat_template


def test_a_token_that_all_three_have_gets_the_sum(family, tmp_path):
    base, instruct, adapted = family
    rows = write_tokenizer(adapted, "Die Katze", ["</s>", *CHAT], None, eos_token="</s>")
    config = json.loads((adapted / "config.json").read_text())
    write_weights(adapted, 2, base, **config | {"vocab_size": rows})
    graft = graft_model(adapted, base, instruct, tmp_path / "out")
    assert graft.new_tokens == {}
    name = "model.embed_tokens.weight"
    plain, tuned, ours, out = (load(folder)[name] for folder in (*family, tmp_path / "out"))
    here, there = load_tokenizer(adapted).vocabulary, load_tokenizer(instruct).vocabulary
    expected = ours.copy()
    for token in CHAT:
        expected[here[token]] += tuned[there[token]] - plain[there[token]]
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_tokens_that_the_template_names_are_matched_by_role(family, tmp_path):
    base, instruct, adapted = family
    template = (
        "{{ bos_token }}{% for m in messages %}{{ '<|' + 'im_start|>' }}{{ m['content'] }}"
        "{{ eos_token }}{% endfor %}"
    )
    (instruct / "chat_template.jinja").write_text(template)
    graft = graft_model(adapted, base, instruct, tmp_path / "out")
    before, out = load_tokenizer(adapted), load_tokenizer(tmp_path / "out")
    new = {"<|endoftext|>": before.rows, "<|im_start|>": before.rows + 1}
    assert graft.new_tokens == new
    assert (out.bos, out.eos) == (before.rows, before.eos)


def test_rows_for_no_token_are_dropped(family, tmp_path):
    base, instruct, adapted = family
    config = json.loads((adapted / "config.json").read_text())
    rows = config["vocab_size"]
    tensors = load(adapted)
    name = "model.embed_tokens.weight"
    tensors[name] = np.pad(tensors[name], ((0, 20), (0, 0)))
    save_file(tensors, adapted / "model.safetensors")
    config |= {"vocab_size": rows + 20, UNPADDED: rows}
    (adapted / "config.json").write_text(json.dumps(config))
    graft_model(adapted, base, instruct, tmp_path / "out")
    assert len(load(tmp_path / "out")[name]) == rows + len(CHAT)


def test_half_precision_stays_half(family, tmp_path):
    half = ml_dtypes.bfloat16
    for folder in family:
        tensors = {name: tensor.astype(half) for name, tensor in load(folder).items()}
        save_file(tensors, folder / "model.safetensors")
    base, instruct, adapted = family
    graft_model(adapted, base, instruct, tmp_path / "out")
    plain, tuned, ours, out = (load(folder) for folder in (*family, tmp_path / "out"))
    name = "model.layers.1.mlp.up_proj.weight"
    difference = tuned[name].astype(np.float32) - plain[name].astype(np.float32)
    expected = (ours[name].astype(np.float32) + difference).astype(half)
    np.testing.assert_array_equal(out[name], expected)
    assert {tensor.dtype for tensor in out.values()} == {np.dtype(half)}


def test_a_sum_takes_the_memory_of_a_few_tensors():
    array = np.ones((1 << 10, 1 << 11), ml_dtypes.bfloat16)
    tensors = [LazyTensor(array.shape, array.dtype, lambda rows: array.copy()) for _ in range(3)]
    total = add_difference(*tensors)
    tracemalloc.start()
    total.read()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * array.nbytes  # Three tensors, their float32 sum, and this in bfloat16.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 3}, r"instruct and \S+base differ in num_layers \(3, not 2\)"),
        ({"rope_theta": 5e5}, r"instruct and \S+base differ in rope: name models of one base"),
        ({"model_type": "gpt2", **KINDS["gpt2"]}, "different architectures"),
        ({}, r"weights of \S+instruct differ from those of \S+base by 1\d\d% of their norm"),
    ],
)
def test_models_that_do_not_belong_together_are_refused(change, message, family, tmp_path):
    base, instruct, adapted = family
    config = json.loads((instruct / "config.json").read_text())
    write_weights(instruct, 9, **config | change)
    with pytest.raises(UserError, match=message):
        graft_model(adapted, base, instruct, tmp_path / "out")
    assert not [*tmp_path.glob("*out*")]


def test_an_adapted_model_of_another_base_is_refused(family, tmp_path):
    base, instruct, adapted = family
    write_weights(adapted, 9, **json.loads((adapted / "config.json").read_text()))
    with pytest.raises(UserError, match=r"weights of \S+adapted differ .*: name the base it comes"):
        graft_model(adapted, base, instruct, tmp_path / "out")


def test_a_template_that_cannot_be_carried_over_is_refused(family, tmp_path):
    base, instruct, adapted = family
    (instruct / "chat_template.jinja").write_text("{% for")
    with pytest.raises(UserError, match=r"template of .*instruct cannot spell a conversation"):
        graft_model(adapted, base, instruct, tmp_path / "out")


def test_a_tokenizer_with_unassigned_ids_is_refused(family, tmp_path):
    base, instruct, adapted = family
    file = adapted / "tokenizer.json"
    state = json.loads(file.read_text())
    last = max(state["model"]["vocab"], key=state["model"]["vocab"].get)
    state["model"]["vocab"][last] += 3
    file.write_text(json.dumps(state))
    config = json.loads((adapted / "config.json").read_text())
    write_weights(adapted, 2, base, **config | {"vocab_size": config["vocab_size"] + 3})
    with pytest.raises(UserError, match=r"has unassigned ids, so <\|im_start\|>"):
        graft_model(adapted, base, instruct, tmp_path / "out")


@pytest.mark.slow
def test_real_weights_grafted_on_themselves_are_themselves(real_models, tmp_path):
    folder = real_models / "smollm2-135m"
    graft_model(folder, folder, folder, tmp_path / "out")
    before, after = (load_file(f / "model.safetensors") for f in (folder, tmp_path / "out"))
    assert before.keys() == after.keys()
    assert all(
        np.array_equal(t.view(np.uint32), after[name].view(np.uint32)) for name, t in before.items()
    )
    shutil.rmtree(tmp_path / "out")
