"""The words of the small world, each with its English and its German forms.

Entries are divided by ``|``, the forms of one entry by spaces; ``_`` stands for a space in a form.
"""

from typing import Any


def _entries(text: str) -> list[list[str]]:
    return [
        [form.replace("_", " ") for form in entry.split()]
        for entry in text.split("|")
        if entry.strip()
    ]


def _names(text: str) -> list[str]:
    return [name.replace("_", " ") for name in text.split()]


# The same in both languages.
WOMEN = _names("""
Anna Maria Laura Julia Eva Lena Clara Emma Sophia Nina Sarah Martha Helena Olga Paula
Rosa Vera Diana Carmen Alice Miriam Hanna Linda Nora Elisa Katharina
""")
MEN = _names("""
Paul Thomas Peter Martin Daniel David Robert Oscar Max Leo Simon Felix Anton Victor
Samuel Adam Benjamin Bruno Hugo Karl Richard Oliver Jan Otto Georg Leonard
""")
SURNAMES = _names("""
Becker Keller Schmidt Fischer Weber Wagner Hoffmann Richter Neumann 
Zimmermann Krüger Hartmann Miller Wilson Taylor Anderson Martin Garcia Rossi Novak
Jansen Larsen Petrov Kowalski Dubois Moreau Silva
""")
TOWNS = _names("""
Berlin Hamburg Paris London Madrid Oslo Amsterdam Bremen Dresden Leipzig Stuttgart
Frankfurt Bonn Budapest Dublin Manchester Liverpool Oxford Boston Chicago Toronto Sydney Lima Kiel
Barcelona Bologna Helsinki Stockholm Basel Bern Graz Salzburg Innsbruck Potsdam Weimar
""")

CITIES = [[town, town] for town in TOWNS] + _entries("""
Vienna Wien | Munich München | Cologne Köln | Zurich Zürich | Rome Rom | Prague Prag | Tokyo Tokio |
Venice Venedig | Lisbon Lissabon | Geneva Genf | Moscow Moskau | Copenhagen Kopenhagen |
Warsaw Warschau | Athens Athen | Brussels Brüssel | Nuremberg Nürnberg
""")
MONTHS = _entries("""
January Januar | February Februar | March März | April April | May Mai | June Juni | July Juli |
August August | September September | October Oktober | November November | December Dezember
""")
WEEKDAYS = _entries("""
Monday Montag | Tuesday Dienstag | Wednesday Mittwoch | Thursday Donnerstag | Friday Freitag |
Saturday Samstag | Sunday Sonntag
""")
NUMBERS = _entries("""
two zwei | three drei | four vier | five fünf | six sechs | seven sieben | eight acht | nine neun |
ten zehn | eleven elf | twelve zwölf | twenty zwanzig | thirty dreißig | fifty fünfzig
""")
WEATHER = _entries("""
it_rained es_regnete | it_snowed es_schneite | the_sun_shone die_Sonne_schien |
it_was_very_cold es_war_sehr_kalt | it_was_very_hot es_war_sehr_heiß |
the_sky_was_grey der_Himmel_war_grau | there_was_a_storm es_gab_einen_Sturm |
it_was_foggy es_war_neblig
""")
BESIDE = _entries(
    "behind hinter | in_front_of vor | next_to neben | opposite gegenüber | near nahe"
)

# English, its comparative, German, its comparative.
ADJECTIVES = {
    entry[0]: entry
    for entry in _entries("""
new newer neu neuer | old older alt älter | small smaller klein kleiner | big bigger groß größer |
cheap cheaper billig billiger | expensive more_expensive teuer teurer |
beautiful more_beautiful schön schöner | good better gut besser | fresh fresher frisch frischer |
sweet sweeter süß süßer | warm warmer warm wärmer | cold colder kalt kälter |
hot hotter heiß heißer | modern more_modern modern moderner | heavy heavier schwer schwerer |
light lighter leicht leichter | fast faster schnell schneller | slow slower langsam langsamer |
long longer lang länger | short shorter kurz kürzer | funny funnier lustig lustiger |
interesting more_interesting interessant interessanter |
boring more_boring langweilig langweiliger | important more_important wichtig wichtiger |
famous more_famous berühmt berühmter | difficult more_difficult schwierig schwieriger |
simple simpler einfach einfacher | red redder rot röter | blue bluer blau blauer |
green greener grün grüner | white whiter weiß weißer | black blacker schwarz schwärzer |
brown browner braun brauner | elegant more_elegant elegant eleganter | dark darker dunkel dunkler |
young younger jung jünger | wild wilder wild wilder | hungry hungrier hungrig hungriger |
strong stronger stark stärker | friendly friendlier freundlich freundlicher |
happy happier glücklich glücklicher | clever cleverer klug klüger | rich richer reich reicher |
quiet quieter ruhig ruhiger | strange stranger seltsam seltsamer |
polite politer höflich höflicher
""")
}
# The stem before an ending, where it is not the adjective itself.
STEMS = {"teuer": "teur", "dunkel": "dunkl"}

