"""Runs and models side by side, on one page that a reviewer can believe."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from clp_jax.arguments import checked
from clp_jax.compare.comparison import Comparison
from clp_jax.compare.page import Page
from clp_jax.compare.subjects import Subject, open_subjects
from clp_jax.errors import UserError
from clp_jax.evaluate.tasks import compare_results
from clp_jax.files import new_folder, new_path
from clp_jax.generate import generate_texts
from clp_jax.limits import LocalPath, NewTokens, PathOrName
from clp_jax.pages import render_html, render_markdown
from clp_jax.results import Results, read_results

HTML, MARKDOWN = "comparison.html", "comparison.md"
TITLE = "Comparison"


@checked
def compare_models(
    models: Sequence[PathOrName],
    out: LocalPath,
    *,
    results: Mapping[str, Sequence[LocalPath]] | None = None,
    prompts: Sequence[str] = (),
    max_new_tokens: NewTokens = 50,
    dtype: str | None = None,
    mesh: Mesh | None = None,
) -> Path:
    """Write a page that compares runs and models: ``comparison.html`` and ``comparison.md``.

    Curves and costs come from the metrics of the runs, everything else from ``results``; only
    ``prompts`` load the models. Runs that differ in nothing but their seed form one arm.

    Args:
        models: Run folders, Hugging Face folders and hub ids; tasks are tested against the first.
        out: New folder for the pages and their plots, as SVG and PNG.
        results: For a model, by its path or the end of it, the files that ``clp-jax evaluate tasks
            --json``, ``clp-jax evaluate perplexity --json`` or lm-evaluation-harness wrote.
        prompts: Beginnings of texts that each model continues (temperature 0.8, seed 0).
        max_new_tokens: Maximum number of tokens of a sample.
        dtype: Of the computation of samples, see `clp_jax.mesh.inference_dtype`.
        mesh: Where the models are; one device by default.

    Returns:
        The HTML page, which needs no other file and no network.

    Raises:
        UserError: a model, a run or a file of results cannot be read, or ``out`` exists.
    """
    new_path(out)
    subjects = open_subjects(models)
    found = _read_results(subjects, results or {})
    first = found.get(subjects[0].label, Results()).answers
    comparison = Comparison(
        subjects,
        found,
        paired={
            label: compare_results(other.answers, first)
            for label, other in found.items()
            if label != subjects[0].label and first and other.answers
        },
        samples=_samples(
            subjects,
            [*dict.fromkeys(prompts)],
            max_new_tokens=max_new_tokens,
            dtype=dtype,
            mesh=mesh,
        ),
    )
    page = Page(comparison)
    with new_folder(out) as folder:
        for name, drawing in page.drawings.items():
            (folder / f"{name}.svg").write_bytes(drawing.svg)
            (folder / f"{name}.png").write_bytes(drawing.png)
        (folder / HTML).write_text(render_html(TITLE, page.sections), "utf-8")
        (folder / MARKDOWN).write_text(render_markdown(TITLE, page.sections), "utf-8")
    return Path(out) / HTML


def _samples(
    subjects: Sequence[Subject], prompts: Sequence[str], **options: Any
) -> dict[str, list[tuple[str, str]]]:
    """For each prompt the text of each model, with the model's label."""
    if not prompts:
        return {}
    texts = [
        generate_texts(subject.path, prompts, temperature=0.8, seed=0, **options)
        for subject in subjects
    ]
    labels = [subject.label for subject in subjects]
    return {
        prompt: [*zip(labels, own, strict=True)]
        for prompt, own in zip(prompts, zip(*texts, strict=True), strict=True)
    }


def _read_results(
    subjects: Sequence[Subject], results: Mapping[str, Sequence[str | Path]]
) -> dict[str, Results]:
    """The results by label, in the order of the subjects.

    Raises:
        UserError: they are of something that is not compared.
    """
    files: dict[str, list[str | Path]] = {}
    for name, given in results.items():
        owner = next((s.label for s in subjects if name in (s.label, s.path)), None)
        if owner is None:
            labels = ", ".join(subject.label for subject in subjects)
            raise UserError(f"There are results of {name}, which is not compared: name {labels}.")
        files.setdefault(owner, []).extend(given)
    return {s.label: read_results(files[s.label]) for s in subjects if s.label in files}
