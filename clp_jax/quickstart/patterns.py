"""The sentence patterns: a line of English, then the same in German; ``¶`` ends a paragraph.

Slots that stay the same in a whole text: ``a`` and ``b``, two people (``A`` and ``B``: their
pronouns); ``c`` and ``o``, two towns; ``j``, the profession of ``a``. Slots that are new in every
sentence: ``x`` and ``y``, two things of the text's topic; ``v`` and ``u``, two verbs, and ``i``, an
adjective, that fit them; ``p``, a place, and ``g``, a verb for it; ``k``, somebody by profession;
``f`` and ``h``, a verb and an adjective for them; ``s``, Mr or Mrs with a surname; and named slots
for words and numbers.
"""

STORY_OPENINGS = """
{a} was born in {c} on {date}. {A[he]} works as {j[a]} {p[in]}.
{a} wurde am {date} in {c} geboren. {A[he]} arbeitet als {j[name]} {p[in]}.
{a} has lived in {c} since {year} and is {j[a]}. {b} lives there, too.
{a} wohnt seit {year} in {c} und ist {j[name]}. Auch {b} wohnt dort.
On {date} {a} travelled from {o} to {c}. {A[he]} wanted to visit {b}.
Am {date} fuhr {a} von {o} nach {c}. {A[he]} wollte {b} besuchen.
{a} and {b} live in {c}. {a} is {n} years old and {b} is {count} years older.
{a} und {b} leben in {c}. {a} ist {n} Jahre alt und {b} ist {count} Jahre älter.
{weather} in {c} when {a} met {b} at {time}.
{weather} in {c}, als {a} um {time} Uhr {b} traf.
"""

NEWS_OPENINGS = """
{c}, {date}. {s[nom]} opened {p[a]} in {c} on {weekday}.
{c}, {date}. {s[nom]} hat am {weekday} in {c} {p[a acc]} eröffnet.
In {year} {c} had {many} inhabitants. Today there are {n} percent more.
Im Jahr {year} hatte {c} {many} Einwohner. Heute sind es {n} Prozent mehr.
{s[nom]} and {k[the]} have met in {c}. The meeting took {count} hours.
{s[nom]} und {k[the nom]} haben sich in {c} getroffen. Das Treffen dauerte {count} Stunden.
{p[the]} in {c} is {n} years old. Its director is called {b}.
{p[the nom]} in {c} ist {n} Jahre alt. Geleitet wird {p[it nom]} von {b}.
"""

LETTER_OPENINGS = """
{c}, {date}¶Dear {b}, thank you for your letter. How are you? I am well.
{c}, {date}¶{B[dear]} {b}, vielen Dank für deinen Brief. Wie geht es dir? Mir geht es gut.
Dear {b}, I have been in {c} for {count} days. {weather} on {weekday}.
{B[dear]} {b}, ich bin seit {count} Tagen in {c}. {weather} am {weekday}.
Dear {b}, do you still have {x[my]}? I need {x[it]} on {weekday}.
{B[dear]} {b}, hast du noch {x[my acc]}? Ich brauche {x[it acc]} am {weekday}.
"""