# English, past, participle, German infinitive (prefix-verb), third person, past, participle.
VERBS = {
    entry[0]: entry
    for entry in _entries("""
buy bought bought kaufen kauft kaufte gekauft |
sell sold sold verkaufen verkauft verkaufte verkauft |
find found found finden findet fand gefunden |
look_for looked_for looked_for suchen sucht suchte gesucht |
cut cut cut schneiden schneidet schnitt geschnitten |
show showed shown zeigen zeigt zeigte gezeigt | see saw seen sehen sieht sah gesehen |
order ordered ordered bestellen bestellt bestellte bestellt | eat ate eaten essen isst aß gegessen |
cook cooked cooked kochen kocht kochte gekocht |
prepare prepared prepared vor-bereiten bereitet bereitete bereitet |
try tried tried probieren probiert probierte probiert |
repair repaired repaired reparieren repariert reparierte repariert |
use used used benutzen benutzt benutzte benutzt |
test tested tested testen testet testete getestet |
clean cleaned cleaned putzen putzt putzte geputzt |
turn_on turned_on turned_on ein-schalten schaltet schaltete geschaltet |
turn_off turned_off turned_off aus-schalten schaltet schaltete geschaltet |
read read read lesen liest las gelesen |
write wrote written schreiben schreibt schrieb geschrieben |
print printed printed drucken druckt druckte gedruckt |
translate translated translated übersetzen übersetzt übersetzte übersetzt |
understand understood understood verstehen versteht verstand verstanden |
forget forgot forgotten vergessen vergisst vergaß vergessen |
send sent sent ab-schicken schickt schickte geschickt |
read_out read_out read_out vor-lesen liest las gelesen | wear wore worn tragen trägt trug getragen |
lose lost lost verlieren verliert verlor verloren |
wash washed washed waschen wäscht wusch gewaschen |
pack packed packed ein-packen packt packte gepackt |
put_on put_on put_on an-ziehen zieht zog gezogen | hear heard heard hören hört hörte gehört |
paint painted painted malen malt malte gemalt |
photograph photographed photographed fotografieren fotografiert fotografierte fotografiert |
catch caught caught fangen fängt fing gefangen |
visit visited visited besuchen besucht besuchte besucht |
leave left left verlassen verlässt verließ verlassen |
meet met met treffen trifft traf getroffen | ask asked asked fragen fragt fragte gefragt |
greet greeted greeted grüßen grüßt grüßte gegrüßt | call called called an-rufen ruft rief gerufen |
invite invited invited ein-laden lädt lud geladen |
pick_up picked_up picked_up ab-holen holt holte geholt
""")
}

