"""How much text there is, and how much of it a tokenizer loses."""

_PART_CHARACTERS = 1 << 16


def count_words(text: str) -> int:
    """Number of parts between white space; of a long text only a little is split at a time."""
    count = 0
    for start in range(0, len(text), _PART_CHARACTERS):
        part = text[start : start + _PART_CHARACTERS]
        within_word = start and not (text[start - 1].isspace() or part[0].isspace())
        count += len(part.split()) - bool(within_word)
    return count


def lost_text(unknown: int, total: int) -> str:
    """A sentence on bytes that are nothing but unknown tokens; none if there are none."""
    if not unknown:
        return ""
    return (
        f"The tokenizer cannot write {unknown:,} of {total:,} bytes ({unknown / total:.1%}): they "
        "are unknown tokens, which cost too little, so that figures per byte or word are too good."
    )
