"""The two tokens that a token is made of."""

from clp_jax.tokenizer import Tokenizer
from clp_jax.vocabulary.classes import by_bytes
from clp_jax.vocabulary.tokens import Vocabulary


def parts_of(tokenizer: Tokenizer, vocabulary: Vocabulary) -> dict[int, list[int]]:
    """The ids of the two parts of each token that has any.

    BPE made each token by a merge of two. For other models they are the longest token that it
    begins with, and the rest, if that is a token.

    Args:
        tokenizer: the tokenizer.
        vocabulary: its vocabulary.
    """
    model = tokenizer.state["model"]
    parts: dict[int, list[int]] = {}
    if "merges" in model:
        ids, prefix = model["vocab"], model["continuing_subword_prefix"] or ""
        for left, right in model["merges"]:
            parts.setdefault(ids[left + right.removeprefix(prefix)], [ids[left], ids[right]])
        return parts
    known = by_bytes(vocabulary)
    for data, id in known.items():
        for cut in range(len(data) - 1, 0, -1):
            if data[:cut] in known and data[cut:] in known:
                parts[id] = [known[data[:cut]], known[data[cut:]]]
                break
    return parts
