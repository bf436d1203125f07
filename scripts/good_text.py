"""Good text of ten kinds in six languages, by rule: what no step of cleaning should touch.

Each language has a dozen sentences, some of which merely speak of what cleaning looks for: cookies,
rights, an amount with a plus, the number of a file. A kind is a form that they are put into.
"""

import random
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import NamedTuple


class Language(NamedTuple):
    """What the documents of a language are made of."""

    sentences: tuple[str, ...]
    names: tuple[str, ...]
    things: tuple[str, ...]


LANGUAGES = {
    "de": Language(
        (
            "Am Morgen lag dichter Nebel über dem Fluss, und niemand sah das andere Ufer.",
            "Die alte Müllerin zählte ihre Säcke und fand, dass zwei davon fehlten.",
            "Im Dorf erzählte man sich seit Jahren, der Turm sei einmal höher gewesen.",
            "Der Lehrer schrieb drei Zahlen an die Tafel und wartete auf eine Antwort.",
            "Gegen Mittag kam der Bote mit einem Brief, den keiner erwartet hatte.",
            "Sie legte das Brot auf den Tisch und schnitt für jeden ein großes Stück ab.",
            "Ob es am Abend regnen würde, konnte selbst der Schäfer nicht sagen.",
            "Nach der Ernte stand das Feld leer, nur ein paar Krähen suchten noch Körner.",
            "Das Gericht entschied, dass die Verwendung von Cookies eine Einwilligung braucht.",
            "Die Brücke kostete die Gemeinde +1.000.000 Euro mehr als geplant.",
            "Die Sache trägt das Aktenzeichen 0123/45678 und liegt beim Landgericht.",
            "Der Satz „Alle Rechte vorbehalten“ stand auf der letzten Seite des Buches.",
        ),
        ("Anna", "Karl", "Marta", "Paul"),
        ("Mehl", "Butter", "Zucker", "Milch", "Salz", "Äpfel", "Zwiebeln", "Kartoffeln"),
    ),
    "en": Language(
        (
            "In the morning a thick fog lay on the river and nobody could see the far bank.",
            "The old miller's wife counted her sacks and found that two of them were gone.",
            "In the village they had said for years that the tower was once much higher.",
            "The teacher wrote three numbers on the board and waited for an answer.",
            "Towards noon the messenger came with a letter that nobody had expected.",
            "She put the bread on the table and cut a large piece for each of them.",
            "Whether it would rain in the evening, not even the shepherd could tell.",
            "After the harvest the field lay bare and a few crows still looked for grain.",
            "The court held that the use of cookies needs the consent of the visitor.",
            "The bridge cost the parish +1 000 000 pounds more than it had planned.",
            "The matter is filed under case no. 0123-456789 at the county court.",
            "The terms and conditions of the lease were printed on the last page.",
        ),
        ("Anne", "Charles", "Martha", "Paul"),
        ("flour", "butter", "sugar", "milk", "salt", "apples", "onions", "potatoes"),
    ),
    "es": Language(
        (
            "Por la mañana una niebla espesa cubría el río y nadie veía la otra orilla.",
            "La vieja molinera contó sus sacos y notó que le faltaban dos.",
            "En el pueblo se decía desde hacía años que la torre había sido más alta.",
            "El maestro escribió tres números en la pizarra y esperó una respuesta.",
            "Hacia el mediodía llegó el mensajero con una carta que nadie esperaba.",
            "Puso el pan en la mesa y cortó un trozo grande para cada uno.",
            "Ni siquiera el pastor sabía decir si llovería por la tarde.",
            "Después de la cosecha el campo quedó vacío y unos cuervos buscaban granos.",
            "El tribunal decidió que el uso de cookies necesita un permiso previo.",
            "El puente le costó al municipio +1.000.000 de euros más de lo previsto.",
            "El expediente núm. 0123/456789 se guarda en el archivo del juzgado.",
            "En la última página del libro se hablaba de todos los derechos reservados.",
        ),
        ("Ana", "Carlos", "Marta", "Pablo"),
        ("harina", "mantequilla", "azúcar", "leche", "sal", "manzanas", "cebollas", "patatas"),
    ),
    "fr": Language(
        (
            "Le matin, un brouillard épais couvrait la rivière et cachait l'autre rive.",
            "La vieille meunière compta ses sacs et s'aperçut qu'il en manquait deux.",
            "Au village, on racontait depuis longtemps que la tour avait été plus haute.",
            "Le maître écrivit trois nombres au tableau et attendit une réponse.",
            "Vers midi, le messager apporta une lettre que personne n'attendait.",
            "Elle posa le pain sur la table et en coupa un grand morceau pour chacun.",
            "Le berger lui-même ne savait pas dire s'il pleuvrait dans la soirée.",
            "Après la moisson, le champ resta vide et des corbeaux cherchaient des grains.",
            "Le tribunal a jugé que l'utilisation de cookies exige un accord préalable.",
            "Le pont a coûté à la commune +1 000 000 euros de plus que prévu.",
            "L'affaire porte le n° 0123-456789 et se trouve au greffe du tribunal.",
            "La politique de confidentialité du ministère fut critiquée dans la presse.",
        ),
        ("Anne", "Charles", "Marthe", "Paul"),
        ("farine", "beurre", "sucre", "lait", "sel", "pommes", "oignons", "carottes"),
    ),
    "hu": Language(
        (
            "Reggel sűrű köd ült a folyón, és senki sem látta a túlsó partot.",
            "Az öreg molnárné megszámolta a zsákokat, és kettőt hiányolt közülük.",
            "A faluban évek óta mesélték, hogy a torony valaha magasabb volt.",
            "A tanító három számot írt a táblára, és várta a választ.",
            "Dél felé megjött a küldönc egy levéllel, amelyre senki sem számított.",
            "Az asztalra tette a kenyeret, és mindenkinek nagy darabot vágott belőle.",
            "Hogy este esni fog-e, azt még a juhász sem tudta megmondani.",
            "Aratás után üresen állt a mező, csak néhány varjú keresgélt magokat.",
            "A bíróság szerint a cookie-k használatához a látogató hozzájárulása kell.",
            "A híd +1 000 000 forinttal többe került a községnek, mint tervezték.",
            "Az ügyszám 0123/45678, az iratok a törvényszéken vannak.",
            "A könyv utolsó oldalán az állt, hogy minden jog a szerzőé marad.",
        ),
        ("Anna", "Károly", "Márta", "Pál"),
        ("liszt", "vaj", "cukor", "tej", "só", "alma", "hagyma", "burgonya"),
    ),
    "ru": Language(
        (
            "Утром над рекой стоял густой туман, и никто не видел другого берега.",
            "Старая мельничиха пересчитала мешки и заметила, что двух не хватает.",
            "В деревне давно рассказывали, что башня когда-то была выше.",
            "Учитель написал на доске три числа и стал ждать ответа.",
            "К полудню пришёл гонец с письмом, которого никто не ждал.",
            "Она положила хлеб на стол и отрезала каждому большой кусок.",
            "Пойдёт ли вечером дождь, не мог сказать даже пастух.",
            "После жатвы поле опустело, только несколько ворон искали зёрна.",
            "Суд решил, что для использования cookies нужно согласие посетителя.",
            "Мост обошёлся общине на +1 000 000 рублей дороже, чем было задумано.",
            "Дело № 0123-45678 хранится в архиве районного суда.",
            "На последней странице книги говорилось, что все права принадлежат автору.",
        ),
        ("Анна", "Карл", "Марта", "Павел"),
        ("мука", "масло", "сахар", "молоко", "соль", "яблоки", "лук", "картофель"),
    ),
}


