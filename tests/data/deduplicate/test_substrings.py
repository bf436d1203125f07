"""Passages are compared with a search through all of them, kept in a dictionary."""

LENGTH = 30


def search(tasks: list[list[str]], length: int) -> list[list[set[int]]]:
    """Bytes of each document that lie in a passage which stands in an earlier place."""
    seen: set[bytes] = set()
    found = []
    for texts in tasks:
        found.append([])
        for text in texts:
            data, covered = text.encode(), set()
            for start in range(len(data) - length + 1):
                passage = data[start : start + length]
                if passage in seen:
                    covered.update(range(start, start + length))
                seen.add(passage)
            found[-1].append(covered)
    return found


def found_cuts(corpus, length: int, tasks: list[list[str]], order: int) -> list[list[set[int]]]:
    """The same, by the stages."""
