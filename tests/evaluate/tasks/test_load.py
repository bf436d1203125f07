"""Tasks and data that cannot be used end in a sentence before any work is done."""

import json
import re
import shutil

import pytest
import yaml

pytest.importorskip("lm_eval")
from clp_jax.errors import UserError
from clp_jax.evaluate.tasks import evaluate_tasks, load, render_tasks, run
from clp_jax.evaluate.tasks.report import summarise

from ..conftest import TEXTS, train_tokenizer
from .published import write_lines
from .stub import Stub, loaded

TASK = "clp_germeval2018_coarse_question"


def variant(include_path, folder, name, **fields):
    """A task like the one with choices, with other fields."""
    task = yaml.safe_load((include_path / "planted_choice.yaml").read_text())
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(task | {"task": name} | fields))


def refused(sentence, *tasks, **places):
    with pytest.raises(UserError, match=sentence):
        evaluate_tasks("no-such-model", tasks, **places)


def test_an_unknown_task_is_refused_with_its_neighbours():
    refused("no task clp_germeval2081_fine: did you mean clp_germeval2018_fine",
            "clp_pawsx_de", "clp_germeval2081_fine")  # fmt: skip


@pytest.mark.parametrize("name", ["germeval2018", "pawsx_de"])
def test_an_old_name_is_refused_with_the_new_one(name):
    refused(f"The task {name} is clp_{name}.*_question now: use that name", name)


def test_a_task_in_two_groups_is_refused(include_path):
    refused("planted_choice is named twice: leave it or its group out",
            "both_choices", "planted_choice", include_path=include_path)  # fmt: skip


def test_too_many_examples_before_a_question_are_refused(include_path):
    refused("planted_word has 3 examples, too few for 3 before each",
            "planted_word", include_path=include_path, num_fewshot=3)  # fmt: skip


def test_a_task_that_runs_programs_is_refused(include_path, tmp_path):
    variant(include_path, tmp_path, "program", unsafe_code=True)
    refused("program runs the programs that a model writes: leave it out",
            "program", "program", include_path=tmp_path)  # fmt: skip


def test_a_folder_of_tasks_that_is_not_there_or_damaged_is_reported(tmp_path):
    refused("none is not a folder", "clp_pawsx_de", include_path=tmp_path / "none")
    (tmp_path / "broken.yaml").write_text("task: broken\ndataset_path: [")
    refused("There is no task broken", "broken", include_path=tmp_path)


def test_a_limit_of_nothing_is_refused():
    refused("limit: Input should be greater than 0", TASK, limit=0)


def test_missing_task_data_are_reported(tmp_path):
    refused(r"pawsx_de/test\.jsonl.*NAME/test\.jsonl", "clp_pawsx_de", task_data=tmp_path)


def test_an_unreachable_hub_is_reported_with_the_data_set(include_path, tmp_path):
    refused(r"germeval18.*NAME/test\.jsonl.*hub", TASK)
    variant(include_path, tmp_path, "far", dataset_path="some/where", dataset_kwargs={})
    refused("The task far needs some/where, .*HF_HOME.*include path whose dataset_path is a local",
            "far", include_path=tmp_path)  # fmt: skip


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"text": "a", "label": "RUDE"}', "the label 'RUDE' is not one of OTHER, OFFENSE"),
        ('{"text": "a"}', r"test\.jsonl, line 1: no field binary or label"),
        ('{"text": "a", ', r"test\.jsonl, line 1: not JSON"),
    ],
)
def test_damaged_task_data_are_reported(tmp_path, line, fault):
    write_lines(tmp_path / "germeval2018" / "test.jsonl", [line])
    refused(rf"data of {TASK} cannot be read \(.*{fault}", TASK, task_data=tmp_path)


def test_no_examples_are_reported(include_path, tmp_path):
    write_lines(tmp_path / "germeval2018" / "test.jsonl", [])
    refused("germeval2018/test.jsonl has no examples", TASK, task_data=tmp_path)
    write_lines(tmp_path / "rows.csv", ["passage,question,choices,gold"])
    files = {"data_files": {"test": str(tmp_path / "rows.csv")}}
    variant(include_path, tmp_path, "empty", dataset_path="csv", dataset_kwargs=files)
    refused(
        r"files of the task empty cannot be read \(.*no data.*dataset_kwargs",
        "empty",
        include_path=tmp_path,
    )


