"""The words and the sentence patterns of the small world, in English and in German.

Commas divide the entries of a list, spaces the forms of an entry; ``_`` is a space in a form.
"""

Entry = tuple[str, ...]
Topic = tuple[list[Entry], list[Entry], list[Entry]]
"""Nouns, with the adjectives and the verbs that fit them."""


def _entries(text: str) -> list[Entry]:
    words = [tuple(form.replace("_", " ") for form in entry.split()) for entry in text.split(",")]
    return [entry * 2 if len(entry) == 1 else entry for entry in words if entry]


def _topic(text: str) -> Topic:
    """Semicolons divide the nouns, the first parts of compounds, and adjectives with verbs."""
    nouns, first_parts, others = map(_entries, text.split(";"))
    compounds = [
        (f"{first} {english}", german_first + german.lower(), gender, german_first + plural.lower())
        for first, german_first in first_parts
        for english, german, gender, plural in nouns
    ]
    fitting = {english for english, _ in others}
    adjectives = [adjective for adjective in ADJECTIVES if adjective[0] in fitting]
    return nouns + compounds, adjectives, [verb for verb in VERBS if verb[0] in fitting]


def _patterns(text: str) -> list[Entry]:
    lines = text.strip().splitlines()
    return list(zip(lines[::2], lines[1::2], strict=True))


WOMEN = _entries("""Anna, Maria, Laura, Julia, Eva, Lena, Clara, Emma, Sophia, Nina, Sarah, Martha,
Helena, Olga, Paula, Rosa, Vera, Diana, Carmen, Alice, Miriam, Linda, Nora, Elisa, Katharina""")
MEN = _entries("""Paul, Thomas, Peter, Daniel, David, Robert, Oscar, Max, Leo, Simon, Felix, Anton,
Victor, Samuel, Adam, Benjamin, Bruno, Hugo, Karl, Richard, Oliver, Jan, Otto, Georg, Leonard""")
SURNAMES = _entries("""Becker, Keller, Schmidt, Fischer, Weber, Wagner, Hoffmann, Richter, Krüger,
Zimmermann, Hartmann, Miller, Wilson, Taylor, Anderson, Martin, Garcia, Rossi, Novak, Larsen""")
TOWNS = _entries("""Berlin, Hamburg, Paris, London, Madrid, Oslo, Amsterdam, Dresden, Leipzig, Bonn,
Stuttgart, Frankfurt, Budapest, Dublin, Manchester, Oxford, Boston, Chicago, Toronto, Sydney, Lima,
Barcelona, Helsinki, Stockholm, Basel, Salzburg, Potsdam, Vienna Wien, Munich München, Cologne Köln,
Zurich Zürich, Rome Rom, Prague Prag, Tokyo Tokio, Geneva Genf, Moscow Moskau, Brussels Brüssel""")
MONTHS = _entries("""January Januar, February Februar, March März, April, May Mai, June Juni,
July Juli, August, September, October Oktober, November, December Dezember""")
WEEKDAYS = _entries("""Monday Montag, Tuesday Dienstag, Wednesday Mittwoch, Thursday Donnerstag,
Friday Freitag, Saturday Samstag, Sunday Sonntag""")
NUMBERS = _entries("""two zwei, three drei, four vier, five fünf, six sechs, seven sieben,
eight acht, nine neun, ten zehn, eleven elf, twelve zwölf, twenty zwanzig, thirty dreißig""")
WEATHER = _entries("""it_rained es_regnete, it_snowed es_schneite, it_was_foggy es_war_neblig,
it_was_cold es_war_kalt, it_was_very_hot es_war_sehr_heiß, the_sun_shone die_Sonne_schien""")

# English, its comparative, German, its comparative.
ADJECTIVES = _entries("""new newer neu neuer, old older alt älter, small smaller klein kleiner,
big bigger groß größer, cheap cheaper billig billiger, expensive more_expensive teuer teurer,
beautiful more_beautiful schön schöner, fresh fresher frisch frischer, sweet sweeter süß süßer,
warm warmer warm wärmer, cold colder kalt kälter, modern more_modern modern moderner,
heavy heavier schwer schwerer, light lighter leicht leichter, fast faster schnell schneller,
dark darker dunkel dunkler, long longer lang länger, short shorter kurz kürzer,
strange stranger seltsam seltsamer, famous more_famous berühmt berühmter,
important more_important wichtig wichtiger, good better gut besser, ugly uglier hässlich hässlicher,
simple simpler einfach einfacher, young younger jung jünger, hungry hungrier hungrig hungriger,
rich richer reich reicher, friendly friendlier freundlich freundlicher""")

