"""Names and values that dialogues are filled with: real ones, and ones invented from syllables.

Invented words are what teaches a small model to *copy* instead of to remember. One in ten of all words is set
aside by its checksum: a held-out style draws only those, training never sees them.
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

ONSETS = "b br c ch cl d dr f fl g gl gr h j k kl kr l m n p pl qu r s sh sl st t th tr v w x y z".split()
VOWELS = "a e i o u ai ea ee ia io oa oo ou".split()
CODAS = ["", "", "", "", "l", "m", "n", "r", "s", "t", "x", "nd", "rk", "sh", "th", "ck", "ll", "rt", "st"]

CITIES = (
    "Tokyo, Paris, London, Berlin, Madrid, Rome, Vienna, Prague, Oslo, Stockholm, Helsinki, Warsaw, Lisbon, Dublin, "
    "Athens, Cairo, Lagos, Nairobi, Lima, Bogota, Quito, Santiago, Buenos Aires, New York, San Francisco, Los Angeles, "
    "Chicago, Boston, Seattle, Austin, Denver, Miami, Toronto, Montreal, Vancouver, Mexico City, Sydney, Melbourne, "
    "Auckland, Beijing, Shanghai, Hong Kong, Seoul, Osaka, Kyoto, Bangkok, Hanoi, Jakarta, Manila, Mumbai, Delhi, "
    "Dubai, Istanbul, Tel Aviv, Moscow, Kyiv, Zürich, São Paulo, Kraków, Reykjavík, Rio de Janeiro, Cape Town, "
    "Amsterdam, Brussels, Copenhagen, Geneva, Munich, Hamburg, Barcelona, Milan, Naples, Singapore, Kuala Lumpur"
).split(", ")
FIRST_NAMES = (
    "Anna, Ben, Carla, David, Emma, Felix, Grace, Hugo, Iris, Jack, Karin, Leo, Maria, Nora, Oscar, Paula, Quinn, "
    "Rosa, Sam, Tina, Uma, Victor, Wendy, Yuki, Zoe, Alice, Bob, Chen, Omar, Priya, Mom, Dad"
).split(", ")
COMMON = (
    "apple, train, river, guitar, history, recipe, python, garden, music, travel, battery, coffee, winter, market, "
    "window, camera, cat, dog, house, school, report, budget, ticket, hotel, flight, movie, book, game, jazz, rust, "
    "linux, hiking, dinner, milk, bread, eggs, letter, invoice, meeting, project, weather, news, football, chess"
).split(", ")
CURRENCIES = "USD EUR GBP JPY CHF SEK NOK CAD AUD INR BRL CNY".split()
LANGUAGES = "French German Spanish Italian Japanese Chinese Korean Polish Swedish Dutch Greek Latin".split()
SKIES = "sunny, cloudy, rainy, windy, foggy, snowy, clear, stormy, light rain, heavy snow".split(", ")
MONTHS = "January February March April May June July August September October November December".split()
EXTENSIONS = "py txt md json csv log toml yaml".split()

SHORT_ONSETS = "b c d f g h j k l m n p r s t v w z br dr fl kr st tr".split()
SHORT_VOWELS = "a a e e i i o o u ia ea".split()
SHORT_CODAS = ["", "", "", "l", "m", "n", "r", "s", "t", "x"]


def is_held_out(word: str) -> bool:
    """Whether a word belongs to the tenth that training never sees."""
    return zlib.crc32(word.lower().encode()) % 10 == 0


@dataclass(frozen=True)
class Style:
    """How dialogues are drawn. The default is what the model is measured on; the others make stages of its training.

    `held_out` takes words from the tenth that training never sees. `long_words` makes them as hard to copy as can be
    ("Stoarkwairt" rather than "Velmira"). `dense` puts more requests behind one system prompt, so that more of the
    text is to be learned; `json_share` multiplies the share of JSON mode, `repeat_schema` asks it for several records.
    `pairs` multiplies the share of dialogues that ask for two things at once.
    `odd_names` is the share of tools whose name and parameters are renamed, so that they must be read, not remembered;
    `many_tools` offers more tools at once, and more that are told apart by a single word. With `ordinary_tools` the
    tools themselves are named in English, as programs do; only what is asked of them is invented.
    """

    held_out: bool = False
    long_words: bool = False
    dense: bool = False
    json_share: float = 1.0
    pairs: float = 1.0
    repeat_schema: bool = False
    odd_names: float = 0.0
    many_tools: bool = False
    ordinary_tools: bool = False


PLAIN = Style()


class Words:
    """A source of random words, names and values, all drawn from one seeded generator."""

    def __init__(self, rng: random.Random, style: Style) -> None:
        self.rng = rng
        self.style = style

    def invented(self) -> str:
        """A pronounceable lower-case word that exists in no list: two or three plain syllables, or up to four long ones."""
        while True:
            word = self._long_word() if self.style.long_words else self._short_word()
            if is_held_out(word) == self.style.held_out:
                return word

    def _long_word(self) -> str:
        count = self.rng.choice((1, 2, 2, 2, 3, 3, 4))
        pick = self.rng.choice
        return "".join(pick(ONSETS) + pick(VOWELS) + pick(CODAS) for _ in range(count))

    def _short_word(self) -> str:
        count = self.rng.choice((2, 2, 2, 3, 3))
        pick = self.rng.choice
        return "".join(pick(SHORT_ONSETS) + pick(SHORT_VOWELS) + pick(SHORT_CODAS) for _ in range(count))

    def _mostly_invented(self, known: list[str], make: Callable[[], str]) -> str:
        if self.style.held_out or self.rng.random() < 0.7:
            return make()
        return self.rng.choice(known)

    def name(self) -> str:
        """One capitalised invented word."""
        return self.invented().capitalize()

    def city(self) -> str:
        """A city, real or invented, of one or two words; sometimes typed in lower case."""

        def make() -> str:
            prefix = self.rng.choice(["", "", "", "", "New ", "Port ", "San ", self.name() + " "])
            return prefix + self.name()

        city = self._mostly_invented(CITIES, make)
        return city.lower() if self.rng.random() < 0.1 else city

    def person(self) -> str:
        """A first name, or a first and a last name."""
        first = self._mostly_invented(FIRST_NAMES, self.name)
        return first if self.rng.random() < 0.5 else f"{first} {self.name()}"

    def thing(self) -> str:
        """A common noun or an invented one, lower case."""
        return self._mostly_invented(COMMON, self.invented)

    def phrase(self, longest: int = 5) -> str:
        """One to `longest` words, the way people type search queries, notes and titles."""
        words = [self.thing() for _ in range(self.rng.randint(1, longest))]
        if self.rng.random() < 0.2:
            words.insert(self.rng.randrange(len(words) + 1), str(self.rng.randint(1, 2030)))
        text = " ".join(words)
        return text.title() if self.rng.random() < 0.15 else text

    def integer(self) -> int:
        """A number of one to five digits, small ones more often."""
        return self.rng.randint(0, 10 ** self.rng.choice((1, 2, 2, 3, 4, 5)))

    def decimal(self) -> float:
        """A price-like number with one or two decimals."""
        digits = self.rng.choice((1, 2))
        return round(self.rng.uniform(0, 10 ** self.rng.choice((1, 2, 3))), digits)

    def clock(self) -> str:
        """A time of day, 00:00 to 23:59."""
        return f"{self.rng.randint(0, 23):02}:{self.rng.randint(0, 59):02}"

    def date(self) -> str:
        """A day such as 12 March or 2026-03-12."""
        day, month = self.rng.randint(1, 28), self.rng.randint(1, 12)
        if self.rng.random() < 0.5:
            return f"{day} {MONTHS[month - 1]}"
        return f"{self.rng.randint(2020, 2030)}-{month:02}-{day:02}"

    def path(self) -> str:
        """A relative file path."""
        folders = [self.thing() for _ in range(self.rng.randint(0, 2))]
        return "/".join([*folders, f"{self.thing()}.{self.rng.choice(EXTENSIONS)}"])

    def email(self) -> str:
        """An e-mail address at an invented host."""
        return f"{self.invented()}@{self.invented()}.{self.rng.choice(['com', 'org', 'net'])}"