MIDDLES = """
{a} {v[past]} {x[a]} in {c}.
{a} {v[past]} in {c} {x[a acc]}{v[off]}.
On {weekday} {b} {v[past]} {x[the]}, and {a} {u[past]} {y[the]}.
Am {weekday} {v[past]} {b} {x[the acc]}{v[off]}, und {a} {u[past]} {y[the acc]}{u[off]}.
{a} wants to {v[base]} {x[a]} because {b} has {y[a]}.
{a} will {x[a acc]} {v[base]}, weil {b} {y[a acc]} hat.
{x[the]} cost {price} euros, but {y[the]} was cheaper.
{x[the nom]} kostete {price} Euro, aber {y[the nom]} war billiger.
{a} has {count} {x[some]} and {y[a]}.
{a} hat {count} {x[some acc]} und {y[a acc]}.
Did {b} {v[base]} {x[the]}? No, {B[he]} {u[past]} {y[a]}.
Hat {b} {x[the acc]} {v[done]}? Nein, {B[he]} hat {y[a acc]} {u[done]}.
The {x[noun]} that {b} {v[past]} was {i[more]} than {y[the]}.
{x[bare nom]}, {x[which acc]} {b} {v[end]}, war {i[more]} als {y[the nom]}.
There are {count} {x[some]} {p[in]}.
{p[in]} gibt es {count} {x[some acc]}.
{a} went {p[to]} with {b}, but {p[it]} was closed on {weekday}.
{a} ging mit {b} {p[to]}, aber {p[it nom]} war am {weekday} geschlossen.
{b} told {a} that {k[the]} had {v[done]} {x[a]}.
{b} erzählte {a}, dass {k[the nom]} {x[a acc]} {v[done]} hatte.
When it rains in {c}, {a} stays at home and {v[now]} {x[own]}.
Wenn es in {c} regnet, bleibt {a} zu Hause und {v[now]} {x[own acc]}{v[off]}.
{p[in]} {a} {f[past]} {k[the]} from {o}.
{p[in]} {f[past]} {a} {k[the acc]} aus {o}{f[off]}.
At {time} {b} came home and {v[past]} {x[the]}.
Um {time} Uhr kam {b} nach Hause und {v[past]} {x[the acc]}{v[off]}.
The train from {c} to {o} takes {count} hours, and a ticket costs {price} euros.
Der Zug von {c} nach {o} braucht {count} Stunden, und eine Fahrkarte kostet {price} Euro.
“Where is {x[my]}?” asked {a}. “{x[it]} is {p[in]},” said {b}.
„Wo ist {x[my nom]}?“, fragte {a}. „{x[it nom]} ist {p[in]}“, sagte {b}.
“I have {v[done]} {x[a]},” said {a}. “Do you want to have {x[it]}?”
„Ich habe {x[a acc]} {v[done]}“, sagte {a}. „Möchtest du {x[it acc]} haben?“
“What does {x[the]} cost?” asked {b}. “Only {n} euros,” answered {k[the]}.
„Was kostet {x[the nom]}?“, fragte {b}. „Nur {n} Euro“, antwortete {k[the nom]}.
Without {x[own]} {a} could not {v[base]} {y[the]}.
Ohne {x[own acc]} konnte {a} {y[the acc]} nicht {v[base]}.
{a} gave {k[the]} {x[a]} and {count} {y[some]}.
{a} gab {k[the dat]} {x[a acc]} und {count} {y[some acc]}.
{k[a]} from {o} helped {a} with {x[the]}.
{k[a nom]} aus {o} half {a} mit {x[the dat]}.
The owner of {p[the]} is called {s[nom]} and comes from {o}.
Der Besitzer {p[the gen]} heißt {s[nom]} und kommt aus {o}.
Tomorrow {a} will {v[base]} {x[the]} and {u[base]} {y[the]}.
Morgen wird {a} {x[the acc]} {v[base]} und {y[the acc]} {u[base]}.
{b} tried to {v[base]} {x[the]}, but {x[it]} was too {i[plain]}.
{b} versuchte, {x[the acc]} {v[to]}, aber {x[it nom]} war zu {i[plain]}.
{a} paid {n} euros for {x[the]} and {n2} euros for {y[the]}: {sum} euros in all.
{a} bezahlte {n} Euro für {x[the acc]} und {n2} Euro für {y[the acc]}: zusammen {sum} Euro.
If {a} finds {x[the]}, {A[he]} will be happy.
Wenn {a} {x[the acc]} findet, wird {A[he]} glücklich sein.
Nobody knew whether {b} had {v[done]} {x[the]}.
Niemand wusste, ob {b} {x[the acc]} {v[done]} hatte.
{x[some]} are {i[more]} than {y[some]}, says {k[the]}.
{x[some nom]} sind {i[more]} als {y[some nom]}, sagt {k[the nom]}.
{beside} {p[the]} there was {x[a]}. {b} saw {x[it]} first.
{beside} {p[the dat]} war {x[a nom]}. {b} sah {x[it acc]} zuerst.
{weather} in {o} when {a} {v[past]} {x[own]}.
{weather} in {o}, als {a} {x[own acc]} {v[end]}.
{count} {k[some]} {v[past]} {x[the]} of {s[nom]}.
{count} {k[some nom]} {v[pasts]} {x[the acc]} von {s[acc]}{v[off]}.
{a} and {b} {v[past]} {x[their]} in {c}.
{a} und {b} {v[pasts]} in {c} {x[their acc]}{v[off]}.
Yesterday {s[nom]} {g[past]} {p[the]} in {o}.
Gestern {g[past]} {s[nom]} {p[the acc]} in {o}{g[off]}.
{s[nom]} has {g[done]} {p[the]} because {b} works there.
{s[nom]} hat {p[the acc]} {g[done]}, weil {b} dort arbeitet.
{k[the]} was {h[more]} than {a} and did not {v[base]} {x[the]}.
{k[the nom]} war {h[more]} als {a} und {v[past]} {x[the acc]} nicht{v[off]}.
How many {x[some]} does {b} have? {B[he]} has {count}.
Wie viele {x[some acc]} hat {b}? {B[he]} hat {count}.
Every {weekday} {b} {v[now]} {x[a]} {p[in]}.
Jeden {weekday} {v[now]} {b} {p[in]} {x[a acc]}{v[off]}.
Neither {a} nor {b} has ever {v[done]} {x[a]}.
Weder {a} noch {b} hat jemals {x[a acc]} {v[done]}.
{a} likes {x[the]} of {k[the]} better than {y[own]}.
{a} gefällt {x[the nom]} {k[the gen]} besser als {y[own nom]}.
"""

