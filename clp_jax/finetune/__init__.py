"""Fine-tune a model on a task: on the right answers to its training questions."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jax
from etils import epath
from jax.experimental.multihost_utils import sync_global_devices

from clp_jax.arguments import checked
from clp_jax.checkpoint.hub import load_tokenizer, model_files
from clp_jax.checkpoint.results_card import add_results
from clp_jax.checkpoint.run_folder import MODEL
from clp_jax.config import RunConfig
from clp_jax.data.corpus.examples import Example, write_examples
from clp_jax.evaluate.tasks import evaluate_tasks
from clp_jax.evaluate.tasks.load import load_tasks, task_manager
from clp_jax.files import write_json
from clp_jax.finetune.examples import ask, only_task, training_docs
from clp_jax.finetune.report import SCORES, Tuned, read_tuned
from clp_jax.finetune.settings import Settings, check_settings, example_folders, run_config
from clp_jax.limits import LocalPath, Name, PathOrName, Positive, PositiveFactor
from clp_jax.mesh import decided_by_first, start_distributed
from clp_jax.results import read_results
from clp_jax.tokenizer import Tokenizer
from clp_jax.train.inputs import read_decoder
from clp_jax.train.loop import train_model
from clp_jax.train.run_folder import find_run


@checked
def finetune_model(
    model: PathOrName,
    task: Name,
    out: LocalPath,
    *,
    task_data: LocalPath | None = None,
    include_path: LocalPath | None = None,
    train_examples: Positive | None = None,
    limit: Positive | None = None,
    seeds: Positive = 1,
    epochs: PositiveFactor = 3.0,
    settings: Settings | None = None,
) -> list[Tuned]:
    """Fine-tune a model on a task of lm-evaluation-harness, and score it on the task's test set.

    The model is asked as `evaluate_tasks` asks it without examples, and trained on the tokens of
    the right answers alone. A tenth of the training examples is held out: training stops when the
    loss on their answers no longer falls, and the model is that with the lowest.

    ``OUT/seed-N`` is a run folder, which every stage reads as a model. Finished seeds are skipped,
    and an interrupted one resumes. In a run of several processes all of them call this function,
    and ``out`` is on a disk they share.

    Args:
        model: Hugging Face folder, hub id or run folder.
        task: name of a multiple-choice task, see `evaluate_tasks`.
        out: folder for the examples and the runs.
        task_data: folder with the data of our own tasks; by default they come from the hub.
        include_path: folder with further task files.
        train_examples: use only this many training examples, drawn at random; held-out ones count.
        limit: score only this many examples of the test set, the first ones.
        seeds: how many runs, which differ in their seed.
        epochs: how often each example is seen, unless training stops early.
        settings: keys of a `RunConfig` by section, such as ``{"lora": {"r": 16}}``.

    Returns:
        For each seed the run, and its scores on the test set.

    Raises:
        UserError: the task has no choices or no training examples, a setting is not valid, or the
            runs in ``out`` have other settings or examples.
    """
    given, out, base = settings or {}, Path(out), str(model)
    start = check_settings(given, base)
    start_distributed()
    name, loaded = only_task(
        load_tasks(task_manager([task], include_path, task_data), [task]), task
    )
    files = model_files(base, start.model.revision)
    tokenizer, decoder = load_tokenizer(files), read_decoder(files, start.model)
    asked = [
        [*ask(name, loaded, docs, tokenizer)]
        for docs in training_docs(name, loaded, train_examples)
    ]
    first = start.train.seed
    configs = [
        run_config(
            given,
            asked[0],
            model=base,
            out=out,
            seed=seed,
            epochs=epochs,
            positions=decoder.max_positions,
        )
        for seed in range(first, first + seeds)
    ]
    decided_by_first(partial(_write, asked, tokenizer, out))
    _report_length(configs[0], asked[0])
    for config in configs:
        run = Path(config.train.out)
        if decided_by_first(partial(_is_done, config)):
            continue
        train_model(config, resume=True)
        scores = evaluate_tasks(
            run, [name], task_data=task_data, include_path=include_path, num_fewshot=0, limit=limit
        )
        if jax.process_index() == 0:
            write_json(run / SCORES, scores)
            add_results(run / MODEL, read_results([run / SCORES]))
        sync_global_devices(f"{run} is scored")
    return [read_tuned(Path(config.train.out), config.train.seed) for config in configs]


def _write(asked: Sequence[Sequence[Example]], tokenizer: Tokenizer, out: Path) -> None:
    for examples, folder in zip(asked, example_folders(out), strict=True):
        write_examples(examples, tokenizer, folder)


def _is_done(config: RunConfig) -> bool:
    """Whether a run is finished and scored; it must not have other settings."""
    run = epath.Path(config.train.out)
    return find_run(config, run, resume=True) and (run / SCORES).exists()


def _report_length(config: RunConfig, examples: Sequence[Example]) -> None:
    length = config.data.sequence_length
    cut = sum(len(one.question) + len(one.answer) > length + 1 for one in examples)
    if cut and jax.process_index() == 0:
        print(
            f"{cut:,} of {len(examples):,} examples are longer than {length:,} tokens, which cuts "
            "their beginnings.",
            flush=True,
        )
