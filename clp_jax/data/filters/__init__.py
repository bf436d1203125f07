"""The cleaning rules: named filters that drop documents or change their text.

They follow datatrove's versions of the C4 and Gopher rules, without the parts specific to English.
"""

from pathlib import Path

from datatrove.pipeline.base import PipelineStep

from clp_jax.data.config import CleanSection
from clp_jax.data.filters.boilerplate import Boilerplate
from clp_jax.data.filters.document import Encoding, MaxLength, MinLength, Tags
from clp_jax.data.filters.gopher import Quality, Repetition
from clp_jax.data.filters.language import Language, languages
from clp_jax.data.filters.personal_data import PersonalData
from clp_jax.data.samples import Samples
from clp_jax.errors import UserError

__all__ = ["clean_steps"]


def clean_steps(section: CleanSection, samples: Path) -> list[PipelineStep]:
    """One step for each enabled rule, in the order in which they run.

    Args:
        section: The rules.
        samples: Folder in which each rule keeps a few of the documents that it drops.

    Raises:
        UserError: the language identification does not know the language.
    """

    def kept(rule: type[PipelineStep]) -> Samples:
        return Samples(samples, rule.name)

    if section.language is not None and section.language not in languages():
        raise UserError(
            f"clean.language: {section.language} is unknown: write an ISO 639-1 code such as de."
        )
    steps: list[PipelineStep] = []
    if section.exclude_tags:
        steps.append(Tags(section.exclude_tags, kept(Tags)))
    if section.max_characters:
        steps.append(MaxLength(section.max_characters, kept(MaxLength)))
    if section.repair_encoding:
        steps.append(Encoding())
    if section.language is not None:
        steps.append(Language(section.language, section.language_score, kept(Language)))
    if section.boilerplate:
        steps.append(Boilerplate(section.language, kept(Boilerplate)))
    if section.min_words:
        steps.append(MinLength(section.min_words, kept(MinLength)))
    if section.quality:
        steps.append(Quality(kept(Quality)))
    if section.repetition:
        steps.append(Repetition(kept(Repetition)))
    if section.mask_personal_data:
        steps.append(PersonalData())
    return steps
