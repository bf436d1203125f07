"""Tasks of the harness, with data in the published formats: the same answers as its hf model."""

import json
from pathlib import Path

import numpy as np
import pytest
import transformers
import yaml
from tokenizers.processors import TemplateProcessing

from clp_jax.checkpoint.hf import load_model, save_model
from clp_jax.checkpoint.hub import load_tokenizer

from ..marks import slow

pytest.importorskip("lm_eval")
pytest.importorskip("torch")
import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from clp_jax.evaluate import likelihoods
from clp_jax.evaluate.harness import JaxLM

DOG, EVENING = "Der Hund läuft über die Straße.", "Am Abend liest sie ein Buch."

# By name: the harness's file, what differs from it, and the documents.
TASKS = {
    "belebele_deu_Latn": (
        "belebele/belebele_deu_Latn.yaml",
        {},
        [
            {"flores_passage": DOG, "question": question, "correct_answer_num": "2"}
            | {f"mc_answer{i}": answer for i, answer in enumerate(answers, 1)}
            for question, answers in (
                ("Wer läuft?", ("Eine Katze", "Der Hund", "Viktor", "Niemand")),
                ("Was tut er?", ("Er liest", "Er läuft", "Er jagt", "Es regnet")),
            )
        ],
    ),
    "arc_de": (
        "okapi/arc_multilingual/arc_de.yaml",
        {"num_fewshot": 1},
        [
            {"id": f"{i}", "instruction": question, "answer": "BAC"[i]}
            | dict(zip(("option_a", "option_b", "option_c", "option_d"), options, strict=True))
            | {"option_e": None}
            for i, (question, options) in enumerate(
                [
                    ("Wer jagt Viktor?", ("Die Katze", "Zwölf Boxkämpfer", "Regen", "Ein Buch")),
                    ("Was liest sie?", ("Ein Buch", "Den Deich", "Die Straße", "Sätze")),
                    ("Was sieht die Katze?", ("Nichts", "Es", "Den Hund", "Beide Sätze")),
                ]
            )
        ],
    ),
    "hellaswag_de": (
        "okapi/hellaswag_multilingual/hellaswag_de.yaml",
        {},
        [
            {
                "activity_label": "Lesen",
                "ctx_a": EVENING * 2,
                "ctx_b": "sie",
                "label": "1",
            }
            | {"endings": ["jagt den Hund.", "liest über den Deich.", "regnet.", "ist die Katze."]}
        ],
    ),
    "lambada_openai_mt_stablelm_de": (
        "lambada_multilingual_stablelm/lambada_mt_stablelm_de.yaml",
        {},
        [{"text": f"{DOG} {EVENING} Die Katze sieht"}, {"text": EVENING}],
    ),
    "multiblimp_deu": (
        "multiblimp/multiblimp_deu.yaml",
        {},
        [
            {"sen": "Die Katze sieht ihm zu.", "wrong_sen": "Die Katze sehen ihm zu."},
            {
                "sen": "Beide Hunde laufen.",
                "wrong_sen": "Beide Hunde läuft.",
            },
        ],
    ),
    "xnli_de": (
        "xnli/xnli_de.yaml",
        {},
        [{"premise": DOG, "hypothesis": "Ein Hund läuft.", "label": 0}],
    ),
    "truthfulqa_de_mc2": (
        "okapi/truthfulqa_multilingual/truthfulqa_de_mc2.yaml",
        {},
        [
            {"question": question, "mc1_targets_choices": answers, "mc2_targets_choices": answers}
            | {"mc2_targets_labels": [1] + [0] * (len(answers) - 1)}
            for question, answers in (
                ("Ist dieser Satz eine Frage?", ["Ja.", "Nein, er ist ein Buch.", "Am Abend."]),
                ("Regnet es am Abend?", ["Es regnet nicht.", "Es regnet."]),
            )
        ],
    ),
    "winogrande": (
        "winogrande/default.yaml",
        {},
        [
            {"sentence": "Der Hund jagt die Katze, denn _ läuft.", "option1": "der Hund"}
            | {"option2": "die Katze", "answer": "2"}
        ],
    ),
    "wikitext": (
        "wikitext/wikitext.yaml",
        {},
        [{"page": f" = Der Hund = \n\n {DOG * 30} \n"}, {"page": EVENING}],
    ),
    "triviaqa": (
        "triviaqa/default.yaml",
        {"generation_kwargs": {"until": ["\n", "e"], "do_sample": False, "max_gen_toks": 12}},
        [
            {"question": f"{context} Wer?", "answer": {"value": "Sie", "aliases": ["Sie"]}}
            for context in (DOG, EVENING * 2, DOG * 3)
        ],
    ),
    "mgsm_direct_de": (
        "mgsm/direct/mgsm_direct_de.yaml",
        {
            "num_fewshot": 1,
            "generation_kwargs": {"until": ["Frage:", "</s>"], "max_gen_toks": 9},
        },
        [
            {
                "question": f"Wie viel sind {i} und {i}?",
                "answer": None,
                "answer_number": 2 * i,
            }
            for i in (2, 3)
        ],
    ),
}


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    """What the tasks ask, by kind."""
    published = Path(lm_eval.__file__).parent / "tasks"
    folder = tmp_path_factory.mktemp("tasks")
    for name, (file, overrides, documents) in TASKS.items():
        data = folder / f"{name}.jsonl"
        data.write_text("\n".join(json.dumps(doc) for doc in documents))
        files = dict.fromkeys(("train", "val", "validation", "test"), str(data))
        ours = {"task": name, "dataset_path": "json", "dataset_name": None}
        ours |= {"include": str(published / file), "dataset_kwargs": {"data_files": files}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(ours | overrides))
    asked = {}
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    for task in manager.load([*TASKS])["tasks"].values():
        task.build_all_requests(rank=0, world_size=1)
        for instance in task.instances:
            asked.setdefault(instance.request_type, []).append(instance)
    return asked


