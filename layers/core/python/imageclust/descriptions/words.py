"""Label names as plain English: plural, sentence case, shares in words.

Labels come as Rekognition writes them ("Dining Table"); titles and sentences want "dining tables".
"""

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_INVARIANT = _words(
    """
    aircraft apparatus bison cattle cod craft deer elk fish grouse hovercraft moose offspring
    people ptarmigan salmon series sheep shrimp spacecraft species squid swine trout watercraft
    waterfowl
    """
)
_MASS = _words(
    """
    accessories agriculture alcohol algae apparel archery architecture armor armour art artwork
    asphalt athletics bacon badminton baggage baseball basketball bedclothes bedding beer blood
    boxing brass bread broccoli butter cabbage candy carbonara cardboard carpentry cauliflower
    chainmail cheese chess chocolate clothing coffee concrete confetti consomme cookware coral
    corn crockery cuisine curling cutlery darkness decor decoration dinner dirt dough drywall
    dust eggnog electricity electronics embroidery equipment evidence farmland fashion fencing
    fire flooring fog foliage food football footwear fruit fun fur furniture gambling garbage
    garlic gear glassware gold golf graffiti grass gravel greenery guacamole gymnastics hail
    hair hardware hardwood hay headwear health honey hosiery housing ice ink ivy jewellery
    jewelry juice karate knitwear land laundry leather leisure lighting linen lingerie
    literature lotion luggage lumber machinery mail makeup marble math meat meatloaf medication
    metal milk money mud mulch music nature nightlife nightwear nutrition outerwear oxygen paper
    parking pasta patience perfume photography plumage pollution porcelain pork pottery produce
    racing rain rapeseed rice rubble rust sand scenery seafood shipping silk silverware sky smog
    smoke snow soap soccer soil space spaghetti sportswear stationery steam steel sugar sunlight
    sunscreen swimwear tableware tarmac tea tennis text timber toiletries toiletry traffic
    transport transportation trash travel turf underwear usage vegetation velvet volleyball
    walnut water weaponry weather wheat wildlife wine wood wool workwear yarn yoga
    """
)
_IRREGULAR = {
    "axis": "axes", "bride": "brides", "calf": "calves", "child": "children", "die": "dice",
    "dwarf": "dwarfs", "elf": "elves", "foot": "feet", "fungus": "fungi", "goose": "geese",
    "half": "halves",
    "hoof": "hooves", "knife": "knives", "leaf": "leaves", "life": "lives", "loaf": "loaves",
    "louse": "lice", "man": "men", "mouse": "mice", "ox": "oxen", "person": "people",
    "quiz": "quizzes", "scarf": "scarves", "self": "selves", "shelf": "shelves", "thief": "thieves",
    "tooth": "teeth", "wife": "wives", "wolf": "wolves", "woman": "women",
}  # fmt: skip
# "fireman", "bookshelf", "werewolf"; but not "human" or "mongoose".
_ENDS_COMPOUNDS = _words("man woman child wolf knife shelf wife person")
_NO_COMPOUNDS = _words("german human ottoman roman shaman talisman")
_OES = _words("buffalo domino echo hero mango mosquito potato tomato tornado torpedo volcano")
_SINGULAR_IN_S = _words("atlas bias canvas christmas gas lens pancreas sassafras")
# In "-ing" what is a thing, not a doing.
_THINGS_IN_ING = _words(
    """
    bearing being brambling building bunting ceiling clearing covering crossing cutting drawing
    dressing duckling dumpling dwelling earring engraving fitting king lacewing landing lining
    listing marking morning opening painting plaything pudding railing ring sapling savings
    seedling shilling sibling sling spring sting stocking string swing thing topping viking
    wedding wing
    """
)
_PROPER = {
    word.lower(): word
    for word in _words(
        """
        Affenpinscher Afghan African Airedale Alaskan Alpine American Angora Appenzeller
        Arctic Asian Australian Bedlington Bernese Boston Bouvier Brittany Bruxellois Buddha
        Carolina Chesapeake Chihuahua Chinese Christmas Dane Dandie Dinmont Dungeness Dutch
        Easter Egyptian Eiffel Entlebucher English European Flandres French Geoffroy's
        German Gila Gordon Granny Greek Halloween Hanukkah Himalayan Hindu Ibizan Indian
        Irish Italian Japanese Kerry Komodo Labrador Lakeland Lhasa Apso Maltese Mau Mexican
        Newfoundland Nile Norfolk Norwegian Norwich Pembroke Persian Petri Polaroid Pyrenean
        Rhodesian Roman Russian Saharan Samoyed Santa Scottish Sealyham Shetland Siamese
        Siberian Smith Spanish Staffordshire Sussex Swiss Thanksgiving Tibetan Welsh Windsor
        Yorkshire
        """
    )
}
_PROPER_PHRASES = ("King Charles", "St. Bernard", "West Highland")
_SHARE_WORDS = (
    (0.995, "all"),
    (0.93, "nearly all"),
    (0.85, "nine in ten"),
    (0.78, "four in five"),
    (0.71, "three in four"),
    (0.58, "two in three"),
    (0.44, "half"),
    (0.29, "a third"),
    (0.0, "some"),
)


