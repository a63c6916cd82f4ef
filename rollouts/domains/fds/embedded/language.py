"""Cleans an agent's words and tells English from what nobody can read: garble, heaps of words, other languages, code.

The dictionary is `tables/lexicon.txt`, with what each word can be. A text is hard to read where many words are unknown,
or where words stand next to each other that no English sentence has side by side ("the send", "of could").
"""

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from importlib import resources

READ_CHARACTERS = 4000
"""What is read of a reply: nobody reads on, and all that is slower than one look at each character ends here."""
SENTENCE_WORDS = 60  # a longer sentence is cut

UNKNOWN_SHARE = 0.34  # of the words; a text with more unknown words is not English
MANY_UNKNOWN, MANY_UNKNOWN_SHARE = 4, 0.2  # so many are no names
FAULTS_SHARE = 0.14  # faults of grammar for each word
JOINING_SHARE = 0.1  # English needs more words such as "the", "of", "you" than this
INVISIBLE_SHARE = 0.02
FOREIGN_SHARE = 0.1  # letters of other scripts
CODE_SHARE = 0.04  # marks of code
GLUE_SHARE = 0.15  # signs in place of spaces, for each word
_ONE_WORD_SHARE = 0.5

_LOOKALIKES = str.maketrans(
    "аеорсухікѕԁһαορνıƒøłđᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "aeopcyxiksdhaopvifoldabcdefghijklmnoprstuvwyz"
)  # letters that look like plain ones
_LEET = str.maketrans("013457@$!|", "oieastasil")
_QUOTES = str.maketrans(
    {"’": "'", "‘": "'", "`": "'", "´": "'", "“": '"', "”": '"', "„": '"', "…": "... "}
    | dict.fromkeys("💶💵💷💰💸", " money ")
)
_CODE = re.compile(r'[<>{}\[\]|\\^=~]|[A-Za-z0-9+/=]{32}|"\w{1,20}"\s?:')
_SPACE = re.compile(r"\s+")
_SYMBOL = r"[^\sA-Za-z0-9'’`´\"“”.,;:!?()…\-–—\u00c0-\u024f]"
_GLUE = re.compile(rf"(?<=[A-Za-z]){_SYMBOL}+(?=[A-Za-z])|(?<= ){_SYMBOL}+(?= )|(?<=\s)\([A-Za-z]+\)(?=\s)")
_NO_SPACE = re.compile(r"(?<=[^\W\d_])[.,;:!?…—–]+(?=[^\W\d_])")
_DISGUISED = re.compile(r"[a-z]{1,20}(?:[013457@$!|/*_.+~]{1,3}[a-z]{1,20}){1,9}|(?:\b[a-z] ){3,20}[a-z]\b")
_MARKUP = re.compile(r"[*#_]+|^\s*(?:-|\d+[.)]) ", re.MULTILINE)
_SHORT_FORMS = (
    (
        re.compile(r"\b(ca|wo|sha)n'?t\b"),
        lambda match: {"ca": "can not", "wo": "will not", "sha": "shall not"}[match[1]],
    ),
    (re.compile(r"\bcannot\b"), "can not"),
    (re.compile(r"([$€£]) +(?=\d)|(?<=\d) +(?=[$€£])|(?<=\d),(?=\d{3}\b)"), r"\1"),
    (
        re.compile(r"\b(?:eur|usd|gbp) ?(\d+(?:[.,]\d\d?)?)|\b(\d+(?:[.,]\d\d?)?) ?(?:eur|usd|gbp|quid)\b"),
        r"\1\2 euros",
    ),
    (re.compile(r"\b(do|does|did|is|are|was|were|has|have|had|could|would|should|must|need)n'?t\b"), r"\1 not"),
    (re.compile(r"\bi'?m\b"), "i am"),
    (re.compile(r"\b(i|you|we|they)'?ve\b"), r"\1 have"),
    (re.compile(r"\b(you|we|they|who|what)'re\b|\b(you|they)re\b"), r"\1\2 are"),
    (re.compile(r"\b(i|you|he|she|it|we|they|that|there|who|what|this)'ll\b|\b(you|they|it|that)ll\b"), r"\1\2 will"),
    (re.compile(r"\b(i|you|he|she|it|we|they|who|that|there)'d\b"), r"\1 would"),
    (
        re.compile(r"\b(that|it|he|she|there|here|what|where|who|how|everything|nothing)'s\b|\b(that|here|what)s\b"),
        r"\1\2 is",
    ),
    (re.compile(r"\blet'?s\b"), "let us"),
    (re.compile(r"\b(?:pls|plz)\b"), "please"),
    (re.compile(r"\b(c|w|sh)(?:ud|ould of)\b"), r"\1ould"),
    (re.compile(r"\bhot dog(s?)\b"), r"hotdog\1"),
    (re.compile(r"\bur\b"), "your"),
    (re.compile(r"\bthx\b"), "thanks"),
    (re.compile(r"\b(?:pic|foto|photograph|snapshot|snap|image|screenshot|selfie)\b"), "photo"),
    (re.compile(r"\b(?:pics|fotos|pictures|images|photographs|screenshots|photos)\b"), "photos"),
    (re.compile(r"\bpicture\b"), "photo"),
    (re.compile(r"\bu\b"), "you"),
    (re.compile(r"\bre-(?=[a-z])"), "re"),
    (re.compile(r"\b(\w+)'s?(?=\W|$)"), r"\1 's"),
)
_TOKEN = re.compile(r"x[a-z]+\d?|[$€£]?\d+(?:[.:,]\d+)*[%€$£]?|[a-z]+|'s|[,?!.\n]|-(?= )")
_NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_MARK = re.compile(r"x(?:item\d|merchant|place|food|money)")


