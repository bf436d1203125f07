"""Boilerplate: lines of a web page that are not part of its content.

Each phrase is a regular expression for the start of a sentence or menu item; with a ``$`` at its
end, for all of it. Only what a page says of itself is boilerplate: ``this site uses cookies`` is,
``the court held that the site uses cookies`` and ``the use of cookies`` are not. ``WEB`` stands
for a word that distinguishes a browser's cookies from those on a plate.
"""

import re

import regex
from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter

from clp_jax.data.samples import Samples

_WEB = (
    r"(?=\W*$|.*(?:site|seite|sitio|página|pagina|navega|navigat|browser|experience|experiencia|"
    r"expérience|esperienza|ervaring|erlebnis|conten|inhalt|publici|werb|advert|anzeigen|"
    r"personali[sz]|analy|analisi|consent|zustimm|einwillig|akzept|accept|acept|accett|agree|"
    r"einverstanden|privacy|datenschutz|confidential|traffic|services\b|servicios|servizi|dienste))"
)
_BY = r"(?:.*(?:©|\(c\)|copyright|\b[12]\d{3}\b).*)?"

_PHRASES = {
    "de": (
        r"(diese|unsere?)r? [\w-]*(seiten?|site|shop|blog|angebot|portal|homepage) "
        r"(verwende|benutz|nutz|setz)\w* (\w+ )?cookies",
        r"auf (dieser|unserer) [\w-]*(seite|site) .{0,40}cookies (verwendet|eingesetzt|gesetzt)",
        r"wir (und unsere partner )?(verwenden|benutzen|nutzen|setzen) (\w+ )?cookies WEB",
        r"um .{1,120} (verwenden|benutzen|nutzen|setzen) wir (\w+ )?cookies WEB",
        r"(durch|mit) (die|der) (weiteren? )?(nutzung|benutzung|verwendung) "
        r"(dieser|unserer|der) [\w-]*(seite|site|dienste)\b.*(cookies|einverstanden|stimm)",
        r"(alle )?cookies (akzeptieren|zulassen|ablehnen|zustimmen|verwalten)( und .{0,40})?$",
        r"(unsere |zu den |zur )?cookie-?(einstellungen|richtlinien?|hinweise?)$",
        r"(bitte )?(aktivieren|schalten) sie (bitte )?(javascript|cookies)",
        r"(bitte )?javascript (bitte )?(aktivieren|einschalten)$",
        r"javascript (ist|wurde|muss) (.{1,40} )?"
        r"(deaktiviert|ausgeschaltet|aktiviert( sein| werden)?)$",
        r"(um|für|zur) .{0,80}(\bsie\b|\bihre|seite|site|anwendung).{0,60}"
        r"(aktiviertes javascript|javascript .{0,20}aktivier)",
        r"BYalle rechte vorbehalten$",
        r"(zur|unsere|zu unserer) datenschutz\w*$",
        r"nutzungsbedingungen und datenschutz\w*$",
        r"(jetzt |hier )?(für )?(den |unseren |zum )?(kostenlosen )?newsletter "
        r"(abonnieren|bestellen|anmelden)\b",
        r"((diesen |den )?(artikel|beitrag) )?(auf|bei) (facebook|twitter|whatsapp) teilen$",
    ),
    "en": (
        r"(this|our) (\w+ )?(web ?)?(site|page|shop|store|app) (also )?uses (\w+ )?cookies",
        r"(we|we and our partners) (also )?use (\w+ )?cookies WEB",
        r"by (\w+ to )?(using|use|visiting|browsing|browse) (this|our|the) (web ?)?(site|page)\b"
        r".*(agree|accept|consent)",
        r"by continuing to (use|browse|visit) (this|our|the) (web ?)?(site|page)",
        r"(i )?(accept|allow|reject|decline|manage)( all)?( the)? cookies$",
        r"(read |see )?(our |the )?(cookie|privacy) (policy|settings|notice|preferences)$",
        r"(our )?terms of (use|service)( and privacy policy)?$",
        r"(our )?terms and conditions and privacy policy$",
        r"(please )?(enable|turn on|activate) javascript( (in|to|and|for) .*)?$",
        r"(you need|you have|you must|to (use|view|see|run|access) .{1,80}) .{0,40}"
        r"(enable javascript|javascript enabled)",
        r"javascript (is|has been|seems to be|must be) (currently )?"
        r"(disabled|turned off|not enabled|required|enabled)"
        r"( (in|on|to|for) (your|this|view|use).*)?$",
        r"(this|our) (web ?)?(site|page|app) (requires|needs|works best with) javascript",
        r"your browser does( not|n't|n’t) support javascript",
        r"BYall rights reserved( by .{1,40})?$",
        r"(please )?(subscribe to|sign up for) (our|the) (\w+ )?newsletter",
        r"share (this )?(\w+ )?(on|via) (facebook|twitter|whatsapp)$",
    ),
    "es": (
        r"(este|esta|nuestro|nuestra) (sitio|página|web|tienda|portal)( web)? (utiliza|usa) "
        r"(\w+ )?cookies",
        r"(utilizamos|usamos) cookies WEB",
        r"(al|si) (continuar?|continúa|usar|utilizar|navegar?|navega|sigue) .*\bcookies",
        r"(aceptar|rechazar|configurar)( todas)?( las)? cookies$",
        r"(nuestra )?política de (cookies|privacidad)$",
        r"(por favor,? )?(activ(e|ar)|habilit(e|ar)) javascript",
        r"BYtodos los derechos reservados$",
        r"(suscríbete|suscríbase|suscribirse) a(l| nuestro| la) (boletín|newsletter)",
        r"compartir en (facebook|twitter)$",
    ),
    "fr": (
        r"(ce|notre) site( web| internet)? utilise des cookies",
        r"nous utilisons des cookies WEB",
        r"en (poursuivant|continuant|naviguant) .*\b(cookies|acceptez)",
        r"(accepter|refuser)( tous)? les cookies$",
        r"(notre )?politique de (confidentialité|cookies)$",
        r"(veuillez |merci d.)?activ(er|ez) javascript",
        r"BYtous droits réservés$",
        r"(inscrivez|abonnez)-vous à (notre|la) newsletter",
        r"partager sur (facebook|twitter)$",
    ),
    "it": (
        r"(questo|il nostro) sito( web)? (utilizza|usa)( i)? cookie",
        r"utilizziamo( i)? cookie WEB",
        r"(continuando|proseguendo|navigando) .*\bcookie",
        r"(accetta|accetto|accettare|rifiuta)( tutti)?( i)? cookie$",
        r"(la nostra )?(informativa sulla privacy|cookie policy)$",
        r"(è necessario |si prega di )?(attiva|abilita)(re)? javascript",
        r"BYtutti i diritti riservati$",
        r"(iscriviti|iscrivetevi) alla (nostra )?newsletter",
        r"condividi su (facebook|twitter)$",
    ),
    "nl": (
        r"(deze|onze) (web)?(site|pagina|winkel|shop) (gebruikt|maakt gebruik van) cookies",
        r"(wij|we) gebruiken cookies WEB",
        r"door .{0,60}(site|pagina) .*\bcookies",
        r"(alle )?cookies (accepteren|weigeren|toestaan)$",
        r"(ons |onze )?(cookie|privacy)(beleid|verklaring)$",
        r"schakel javascript in",
        r"BYalle rechten voorbehouden$",
        r"(meld je|meld u) aan voor (onze|de) nieuwsbrief",
        r"delen op (facebook|twitter)$",
    ),
}
# fmt: off
_HINTS = {
    "de": ("rechte vorbehalten", "datenschutz"),
    "en": (
        "cookie", "javascript", "facebook", "twitter", "whatsapp", "newsletter", "rights reserved",
        "privacy", "terms of", "by using", "by continuing", "lorem ipsum",
    ),
    "es": ("derechos reservados", "privacidad", "boletín"),
    "fr": ("droits réservés", "confidentialité"),
    "it": ("diritti riservati",),
    "nl": (
        "rechten voorbehouden", "cookiebeleid", "privacybeleid", "privacyverklaring", "nieuwsbrief",
    ),
}
# fmt: on