# English, past, participle, German infinitive (prefix-verb), past, participle.
VERBS = _entries("""buy bought bought kaufen kaufte gekauft, find found found finden fand gefunden,
sell sold sold verkaufen verkaufte verkauft, look_for looked_for looked_for suchen suchte gesucht,
see saw seen sehen sah gesehen, turn_off turned_off turned_off aus-schalten schaltete geschaltet,
show showed shown zeigen zeigte gezeigt, prepare prepared prepared zu-bereiten bereitete bereitet,
eat ate eaten essen aß gegessen, translate translated translated übersetzen übersetzte übersetzt,
order ordered ordered bestellen bestellte bestellt, send sent sent ab-schicken schickte geschickt,
try tried tried probieren probierte probiert, forget forgot forgotten vergessen vergaß vergessen,
use used used benutzen benutzte benutzt, repair repaired repaired reparieren reparierte repariert,
clean cleaned cleaned putzen putzte geputzt, bring brought brought mit-bringen brachte gebracht,
pack packed packed ein-packen packte gepackt, write wrote written schreiben schrieb geschrieben,
turn_on turned_on turned_on ein-schalten schaltete geschaltet, read read read lesen las gelesen,
read_out read_out read_out vor-lesen las gelesen, hide hid hidden verstecken versteckte versteckt,
understand understood understood verstehen verstand verstanden,
lose lost lost verlieren verlor verloren""")

# Topics; the nouns: English, German, gender (m* takes -n or -en), plural.
FOOD = _topic("""soup Suppe f Suppen, salad Salat m Salate, cake Kuchen m Kuchen,
pizza Pizza f Pizzas, sandwich Sandwich n Sandwiches, roll Brötchen n Brötchen,
omelette Omelett n Omeletts, stew Eintopf m Eintöpfe, pancake Pfannkuchen m Pfannkuchen;
fish Fisch, tomato Tomaten, potato Kartoffel, onion Zwiebel, cheese Käse, mushroom Pilz,
vegetable Gemüse, apple Apfel, egg Eier, carrot Karotten, rice Reis, bean Bohnen, pear Birnen,
ham Schinken, spinach Spinat, pumpkin Kürbis, cherry Kirsch, chocolate Schokoladen, meat Fleisch,
cream Sahne, pepper Pfeffer, lemon Zitronen, farmer's Bauern;
fresh, cheap, expensive, small, big, warm, cold, sweet, good, buy, sell, order, eat, prepare, try,
see, show, look_for, forget, bring""")
DEVICES = _topic("""computer Computer m Computer, radio Radio n Radios, lamp Lampe f Lampen,
telephone Telefon n Telefone, camera Kamera f Kameras, printer Drucker m Drucker, clock Uhr f Uhren,
machine Maschine f Maschinen, oven Ofen m Öfen, robot Roboter m Roboter, laptop Laptop m Laptops;
school Schul, kitchen Küchen, office Büro, hotel Hotel, toy Spielzeug, laboratory Labor,
travel Reise, music Musik, workshop Werkstatt, garden Garten, factory Fabrik, cinema Kino,
pocket Taschen, table Tisch, wall Wand, sports Sport, hospital Krankenhaus;
new, old, modern, expensive, cheap, heavy, small, fast, light, dark, ugly, simple, buy, sell,
repair, look_for, find, use, clean, turn_on, turn_off, pack, show, lose, hide, bring""")
TEXTS = _topic("""book Buch n Bücher, letter Brief m Briefe, novel Roman m Romane,
newspaper Zeitung f Zeitungen, article Artikel m Artikel, report Bericht m Berichte,
song Lied n Lieder, story Geschichte f Geschichten, poem Gedicht n Gedichte, plan Plan m Pläne,
programme Programm n Programme, exercise Übung f Übungen, recipe Rezept n Rezepte;
school Schul, city Stadt, holiday Ferien, family Familien, garden Garten, children's Kinder,
music Musik, work Arbeits, village Dorf, travel Reise, summer Sommer, winter Winter;
long, short, new, old, important, famous, strange, good, simple, read, write, find, translate,
forget, send, look_for, read_out, understand, show, lose, hide""")
PLACES = _topic("""park Park m Parks, museum Museum n Museen, hotel Hotel n Hotels,
restaurant Restaurant n Restaurants, school Schule f Schulen, church Kirche f Kirchen,
library Bibliothek f Bibliotheken, garden Garten m Gärten, factory Fabrik f Fabriken,
theatre Theater n Theater, cinema Kino n Kinos, university Universität f Universitäten,
house Haus n Häuser, castle Schloss n Schlösser, bakery Bäckerei f Bäckereien;
city Stadt, village Dorf, mountain Berg, lake See, coast Küsten;
big, small, old, new, famous, modern, beautiful""")
JOBS = _topic("""teacher Lehrer m Lehrer, teacher Lehrerin f Lehrerinnen, doctor Arzt m Ärzte,
doctor Ärztin f Ärztinnen, student Student m* Studenten, student Studentin f Studentinnen,
colleague Kollege m* Kollegen, neighbour Nachbar m* Nachbarn, pilot Pilotin f Pilotinnen,
journalist Journalist m* Journalisten, engineer Ingenieurin f Ingenieurinnen, cook Koch m Köche,
artist Künstler m Künstler, professor Professorin f Professorinnen, farmer Bauer m* Bauern;;
young, old, friendly, famous, strange, hungry, rich""")
TOPICS = [FOOD, DEVICES, TEXTS]

