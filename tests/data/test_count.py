import random

from clp_jax.data.count import count_words


def test_words_of_long_texts_are_counted_part_by_part():
    rng = random.Random(0)
    for length in (0, 1, 1 << 16, (1 << 16) + 1, 200_000):
        for blanks in (0.0, 0.001, 0.5, 1.0):
            signs = rng.choices("ab\u00a0\n ", [1 - blanks, 1 - blanks, *[blanks] * 3], k=length)
            text = "".join(signs)
            assert count_words(text) == len(text.split())