def test_a_field_that_the_data_lack_is_reported(include_path, tmp_path):
    variant(include_path, tmp_path, "lacking", doc_to_text="{{passage}} {{answer}}")
    refused(r"lacking uses a field that its data lack \('answer' is undefined\)",
            "lacking", include_path=tmp_path)  # fmt: skip


def test_files_that_are_damaged_and_fields_of_other_kinds_are_reported(include_path, tmp_path):
    (tmp_path / "rows.json").write_text('{"question": "Wer?", ')
    files = {"data_files": {"test": str(tmp_path / "rows.json")}}
    variant(include_path, tmp_path, "cut", dataset_path="json", dataset_kwargs=files)
    refused("files of the task cut cannot be read", "cut", include_path=tmp_path)
    variant(include_path, tmp_path, "list", dataset_kwargs=[[]])
    refused(r"The task list cannot be loaded \(TypeError: ", "list", include_path=tmp_path)


def test_an_example_that_the_harness_cannot_score_is_reported(include_path, tmp_path):
    row = {"passage": "Es", "question": "Wer?", "choices": ["Ja", "Nein"], "gold": None}
    (tmp_path / "rows.json").write_text(json.dumps(row))
    files = {"data_files": {"test": str(tmp_path / "rows.json")}}
    variant(include_path, tmp_path, "void", dataset_path="json", dataset_kwargs=files)
    with pytest.raises(UserError, match=r"An example of void cannot be asked or scored \("):
        run.run_harness(Stub(lambda request: 0.0), loaded(["void"], include_path=tmp_path))

    def broken(request):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):  # An error of ours keeps its traceback.
        run.run_harness(Stub(broken), loaded(["planted_choice"], include_path=include_path))


@pytest.mark.parametrize(("choice", "tokens"), [(" ", True), ("\u200b", False)])
def test_a_choice_without_tokens_is_refused(include_path, tmp_path, choice, tokens):
    variant(include_path, tmp_path, "void", doc_to_choice=["Katze", choice], doc_to_target=0)
    model = Stub(len)
    model.tok_encode = lambda text, add_special_tokens: [0] * (tokens or "\u200b" not in text)
    sentence = re.escape(f"The choice {choice!r} of the task void has no tokens")
    with pytest.raises(UserError, match=sentence):
        load.check_choices(loaded(["void"], include_path=tmp_path), model)


def test_a_tokenizer_that_is_not_the_models_is_refused(model_folder, tmp_path, published):
    shutil.copytree(model_folder, tmp_path / "model")
    train_tokenizer([f"{text} {i}" for i, text in enumerate(TEXTS * 99)], 900).save_pretrained(
        tmp_path / "model"
    )
    with pytest.raises(UserError, match=r"The model .* rows, but its tokenizer has ids up to"):
        evaluate_tasks(tmp_path / "model", [TASK], task_data=published, limit=1)


def test_a_choice_without_text_is_refused(include_path, tmp_path):
    variant(include_path, tmp_path, "void", doc_to_choice=["Katze", ""], doc_to_target=0)
    refused("void has no examples, or a choice without text", "void", include_path=tmp_path)


def test_texts_longer_than_the_context_are_counted(tmp_path):
    write_lines(
        tmp_path / "germeval2018" / "test.tsv",
        [f"{'Katze ' * length}\tOTHER\tOTHER" for length in (1, 30, 40)],
    )
    model = Stub(lambda request: 0.0)
    model.max_length = 150
    found = run.run_harness(model, loaded([TASK], task_data=tmp_path))
    assert run.count_cut(model, found.results["samples"][TASK]) == 2
    scores = summarise(found.results, found.tasks)[TASK]
    table = render_tasks({TASK: scores | {"cut_examples": 2, "dtype": "bfloat16"}})
    assert "Computed in bfloat16." in table
    assert f"{TASK}: 2 examples are longer than the model's context" in table