def code(rng: random.Random, said: list[str], of: Language) -> Iterator[str]:
    for name, thing, first, second in zip(of.names, of.things, said, said[4:], strict=False):
        yield f"def {name.lower()}({thing.lower()}, start={rng.randrange(9)}):\n"
        yield f'    """{first}"""\n    for row in {thing.lower()}[start:]:\n'
        yield f"        # {second}\n        if row.{rng.choice(of.things)} > {rng.randrange(99)}:\n"
        yield f"            return {{row.key: row.{thing.lower()}}}\n    return None\n\n\n"


def verse(rng: random.Random, said: list[str], of: Language) -> Iterator[str]:
    for number, sentence in enumerate(said):
        words = sentence.split()
        half = len(words) // 2
        yield f"{' '.join(words[:half])}\n    {' '.join(words[half:])}\n" + "\n" * (number % 2)


def drama(rng: random.Random, said: list[str], of: Language) -> Iterator[str]:
    for name, sentence in zip(cycle(of.names), said, strict=False):
        yield f"{name.upper()}. {sentence}\n" + ("\n" if rng.random() < 0.5 else "")


def law(rng: random.Random, said: list[str], of: Language) -> Iterator[str]:
    for number, sentence in enumerate(said):
        if number % 3 == 0:
            yield f"§ {number // 3 + 1} {rng.choice(of.things).capitalize()}\n\n"
        yield f"({number % 3 + 1}) {sentence}\n"