# Each topic's nouns (English[/plural], German, gender, plural; the gender m* takes -n or -en),
# the first parts of compounds (English, German), adjectives and verbs.
TOPICS: dict[str, dict[str, Any]] = {
    "food": {
        "nouns": _entries("""
apple Apfel m Äpfel | pear Birne f Birnen | roll Brötchen n Brötchen | egg Ei n Eier |
potato/potatoes Kartoffel f Kartoffeln | tomato/tomatoes Tomate f Tomaten |
onion Zwiebel f Zwiebeln | banana Banane f Bananen | orange Orange f Orangen |
sausage Wurst f Würste | fish/fish Fisch m Fische | melon Melone f Melonen |
carrot Karotte f Karotten | nut Nuss f Nüsse | biscuit Keks m Kekse | steak Steak n Steaks
"""),
        "compounds": [],
        "adjectives": _names("fresh cheap expensive good small big warm cold"),
        "verbs": _names("buy sell order eat cook cut prepare try find"),
    },
    "dish": {
        "nouns": _entries("""
soup Suppe f Suppen | salad Salat m Salate | cake Kuchen m Kuchen | pizza Pizza f Pizzas |
sandwich/sandwiches Sandwich n Sandwiches | pie Pastete f Pasteten
"""),
        "compounds": _entries("""
fish Fisch | tomato Tomaten | potato Kartoffel | onion Zwiebel | cheese Käse | mushroom Pilz |
nut Nuss | meat Fleisch | vegetable Gemüse | farmer's Bauern
"""),
        "adjectives": _names("fresh cheap expensive good small big warm cold hot"),
        "verbs": _names("buy sell order eat cut prepare try"),
    },
    "device": {
        "nouns": _entries("""
computer Computer m Computer | radio Radio n Radios | telephone Telefon n Telefone |
camera Kamera f Kameras | printer Drucker m Drucker | machine Maschine f Maschinen |
lamp Lampe f Lampen | clock Uhr f Uhren | laptop Laptop m Laptops | oven Ofen m Öfen |
monitor Monitor m Monitore | robot Roboter m Roboter | projector Projektor m Projektoren |
fan Ventilator m Ventilatoren | television Fernseher m Fernseher | keyboard Tastatur f Tastaturen
"""),
        "compounds": _entries("""
school Schul | kitchen Küchen | office Büro | hotel Hotel | laboratory Labor | toy Spielzeug
"""),
        "adjectives": _names("new old modern expensive cheap heavy small fast slow light"),
        "verbs": _names("""
buy sell repair look_for find use test clean turn_on turn_off pack show
"""),
    },
    "text": {
        "nouns": _entries("""
book Buch n Bücher | letter Brief m Briefe | novel Roman m Romane | list Liste f Listen |
newspaper Zeitung f Zeitungen | article Artikel m Artikel | report Bericht m Berichte |
song Lied n Lieder | story/stories Geschichte f Geschichten | poem Gedicht n Gedichte |
text Text m Texte | magazine Zeitschrift f Zeitschriften | programme Programm n Programme |
contract Vertrag m Verträge | recipe Rezept n Rezepte | plan Plan m Pläne
"""),
        "compounds": _entries("""
school Schul | city Stadt | holiday Ferien | family Familien | garden Garten | children's Kinder |
music Musik | work Arbeits | village Dorf | hotel Hotel
"""),
        "adjectives": _names("""
long short interesting boring new old important famous difficult funny simple strange
"""),
        "verbs": _names("""
read write find print translate forget send look_for read_out understand show
"""),
    },
    "clothes": {
        "nouns": _entries("""
coat Mantel m Mäntel | shirt Hemd n Hemden | hat Hut m Hüte | shoe Schuh m Schuhe |
dress/dresses Kleid n Kleider | jacket Jacke f Jacken | scarf/scarves Schal m Schals |
bag Tasche f Taschen | pullover Pullover m Pullover | glove Handschuh m Handschuhe |
skirt Rock m Röcke | blouse Bluse f Blusen | cap Mütze f Mützen | boot Stiefel m Stiefel |
suit Anzug m Anzüge
"""),
        "compounds": _entries("""
summer Sommer | winter Winter | sports Sport | children's Kinder | work Arbeits
"""),
        "adjectives": _names("""
red blue green white black brown warm beautiful elegant expensive dark light new old
"""),
        "verbs": _names("buy sell wear lose find show wash pack put_on look_for"),
    },
    "animal": {
        "nouns": _entries("""
dog Hund m Hunde | cat Katze f Katzen | horse Pferd n Pferde | bird Vogel m Vögel | cow Kuh f Kühe |
sheep/sheep Schaf n Schafe | duck Ente f Enten | mouse/mice Maus f Mäuse |
goose/geese Gans f Gänse | goat Ziege f Ziegen | rabbit Kaninchen n Kaninchen |
fox/foxes Fuchs m Füchse | bear Bär m* Bären | wolf/wolves Wolf m Wölfe |
elephant Elefant m* Elefanten | tiger Tiger m Tiger | lion Löwe m* Löwen |
pony/ponies Pony n Ponys | giraffe Giraffe f Giraffen
"""),
        "compounds": [],
        "adjectives": _names("""
young old big small wild brown white black hungry friendly strong clever
"""),
        "verbs": _names("see hear photograph find look_for paint catch sell buy"),
    },
    "place": {
        "nouns": _entries("""
park Park m Parks | museum Museum n Museen | hotel Hotel n Hotels |
restaurant Restaurant n Restaurants | school Schule f Schulen | church/churches Kirche f Kirchen |
library/libraries Bibliothek f Bibliotheken | garden Garten m Gärten | shop Laden m Läden |
factory/factories Fabrik f Fabriken | hospital Krankenhaus n Krankenhäuser |
theatre Theater n Theater | cinema Kino n Kinos |
university/universities Universität f Universitäten | café Café n Cafés | house Haus n Häuser |
office Büro n Büros | castle Schloss n Schlösser | bakery/bakeries Bäckerei f Bäckereien
"""),
        "compounds": [],
        "adjectives": _names("big small old new famous quiet modern beautiful"),
        "verbs": _names("visit see find look_for leave paint photograph"),
    },
}

# English, German masculine (* where it takes -n or -en), its plural, German feminine.
JOBS = _entries("""
teacher Lehrer Lehrer Lehrerin | doctor Arzt Ärzte Ärztin | student Student* Studenten Studentin |
colleague Kollege* Kollegen Kollegin | customer Kunde* Kunden Kundin |
neighbour Nachbar* Nachbarn Nachbarin | pilot Pilot* Piloten Pilotin |
journalist Journalist* Journalisten Journalistin | musician Musiker Musiker Musikerin |
cook Koch Köche Köchin | farmer Bauer* Bauern Bäuerin |
actor Schauspieler Schauspieler Schauspielerin | engineer Ingenieur Ingenieure Ingenieurin |
artist Künstler Künstler Künstlerin | director Direktor Direktoren Direktorin |
professor Professor Professoren Professorin | baker Bäcker Bäcker Bäckerin |
author Autor Autoren Autorin | architect Architekt* Architekten Architektin |
painter Maler Maler Malerin | translator Übersetzer Übersetzer Übersetzerin |
singer Sänger Sänger Sängerin | driver Fahrer Fahrer Fahrerin
""")
JOB_ADJECTIVES = _names("young old friendly happy famous clever rich polite strange")
JOB_VERBS = _names("meet see visit ask greet call invite pick_up look_for photograph hear")
