import pytest

from clp_jax.data.html import html_to_text


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("kein HTML", "kein HTML"),
        ("<h2>Tenor</h2>\n\n<p>Eins\n  und zwei</p><p>drei</p>", "Tenor\nEins und zwei\ndrei"),
        ("<p>§&nbsp;1 &amp; &#167; 2 &lt;neu&gt;</p>", "§ 1 & § 2 <neu>"),
        ("<p>ein <b>fet</b>tes W<i>or</i>t</p>", "ein fettes Wort"),
        ("eins<br>zwei<br/>drei", "eins\nzwei\ndrei"),
        ('<dl><dt><a name="rd_1">1</a></dt><dd><p>Text</p></dd></dl>', "1\nText"),
        ("<table><tr><td>a</td><td>b</td></tr></table>", "a\nb"),
        ("<head><title>weg</title></head><script>weg()</script><p>da</p>", "da"),
        ("<html><head><title>weg</title><body><p>da</p></body></html>", "da"),
        ("<head><meta charset=utf-8><title>weg</title><p>da</p>", "da"),
        ("<head>\n<style>weg</style> da", "da"),
        ("<title>weg</title><p>da</p>", "da"),
        ("<style>p{}</style></style><p>da</p><!-- weg -->", "da"),
        ("<p>offen <b>und nie zu", "offen und nie zu"),
        ("a < b und 3 <4", "a < b und 3 <4"),
        ("", ""),
    ],
)
def test_paragraphs_become_lines(html: str, text: str):
    assert html_to_text(html) == text


def test_what_the_parser_gives_up_on_is_a_value_error():
    with pytest.raises(ValueError, match="unknown status keyword"):
        html_to_text("<![unbekannt[ ]]>")
