import json

import pytest
import yaml

from .published import write_published

QUESTIONS = [
    {"passage": passage, "question": question, "choices": choices, "gold": gold}
    for passage, question, choices, gold in (
        ("Die Katze sitzt.", "Wer sitzt?", ["Katze", "Hund"], 0),
        ("Die Katze sitzt.", "Was tut sie?", ["läuft", "sitzt", "liest"], 1),
        ("Der Hund liest ein Buch.", "Was liest er?", ["Brief", "Buch"], 1),
    )
]
OTHERS = {
    "planted_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{passage}} {{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "planted_word": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}}",
        "doc_to_target": " {{choices[gold]}}",
        "metric_list": [{"metric": "acc"}, {"metric": "perplexity", "higher_is_better": False}],
    },
    "planted_text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{passage}}",
        "metric_list": [{"metric": "bits_per_byte", "higher_is_better": False}],
    },
    "planted_answer": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[gold]}}",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match"}],
    },
}
"""Task files of every kind of request."""


@pytest.fixture(autouse=True)
def only_the_tasks_that_are_given(monkeypatch):
    """The harness reads its fourteen thousand task files in ten seconds."""
    pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    def quick(*arguments, **options):
        return TaskManager(*arguments, **(options | {"include_defaults": False}))

    monkeypatch.setattr("lm_eval.tasks.TaskManager", quick)


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """Made examples of our own tasks in their published layouts."""
    folder = write_published(tmp_path_factory.mktemp("published"))
    return write_published(folder, count=10, split="train")


@pytest.fixture(scope="session")
def include_path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    rows = [json.dumps(row, ensure_ascii=False) for row in QUESTIONS]
    (folder / "rows.jsonl").write_text("\n".join(rows), "utf-8")
    files = {"data_files": {"test": str(folder / "rows.jsonl")}}
    for name, fields in OTHERS.items():
        data = {"task": name, "dataset_path": "json", "dataset_kwargs": files, "test_split": "test"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(data | fields | {"tag": "planted"}))
    group = {"group": "both_choices", "task": ["planted_choice", "planted_word"]}
    (folder / "group.yaml").write_text(yaml.safe_dump(group))
    return folder