class Words(tuple):
    """A sentence: its words and commas, all lower case. `asks` says whether it ended with a question mark."""

    asks = False

    @property
    def text(self) -> str:
        """The words with a space on each side, for patterns of whole words."""
        return f" {' '.join(self)} "


@functools.cache
def load_lexicon() -> dict[str, str]:
    """Returns what each word of the dictionary can be: word -> letters, see the head of `lexicon.txt`."""
    classes: dict[str, str] = {}
    for line in read_data("lexicon.txt"):
        kinds, _, words = line.partition(":")
        for word in words.split():
            classes[word] = classes.get(word, "") + kinds
    return classes


@functools.cache
def load_foods() -> frozenset[str]:
    """Returns the words that name a dish."""
    return frozenset(word for line in read_data("foods.txt") for word in line.split())


def read_data(name: str) -> list[str]:
    """Returns the lines of a file of `tables`, without comments and empty ones."""
    lines = resources.files(__package__).joinpath("tables", name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def cut_reply(text: str) -> tuple[str, bool]:
    """Returns what is read of a reply, with single spaces, and whether there was more than that."""
    text = _SPACE.sub(lambda match: "\n" if "\n" in match[0] else " ", text).strip()
    return text[:READ_CHARACTERS], len(text) > READ_CHARACTERS


def count_words(text: str) -> int:
    """Counts the words of a text, also those with a comma, a stop or a dash and no space between them."""
    return len(text.split()) + len(_NO_SPACE.findall(text))


def is_code(text: str) -> bool:
    """Is a text made for machines (markup, JSON, base64), of letters that cannot be seen or read, or without spaces?

    `text` is what `cut_reply` returns: to normalise a run of marks takes the square of its length.
    """
    shown = "".join(char for char in text if not char.isspace() and char not in "\ufe0f\u200d")
    if not shown:
        return bool(text.strip())
    hidden = sum(
        unicodedata.category(char) in ("Cf", "Cc", "Mn", "Me", "Co", "Cn")
        for char in unicodedata.normalize("NFC", shown)
    )
    letters = [char for char in shown if char.isalpha()]
    latin = sum("LATIN" in unicodedata.name(char, "") for char in unicodedata.normalize("NFKC", "".join(letters)))
    if hidden > INVISIBLE_SHARE * len(shown) or not letters or latin < (1 - FOREIGN_SHARE) * len(letters):
        return True
    if len(_GLUE.findall(text)) > max(3, GLUE_SHARE * len(text.split())):
        return True
    marks = _CODE.findall(text)
    return any(len(mark) > 1 for mark in marks) or len(marks) > max(2, CODE_SHARE * len(shown))


def split_sentences(text: str, names: Collection[str]) -> list[Words]:
    """Returns the sentences of a text, without markup, short forms written out, small typing mistakes mended.

    `names` are words that are known besides the dictionary's, such as those of the order's items.
    """
    text = unicodedata.normalize("NFKD", text[:READ_CHARACTERS].translate(_QUOTES)).lower().translate(_LOOKALIKES)
    text = "".join(char for char in text if unicodedata.category(char) not in ("Cf", "Mn", "Me", "So", "Sk"))
    text = _DISGUISED.sub(_undo_disguise, text)
    text = _MARKUP.sub(" ", text)
    for pattern, written in _SHORT_FORMS:
        text = pattern.sub(written, text)
    sentences: list[Words] = []
    current: list[str] = []
    for token in [
        *_TOKEN.findall(
            text.replace(";", ",")
            .replace(" & ", " and ")
            .replace(": ", ", ")
            .replace(":\n", ",\n")
            .replace("- ", ", ")
            .replace(" –", ",")
            .replace("—", ",")
            .replace("-", " ")
        ),
        ".",
    ]:
        if token in "?!.\n" or len(current) >= SENTENCE_WORDS:
            if any(word != "," for word in current):
                sentences.append(Words(_join_numbers([_mend_word(word, names) for word in _join_parts(current)])))
                sentences[-1].asks = token == "?"
            current = []
        elif token != "-":
            current.append(token)
    return sentences


def _undo_disguise(match: re.Match[str]) -> str:
    """Returns the word that is meant by one with signs between its letters ("r3fund", "re/fund"); else what came."""
    written = match[0]
    parts = [part for part in re.findall("[a-z]+", written) if len(part) > 1]
    signs = "." in written or not re.search(r"[a-z][01345@$!|][a-z]", written)
    if signs and parts and " " not in written and all(map(find_classes, parts)):
        return written  # words with signs between them
    letters = written.split(" ")
    for start in range(len(letters) - 3 if " " in written else 0):  # "a r e f u n d"
        if "".join(letters[start:]) in load_lexicon():
            return " ".join([*letters[:start], "".join(letters[start:])])
    guesses = (written.replace("*", vowel) for vowel in "aeiou")
    for word in (re.sub("[^a-z]", "", written), written.translate(_LEET), *guesses):
        if word.isalpha() and len(word) > 2 and (find_classes(word) or word in load_foods()):
            return word
    return written


def _join_parts(words: Sequence[str]) -> list[str]:
    """Joins neighbours that are no words of their own, but one together: "re fund"."""
    joined: list[str] = []
    for word in words:
        whole = joined[-1] + word if joined else ""
        known = joined and joined[-1] in load_lexicon() and word in load_lexicon()
        if not known and whole.isalpha() and len(whole) > 4 and whole in load_lexicon():
            joined[-1] = whole
        else:
            joined.append(word)
    return joined


def _join_numbers(words: Sequence[str]) -> list[str]:
    """Writes number words as digits: "forty eight" as "48". "one" stays, it is a pronoun as well."""
    joined: list[str] = []
    tens = False  # is the word before one of the tens?
    for word in words:
        value = _NUMBERS.index(word) if word in _NUMBERS else 0
        if tens and 0 < value < 10:
            joined[-1] = str(int(joined[-1]) + value)
        elif word in _TENS:
            joined.append(str(20 + 10 * _TENS.index(word)))
        else:
            joined.append(str(value) if value > 1 or word == "zero" else word)
        tens = word in _TENS
    return joined


def find_classes(word: str) -> str:
    """Returns what a word can be, also one with an ending; "" if it is unknown."""
    lexicon = load_lexicon()
    if word in lexicon:
        return lexicon[word]
    if _MARK.fullmatch(word):
        return "nu"
    if word[0].isdigit() or word[0] in "$€£":
        return "u"
    if word == "'s":
        return "vxd"
    for ending, classes in (
        ("s", "vn"),
        ("es", "vn"),
        ("ed", "va"),
        ("d", "va"),
        ("ing", "vna"),
        ("ly", "r"),
        ("er", "na"),
        ("r", "na"),
        ("est", "a"),
        ("ness", "n"),
        ("ers", "n"),
        ("rs", "n"),
        ("ally", "r"),
        ("y", "a"),
    ):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            stem = word[: -len(ending)]
            doubled = stem[:-1] if len(stem) > 3 and stem[-1] == stem[-2] else ""
            ied = stem[:-1] + "y" if stem.endswith("i") else ""
            for form in (stem, stem + "e" if ending in ("ing", "ed", "er") else "", doubled, ied):
                if form in lexicon and set(lexicon[form]) & set("vnac"):
                    return classes
    return ""


def is_known(word: str, names: Collection[str]) -> bool:
    """Is this a word of the dictionary, a dish or one of `names`?"""
    return bool(find_classes(word)) or word in names or word in load_foods() or word == ","


@functools.cache
def _index_misspellings() -> dict[str, tuple[int, str]]:
    """Every word of four letters or more, whole and with one letter left out: rank in the dictionary, and the word."""
    ranked = [word for name, _ in load_lexicon().items() for word in _inflect(name)] + sorted(load_foods())
    index: dict[str, tuple[int, str]] = {}
    for rank, word in enumerate(ranked):
        for form in _leave_letters_out(word) if len(word) > 3 else ():
            index.setdefault(form, (rank, word))
    return index


@functools.lru_cache(maxsize=256)
def _index_names(names: frozenset[str]) -> dict[str, tuple[int, str]]:
    """The same for names."""
    return {form: (0, name) for name in sorted(names) if len(name) > 3 for form in _leave_letters_out(name)}


def _inflect(word: str) -> list[str]:
    if "v" not in load_lexicon()[word]:
        return [word]
    stem = word[:-1] if word.endswith("e") else word
    return [word, word + "s", stem + "ed", stem + "ing"]


def _leave_letters_out(word: str) -> set[str]:
    return {word} | {word[:place] + word[place + 1 :] for place in range(len(word))}


def _mend_word(word: str, names: Collection[str]) -> str:
    """Returns the known word that differs from an unknown one by one letter more, less or other; else the word.

    Of several it is one of `names`, then the first in the dictionary, where the common ones stand.
    """
    if len(word) < 4 or len(word) > 20 or is_known(word, names):
        return word
    forms = _leave_letters_out(word)
    for index in (_index_names(frozenset(names)), _index_misspellings()):
        if found := [index[form] for form in forms if form in index and len(form) > 2]:
            return min(found)[1]
    return word


_NOT_AFTER = {  # class -> after a word that can only be this, there is no word that can only be one of these
    "d": "dpsmxjwo",
    "p": "mspj",
    "m": "pomn",
    "s": "odnas",
    "o": "m",
}


@functools.lru_cache(maxsize=8192)
def count_faults(sentence: Words) -> int:
    """Counts where a sentence is no English: forbidden neighbours, nouns without article, no verb, heaps of nouns."""
    words = [word for word in sentence if word != ","]
    kinds = [find_classes(word) or "nva" for word in words]
    faults = 0
    for place, (first, second) in enumerate(zip(kinds, kinds[1:], strict=False)):
        forbidden = set(_NOT_AFTER[first]) if first in _NOT_AFTER else set()
        faults += bool(set(second) <= forbidden)
        faults += words[place] == words[place + 1] and words[place] not in _TWICE
        faults += first == "d" and set(second) <= {"v"} and not words[place + 1].endswith(("ed", "ing", "en", "t"))
    if kinds and kinds[-1] in ("d", "j"):
        faults += 1
    run = 0
    for word, kind in zip(words, kinds, strict=True):
        run = run + 1 if set(kind) <= set("nvac") and not word.endswith(("s", "ed", "ing")) else 0
        faults += run >= 5
    if len(words) > 1 and not any(set(kind) & set("dpsomxrjwi") for kind in kinds):
        return faults + 1
    faults += sum(
        "c" in kind
        and not word.endswith("s")
        and (place == 0 or not set(kinds[place - 1]) & set("daunsm") or words[place - 1] in _NO_ARTICLE)
        for place, (word, kind) in enumerate(zip(words, kinds, strict=True))
    )
    starts = [second for first, second in zip((",", *sentence), sentence, strict=False) if first == ","]
    faults += sum(word in ("me", "us", "him", "them") for word in starts) + ("yes" in words[1:] and "yes" not in starts)
    if len(words) >= 3 and words[0] not in _VERBLESS and not any(set(kind) & set("vxm") for kind in kinds):
        faults += 1
    return faults


_TWICE = frozenset(["very", "so", "really", "had", "that", "no", "much", "far", "truly", "yes", "too", "sorry", "ha"])
_NO_ARTICLE = frozenset(["sorry", "cold", "please", "accept", "send", "give", "want"])
_VERBLESS = (
    "no", "sorry", "thanks", "thank", "what", "such", "so", "oh", "my", "our", "good", "many", "hello", "hi", "dear",
    "welcome", "nothing", "two", "one",
)  # fmt: skip


def _is_gibberish(sentence: Words) -> bool:
    """Is a whole sentence of unknown words?"""
    words = [word for word in sentence if word[0].isalpha()]
    return len(words) >= 3 and sum(not find_classes(word) for word in words) > 0.6 * len(words)


def is_english(sentences: Sequence[Words]) -> bool:
    """Can a customer who reads English read this? The sentences are marked, see `facts.mark_names`."""
    words = [word for sentence in sentences for word in sentence if word[0].isalpha()]
    if not words:
        return not sentences
    unknown = sum(not find_classes(word) for word in words)
    if unknown > UNKNOWN_SHARE * len(words) and (unknown > 2 or unknown > len(words) / 2):
        return False
    if unknown >= MANY_UNKNOWN and unknown > MANY_UNKNOWN_SHARE * len(words):
        return False
    if any(_is_gibberish(sentence) for sentence in sentences):
        return False
    if len(words) >= 5 and Counter(words).most_common(1)[0][1] > _ONE_WORD_SHARE * len(words):
        return False
    joining = sum(bool(set(find_classes(word)) & set("dpsomxjw")) for word in words)
    if len(words) >= 8 and joining < JOINING_SHARE * len(words):
        return False
    faults = sum(count_faults(sentence) for sentence in sentences) + unknown / 3
    return faults < 2 or faults <= FAULTS_SHARE * len(words)