def table(rng: random.Random, said: list[str], of: Language) -> Iterator[str]:
    yield f"{said[0]} {said[1]}\n\n"
    for name in of.names:
        for thing in of.things[:4]:
            price = f"{rng.randrange(1, 99)},{rng.randrange(10, 99)}"
            yield f"{name:<10}{thing:<14}{price:>8}{rng.randrange(100, 999):>8} kg\n"
    yield f"\n{said[2]} {said[3]} {said[4]}\n"


def dialogue(rng: random.Random, said: list[str], of: Language) -> Iterator[str]:
    mark = rng.choice("-–—")
    for sentence in said:
        yield f"{mark} {sentence}\n"
        yield f"{mark} {rng.choice(of.names)}?\n" if rng.random() < 0.3 else ""


def recipe(rng: random.Random, said: list[str], of: Language) -> Iterator[str]:
    yield f"{of.things[0].capitalize()}, {of.things[1]}\n\n"
    for thing in of.things:
        yield f"- {rng.randrange(1, 9) * 50} g {thing}\n"
    for number, sentence in enumerate(said[:8], 1):
        yield f"\n{number}. {sentence}"


def listing(rng: random.Random, said: list[str], of: Language) -> Iterator[str]:
    for thing, sentence in zip(cycle(of.things), said, strict=False):
        yield f"  - {thing}: {sentence}\n"


def forum(rng: random.Random, said: list[str], of: Language) -> Iterator[str]:
    for number in range(0, len(said), 3):
        yield f"{rng.choice(of.names)}_{number}, {rng.randrange(1, 29)}.04.2021 17:3{number % 10}\n"
        yield f"> {said[number - 1]}\n" if number in (3, 9) else ""
        yield f"{' '.join(said[number : number + 3])} :-)\n\n"


def ocr(rng: random.Random, said: list[str], of: Language) -> Iterator[str]:
    """Lines of a page: words are cut at their ends, blanks doubled, dots misread as commas."""
    line = ""
    for word in " ".join(said).split():
        if len(line) > 50 and len(word) > 6 and word.isalpha():
            yield f"{line} {word[:3]}-\n"
            line = word[3:]
        else:
            line += (" " if rng.random() < 0.9 else "  ") + word
    yield f"{line}\n\n                    {rng.randrange(10, 300)}\n"


Kind = Callable[[random.Random, list[str], Language], Iterator[str]]
KINDS: tuple[Kind, ...] = (
    *(code, verse, drama, law, table, dialogue, recipe, listing, forum, ocr),
)  # fmt: skip


def documents(language: str, kind: Kind, count: int) -> list[str]:
    """Good documents of a language and kind; the same at every call."""
    of, made = LANGUAGES[language], []
    for number in range(count):
        rng = random.Random(f"{language} {kind.__name__} {number}")
        said = rng.sample(of.sentences, len(of.sentences))
        made.append("".join(kind(rng, said, of)))
    return made