SIZES = {"vocab_size": 400, "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 0}
LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
WIDTHS = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 1024}
CONFIGS = {
    "gpt2": transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, **SIZES),
    "bloom": transformers.BloomConfig(hidden_size=32, n_layer=2, n_head=4, **SIZES),
    "llama": transformers.LlamaConfig(**SIZES, **LAYERS, **WIDTHS),
    "gemma3": transformers.Gemma3TextConfig(
        **SIZES, **LAYERS, **WIDTHS, head_dim=8, query_pre_attn_scalar=8, sliding_window=16,
        layer_types=["sliding_attention", "full_attention"], pad_token_id=0,
    ),
}  # fmt: skip
WITH_BOS = {"llama", "gemma3"}
"""Those whose tokenizer puts bos before a text."""


@pytest.mark.parametrize("name", [slow("gpt2"), slow("bloom"), slow("llama"), "gemma3"])
def test_every_answer_is_that_of_the_hf_model(name, requests, tokenizer, tmp_path):
    torch.manual_seed(0)
    original, exported = tmp_path / "original", tmp_path / "exported"
    transformers.AutoModelForCausalLM.from_config(CONFIGS[name]).save_pretrained(original)
    own = type(tokenizer)(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(
            tokenizer.backend_tokenizer.to_str()
        ),
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
    )
    if name in WITH_BOS:
        own.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
        )
    own.save_pretrained(original)
    model = load_model(original)
    save_model(model, exported, origin=original)
    ours = JaxLM(model, load_tokenizer(exported))
    theirs = HFLM(str(exported), device="cpu", dtype="float32", batch_size=4)

    forks = likelihoods._score_forks._cache_size()
    found, expected = (
        side.loglikelihood(requests["loglikelihood"], disable_tqdm=True) for side in (ours, theirs)
    )
    assert likelihoods._score_forks._cache_size() > forks
    np.testing.assert_allclose(*([x for x, _ in side] for side in (found, expected)), atol=1e-3)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]

    found, expected = (
        side.generate_until(requests["generate_until"], disable_tqdm=True)
        for side in (ours, theirs)
    )
    assert found == expected
    assert len({len(text) for text in found}) > 1

    theirs.add_bos_token = False  # It would score a text after two.
    found, expected = (
        side.loglikelihood_rolling(requests["loglikelihood_rolling"], disable_tqdm=True)
        for side in (ours, theirs)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
