"""Made examples of our own tasks, written in the layouts in which their data sets are published."""

import json
import random

LABELS = {
    "germeval2017": ["positive", "negative", "neutral"],
    "germeval2018": ["OTHER", "ABUSE", "INSULT", "PROFANITY"],
    "gnad10": [
        *("Web", "Panorama", "International", "Wirtschaft", "Sport"),
        *("Inland", "Etat", "Wissenschaft", "Kultur"),
    ],
    "pawsx_de": ["0", "1"],
    "xnli_de": ["entailment", "neutral", "contradiction"],
    "xstance_de": ["AGAINST", "FAVOR"],
}
WORDS = [
    "Der",
    "Hund",
    "und",
    "die",
    "Katze",
    "lesen",
    "am",
    "Abend",
    "ein",
    "Buch",
    "oft;",
    "„gern“",
]


def made(name, count, seed=0):
    """Examples of two sentences and a label, some classes more frequent than others."""
    labels, draw = LABELS[name], random.Random(f"{name} {seed}")
    weights = range(len(labels) + 1, 1, -1)
    return [
        (*(" ".join(draw.choices(WORDS, k=6)) + f" {i}" for _ in "ab"), label)
        for i, label in enumerate(draw.choices(labels, weights, k=count))
    ]


def write_published(folder, count=40, split="test"):
    """Write made examples of every data set to FOLDER/NAME/SPLIT.KIND."""
    seed = split
    rows = {name: made(name, count, seed) for name in LABELS}
    write_lines(
        folder / "germeval2017" / f"{split}.tsv",
        [
            f"http://x/{i}\t{a}\ttrue\t{label}\t"
            for i, (a, _, label) in enumerate(rows["germeval2017"])
        ],
    )
    write_lines(
        folder / "germeval2018" / f"{split}.tsv",
        [
            f"{a} |LBR| {b}\t{'OTHER' if label == 'OTHER' else 'OFFENSE'}\t{label}"
            for a, b, label in rows["germeval2018"]
        ],
    )
    write_lines(
        folder / "gnad10" / f"{split}.csv",
        [f"{label};'{a}; {b}'" for a, b, label in rows["gnad10"]],
    )
    write_lines(
        folder / "pawsx_de" / f"{split}.tsv",
        [
            "id\tsentence1\tsentence2\tlabel",
            *(f"{i}\t{a}\t{b}\t{label}" for i, (a, b, label) in enumerate(rows["pawsx_de"])),
        ],
    )
    write_lines(
        folder / "xnli_de" / f"{split}.tsv",
        [
            "language\tgold_label\tsentence1\tsentence2\tpairID",
            *(
                f"{language}\t{label}\t{a}\t{b}\t{i}"
                for i, (a, b, label) in enumerate(rows["xnli_de"])
                for language in ("de", "en")
            ),
        ],
    )
    write_lines(
        folder / "xstance_de" / f"{split}.jsonl",
        [
            json.dumps(
                {"id": i, "language": "de", "question": f"Frage {i % 20}?", "comment": a}
                | {"label": label}
            )
            for i, (a, _, label) in enumerate(rows["xstance_de"])
        ],
    )
    write_lines(folder / "oscar_de" / f"{split}.jsonl", [json.dumps({"text": "Es regnet.\nOft."})])
    return folder


def write_lines(file, lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(line + "\n" for line in lines), "utf-8")