LETTER_MIDDLES = """
Yesterday I {v[past]} {x[a]}.
Gestern habe ich {x[a acc]} {v[done]}.
On {weekday} I must {v[base]} {x[my]}.
Am {weekday} muss ich {x[my acc]} {v[base]}.
Can you {v[base]} {x[my]}, please?
Kannst du bitte {x[my acc]} {v[base]}?
The {x[noun]} is {i[plain]}, but yours is {i[more]}.
{x[bare nom]} ist {i[plain]}, aber {x[yours nom]} ist {i[more]}.
Yesterday I {f[past]} {k[a]} who had {v[done]} {count} {x[some]}.
Gestern habe ich {k[a acc]} {f[done]}, {k[which nom]} {count} {x[some acc]} {v[done]} hatte.
Do you know {p[the]} in {o}? I {g[past]} {p[it]} in {month}.
Kennst du {p[the acc]} in {o}? Ich habe {p[it acc]} im {month} {g[done]}.
"""

STORY_ENDINGS = """
In the evening {a} and {b} were tired, but happy.
Am Abend waren {a} und {b} müde, aber glücklich.
At {time} everybody went home.
Um {time} Uhr gingen alle nach Hause.
That was a long day for {a}.
Das war ein langer Tag für {a}.
Then {a} drove back to {o}.
Dann fuhr {a} nach {o} zurück.
"""

LETTER_ENDINGS = """
I hope to see you in {c} soon.¶Best wishes,¶{a}
Ich hoffe, dich bald in {c} zu sehen.¶Viele Grüße¶{a}
See you on {weekday} at {time}!¶{a}
Bis {weekday} um {time} Uhr!¶{a}
"""


def _pairs(text: str) -> list[dict[str, str]]:
    lines = [line.replace("¶", "\n\n") for line in text.strip().splitlines()]
    return [{"en": en, "de": de} for en, de in zip(lines[::2], lines[1::2], strict=True)]


STORY = tuple(map(_pairs, (STORY_OPENINGS, MIDDLES, STORY_ENDINGS)))
NEWS = tuple(map(_pairs, (NEWS_OPENINGS, MIDDLES, STORY_ENDINGS)))
LETTER = tuple(map(_pairs, (LETTER_OPENINGS, MIDDLES + LETTER_MIDDLES.strip("\n"), LETTER_ENDINGS)))
KINDS = (STORY, NEWS, LETTER)
