import pickle
import random

from clp_jax.data.config import DeduplicateSection
from clp_jax.data.dedup import deduplications


def test_those_turned_on_come_in_order(corpus):
    place = corpus([[]]).place
    everything = deduplications(
        DeduplicateSection(exact=True, lines=0.05, near=True, substrings=100)
    )
    assert list(everything) == ["exact", "near", "lines", "substrings"]
    assert [method(place).filter.name for method in everything.values()] == list(everything)
    assert deduplications(DeduplicateSection()) == {}
    [method] = deduplications(DeduplicateSection(substrings=77)).values()
    assert method(place).stages[0].steps[1].length == 77


def test_steps_can_be_sent_to_other_processes(corpus):
    place = corpus([[]]).place
    section = DeduplicateSection(exact=True, lines=0.05, near=True, substrings=100)
    for method in deduplications(section).values():
        found = method(place)
        for step in [found.filter, *(step for stage in found.stages for step in stage.steps)]:
            assert type(pickle.loads(pickle.dumps(step))) is type(step)


def test_each_finds_what_is_its_own(corpus, monkeypatch):
    """Documents that only one of the four takes for a copy, one after the other."""
    rng = random.Random(0)

    def text(size: int) -> list[str]:
        return ["".join(rng.choices("abcdefghij", k=rng.randint(2, 9))) for _ in range(size)]

    body, quoted, notice = text(300), " ".join(text(60)), "Alle Rechte vorbehalten."
    near = [*body[:100], "anders", *body[101:]]
    texts = [
        " ".join(body),
        " ".join(body),
        " ".join(near),
        *("\n".join([" ".join(text(50)), notice]) for _ in range(4)),
        "\n".join([" ".join(text(40)), quoted, " ".join(text(40))]),
        "\n".join([" ".join(text(40)), quoted, " ".join(text(40))]),
    ]
    monkeypatch.setattr("clp_jax.data.dedup.lines._FEWEST", 1)
    section = DeduplicateSection(exact=True, lines=0.4, near=True, substrings=150)
    counted = {}
    for name, method in deduplications(section).items():
        made = corpus([texts[:5], texts[5:]])
        texts = list(made.deduplicate(method).values())
        counted[name] = made.counted()
    assert counted["exact"]["dropped"] == 1
    assert counted["lines"]["lines"] == 3
    assert counted["near"]["dropped"] == 1
    assert counted["substrings"]["passages"] == 1
    assert len(texts) == 7
    assert "\n".join(texts).count(quoted) == 1