def in_sentence(name: str) -> str:
    """``Dining Table`` → ``dining table``; names of places and letters stay (``T-shirt``)."""
    plain = re.sub(r"\s*\([^)]*\)", "", name).strip() or name
    words = " ".join(_lowered(word) for word in plain.split())
    for phrase in _PROPER_PHRASES:
        words = words.replace(phrase.lower(), phrase)
    return words


def _lowered(word: str) -> str:
    if word.lower() in _PROPER:
        return _PROPER[word.lower()]
    return "-".join(
        part if len(part) == 1 or re.search(r".[A-Z]|\d", part) else part.lower()
        for part in word.split("-")
    )


def plural(name: str) -> str:
    """The plural of a label in a sentence; what cannot be counted stays as it is."""
    text = in_sentence(name)
    # "bird of prey", "crew in uniform": the word before counts.
    if match := re.match(r"(.+?)( (?:of|in|on|with|without|for|des?) .+)", text):
        return plural(match[1]) + match[2]
    if not countable(name):
        return text
    head, sep, last = text.rpartition(" ")
    start, hyphen, ending = last.rpartition("-")
    return head + sep + start + hyphen + _plural_word(ending)


def countable(name: str) -> bool:
    """False for what has no plural: fruit, furniture, swimming."""
    words = in_sentence(name).lower().split()
    last = words[-1].rpartition("-")[2]
    if last in _MASS:
        return False
    return not (last.endswith("ing") and last not in _THINGS_IN_ING)


def _plural_word(word: str) -> str:
    low = word.lower()
    for singular, many in _IRREGULAR.items():
        if low == singular or (singular in _ENDS_COMPOUNDS and low.endswith(singular)):
            if low in _NO_COMPOUNDS:
                break
            return word[: len(word) - len(singular)] + many
    if low.endswith(("fish", "ese")) or low in _INVARIANT:
        return word
    if low in _OES:
        return word + "es"
    if low in _SINGULAR_IN_S:
        return word + "es"
    if low.endswith("s") and not low.endswith(("ss", "us", "is")):
        return word  # jeans, binoculars: plural already
    if low.endswith(("ss", "us", "is", "x", "z", "sh")) or (
        low.endswith("ch") and low not in ("monarch", "stomach", "loch", "eunuch")
    ):
        return word + "es"
    if low.endswith("y") and low[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def sentence_case(text: str) -> str:
    """First letter up unless the word brings its own capitals (``iPods``)."""
    first = text.split(" ", 1)[0]
    return text if first != first.lower() else text[:1].upper() + text[1:]


def share_in_words(share: float) -> str:
    """``0.5`` → ``half``; reads before "of these pictures"."""
    return next(words for least, words in _SHARE_WORDS if share >= least)


def listed(words: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(words[:-1])] * (len(words) > 1) + words[-1:])


def counted(n: int, noun: str) -> str:
    """``1 picture``, ``2,000 pictures``."""
    return f"{n:,} {noun if n == 1 else plural(noun)}"
