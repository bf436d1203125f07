"""The comparison of two models' vocabularies."""

from dataclasses import replace

from clp_jax.arguments import checked
from clp_jax.checkpoint.hub import load_tokenizer
from clp_jax.data.io.readers import read_documents
from clp_jax.limits import Inputs, Name, PathOrName
from clp_jax.vocabulary.fertility import measure_text
from clp_jax.vocabulary.match import match_vocabularies
from clp_jax.vocabulary.report import VocabularyReport
from clp_jax.vocabulary.tokens import read_vocabulary


@checked
def compare_vocabularies(
    source: PathOrName,
    target: PathOrName,
    data: Inputs | None = None,
    *,
    fuzzy: bool = False,
    text_field: Name = "text",
) -> VocabularyReport:
    """Compare the tokenizers of two Hugging Face folders or hub ids.

    Args:
        source: the model with the old tokenizer.
        target: the model with the new tokenizer.
        data: text of the target language to compare them on as well: file patterns or hub data
            sets as for `clp_jax.data.io.readers.read_documents`; only the first 10 MB are read.
        fuzzy: also match tokens that differ only in case or in whether they start a word.
        text_field: the field of a record that holds the text.

    Raises:
        UserError: a tokenizer is missing or not supported, or the data contains no text.
    """
    documents = read_documents(data, text_field) if data else None
    tokenizers = load_tokenizer(source), load_tokenizer(target)
    vocabularies = [read_vocabulary(tokenizer) for tokenizer in tokenizers]
    report = match_vocabularies(*vocabularies, fuzzy=fuzzy)
    if documents is None:
        return report
    text = measure_text(documents, *tokenizers, vocabularies[1], report.target_ids)
    return replace(report, text=text)
