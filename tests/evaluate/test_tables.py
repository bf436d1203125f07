import pytest

from clp_jax.evaluate.tables import markdown_table


def test_columns_are_aligned_and_numbers_stand_at_the_right():
    table = markdown_table(
        ["run", "perplexity"], [["CLP", "47.4"], ["from scratch", "1,452.9"], ["none", "-3"]]
    )
    assert table == (
        "| run          | perplexity |\n"
        "| ------------ | ---------: |\n"
        "| CLP          |       47.4 |\n"
        "| from scratch |    1,452.9 |\n"
        "| none         |         -3 |"
    )


def test_a_column_with_a_word_in_it_is_text():
    assert markdown_table(["value"], [["1"], ["off"]]).splitlines()[2] == "| 1     |"


def test_a_bar_in_a_cell_does_not_split_it():
    row = markdown_table(["token"], [["a|b"]]).splitlines()[-1]
    assert row == "| a\\|b  |"


def test_a_table_without_rows_has_its_headers():
    assert markdown_table(["a", "b"], []) == "| a   | b   |\n| --- | --- |"


def test_a_row_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match="shorter"):
        markdown_table(["a", "b"], [["1"]])
