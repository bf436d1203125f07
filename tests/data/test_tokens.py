import random

from clp_jax.data.tokens import count_words, pieces


def test_words_of_long_texts_are_counted_part_by_part():
    rng = random.Random(0)
    for length in (0, 1, 1 << 16, (1 << 16) + 1, 200_000):
        for blanks in (0.0, 0.001, 0.5, 1.0):
            signs = rng.choices("ab\u00a0\n ", [1 - blanks, 1 - blanks, *[blanks] * 3], k=length)
            text = "".join(signs)
            assert count_words(text) == len(text.split())


def test_pieces_are_the_document():
    rng = random.Random(1)
    for length in (0, 5, 1 << 16, 300_000):
        text = "".join(rng.choices("ab \n\u4e2d", k=length))
        cut = list(pieces(text))
        assert "".join(piece.text for piece in cut) == text
        assert [piece.ends for piece in cut] == [False] * (len(cut) - 1) + [True]
        assert max(len(piece.text) for piece in cut) <= 1 << 16