# Patterns: a line of English, the same in German. Slots: a and b, two people (A and B, their
# pronouns); c and o, two towns; x and y, two things of the text's topic; v and u, verbs, and i, a
# comparative, that fit them; p, a place; k, somebody by profession; s, a surname.
OPENINGS = _patterns("""
{a} was born in {c} on {date}. {A[he]} works in the {p[one]}.
{a} wurde am {date} in {c} geboren. {A[he]} arbeitet in {p[the dat]}.
{a} has lived in {c} since {year}. {b} lives there, too.
{a} wohnt seit {year} in {c}. Auch {b} wohnt dort.
On {date} {a} travelled from {o} to {c}. {A[he]} wanted to visit {b}.
Am {date} fuhr {a} von {o} nach {c}. {A[he]} wollte {b} besuchen.
""")
MIDDLES = _patterns("""
{a} {v[past]} {x[a]} in {c}.
{a} {v[past]} in {c} ein{x[-acc]}{v[off]}.
On {weekday} {b} {v[past]} the {x[one]}, and {a} {u[past]} the {y[one]}.
Am {weekday} {v[past]} {b} {x[the acc]}{v[off]}, und {a} {u[past]} {y[the acc]}{u[off]}.
{a} wants to {v[base]} {x[a]} because {b} has {y[a]}.
{a} will ein{x[-acc]} {v[base]}, weil {b} ein{y[-acc]} hat.
The {x[one]} cost {price} euros, but the {y[one]} was cheaper.
{x[the nom]} kostete {price} Euro, aber {y[the nom]} war billiger.
Did {b} {v[base]} the {x[one]}? No, {B[he]} {u[past]} {y[a]}.
Hat {b} {x[the acc]} {v[done]}? Nein, {B[he]} hat ein{y[-acc]} {u[done]}.
The {x[one]} that {b} {v[past]} was {i} than the {y[one]}.
{x[the nom]}, {x[that acc]} {b} {v[end]}, war {i} als {y[the nom]}.
There are {count} {x[some]} in the {p[one]}.
Es gibt {count} {x[some]} in {p[the dat]}.
{a} went to the {p[one]} with {b}, but it was closed on {weekday}.
{a} ging mit {b} zu {p[the dat]}, aber {p[it]} war am {weekday} geschlossen.
{b} told {a} that the {k[one]} had {v[done]} {x[a]}.
{b} erzählte {a}, dass {k[the nom]} ein{x[-acc]} {v[done]} hatte.
Before {a} met the {k[one]}, {A[he]} {v[past]} {A[his]} {x[one]}.
Bevor {a} {k[the acc]} traf, {v[past]} {A[he]} {A[his]}{x[-acc]}{v[off]}.
{weather} when {b} met {k[a]} in front of the {p[one]}.
{weather}, als {b} vor {p[the dat]} ein{k[-acc]} traf.
“Where is my {x[one]}?” asked {a}. “It is in the {p[one]},” said {b}.
„Wo ist mein{x[-nom]}?“, fragte {a}. „{x[it]} ist in {p[the dat]}“, sagte {b}.
“Can you {v[base]} my {x[one]}?” asked {b}. “No, I must {u[base]} {y[a]}.”
„Kannst du mein{x[-acc]} {v[base]}?“, fragte {b}. „Nein, ich muss ein{y[-acc]} {u[base]}.“
{a} gave the {k[one]} {x[a]} and {count} {y[some]}.
{a} gab {k[the dat]} ein{x[-acc]} und {count} {y[some]}.
{k[a]} from {o} helped {b} with {B[his]} {x[one]}.
Ein{k[-nom]} aus {o} half {b} mit {B[his]}{x[-dat]}.
At {time} {b} tried to {v[base]} the {x[one]}, but the {y[one]} was {i}.
Um {time} Uhr versuchte {b}, {x[the acc]} {v[to]}, aber {y[the nom]} war {i}.
Nobody knew whether Mrs {s} had {v[done]} the {x[one]}.
Niemand wusste, ob Frau {s} {x[the acc]} {v[done]} hatte.
{x[some]} are {i} than {y[some]}, says Mr {s}.
{x[some]} sind {i} als {y[some]}, sagt Herr {s}.
{many} people lived in {c} in {year}.
{many} Menschen lebten im Jahr {year} in {c}.
""")
