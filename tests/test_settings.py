from clp_jax.settings import parse_yaml


def test_every_scalar_is_text():
    assert parse_yaml("{a: no, b: 1.5, c: [null, 'null', 12:00:00, 2024-01-01], d: , e: ''}") == {
        "a": "no", "b": "1.5", "c": [None, "null", "12:00:00", "2024-01-01"], "d": None, "e": "",
    }  # fmt: skip