def phrases(language: str | None) -> re.Pattern[str]:
    """Matches the start of a boilerplate sentence in ``language`` or in English."""
    every = "|".join(phrase for code in _codes(language) for phrase in _PHRASES.get(code, ()))
    return re.compile(every.replace(" WEB", _WEB).replace("BY", _BY))


def hints(language: str | None) -> re.Pattern[str]:
    """A quick test: a text in which this finds nothing has no boilerplate."""
    return re.compile("|".join(hint for code in _codes(language) for hint in _HINTS.get(code, ())))


def _codes(language: str | None) -> list[str]:
    """English and ``language``: pages of all languages have English notices."""
    return [code for code in dict.fromkeys(("en", language)) if code is not None]


_LONGEST = 300
_ITEM_WORDS = 5
_SEAM = re.compile(r"\s*(?:[|•·»›]|\s[-–—/]\s|(?<=[^\W\d_])[.!?…]+(?=\s|$))\s*")
_MARKS = " \t\r*#>-–—.!?…"
# Scripts without spaces between words have long runs of letters.
_LONGEST_WORD = 1000
_ENDLESS_WORD = regex.compile(
    r"[^\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
    rf"{{{_LONGEST_WORD + 1}}}"
)


class Boilerplate(BaseFilter):
    """Drop lines about cookies, scripts and rights, and documents that hold nothing else.

    A line is dropped if its first sentence begins like one of `phrases`, or if another one does
    and the rest are menu items of five words or fewer. It stays if it is longer than 300 characters
    or merely mentions cookies or rights. Of the C4 rules (https://jmlr.org/papers/v21/20-074.html),
    those that fit any language and kind of text also apply: a document is dropped if a line begins
    with the filler text "lorem ipsum", and a line if it has a word of more than 1,000 characters.
    The remaining lines are unchanged, including indentation and blank lines.

    Args:
        language: ISO 639-1 code of the language whose phrases are searched for in addition to the
            English ones; None: only those.
        samples: Keeps a few of the dropped documents.
    """

    name = "boilerplate"

    def __init__(self, language: str | None, samples: Samples):
        super().__init__(samples)
        self.hints = hints(language)
        self.phrases = phrases(language)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Remove the lines from a document; keep it if any text is left."""
        lines = doc.text.split("\n")
        kept = lines
        if _has_endless_word(doc.text):
            kept = [line for line in lines if not _has_endless_word(line)]
            self.stat_update("line-filter-too_long_word", value=len(lines) - len(kept))
        if self.hints.search(doc.text.lower()):
            if any(_plain(line).startswith("lorem ipsum") for line in kept):
                return False, "lorem ipsum"
            own = [line for line in kept if not self.is_boilerplate(line)]
            if len(own) < len(kept):
                self.stat_update("lines", value=len(kept) - len(own))
            kept = own
        if len(kept) < len(lines):
            doc.text = "\n".join(kept).strip("\n")
        return bool(doc.text.strip()) or (False, "nothing else")

    def is_boilerplate(self, line: str) -> bool:
        """Whether a line is boilerplate."""
        if len(line) > _LONGEST or not self.hints.search(line.lower()):
            return False
        parts = [_plain(part) for part in _SEAM.split(line)]
        parts = [part for part in parts if part]
        found = [self.phrases.match(part) is not None for part in parts]
        rest = [part for part, is_phrase in zip(parts, found, strict=True) if not is_phrase]
        return any(found[:1]) or (
            any(found) and all(len(part.split()) <= _ITEM_WORDS for part in rest)
        )


def _has_endless_word(text: str) -> bool:
    return any(len(word) > _LONGEST_WORD and _ENDLESS_WORD.search(word) for word in text.split())


def _plain(line: str) -> str:
    return line.strip(_MARKS).lower()
