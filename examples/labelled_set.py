"""A small search task for the examples: documents, and questions with one right answer each.

Vectors of words are a rough measure: for half of the questions some document that shares more
words with the question than the answer does comes first. A reranker reads both and knows better.
"""

import math
import re
import zlib
from collections.abc import Sequence

DIMENSIONS = 256
"""How many numbers a vector has."""

DOCUMENTS = [
    # The answers, in the order of the questions.
    "Bread keeps soft in a linen bag. Freeze what you will not eat within two days.",
    "Skin makes vitamin D from sunlight, so people in the north take it as drops in winter.",
    "The moon pulls the sea towards it: on the beach the water rises and falls twice a day.",
    "Limescale inside the kettle goes away with vinegar: wait for an hour, then rinse it well.",
    "Swallows spend the cold months in Africa, where there are insects, and return in April.",
    "Raise the saddle until the knee is almost straight at the lowest point of the pedal.",
    "Interest is paid on interest, so savings left alone for thirty years grow many times over.",
    "Light from the phone late in the evening tells the brain that it is still day: no sleep.",
    "Yellow leaves on a fern come from too much water: let the soil dry before the next drink.",
    "After a birth both parents may stay away from work for fourteen months with pay.",
    # Others that share words with a question.
    "How do I stop my phone from going flat? Keep the screen dark and close what you do not use.",
    "Do people need a licence for fishing in the winter? Yes, and each may take two fish.",
    "Why are the leaves of my old book loose? The glue is dry; a binder can renew the spine.",
    "How to remove white paint from the inside of a jacket: soak it, then use a soft brush.",
    "Where do the trains go in the cold season? The night line to Vienna runs all year.",
    "My back and my knees hurt when I was carrying the piano, so we hired two movers.",
    "Why does a small town become so large over time? Often because a railway was built.",
    "How long may a new driver sit at the wheel? Two hours, then a break is wise.",
    # Others about the same things.
    "Sourdough bread begins with flour and water that stand on the counter for a week.",
    "Vitamin C is found in oranges, peppers and cabbage, and is lost in long cooking.",
    "The deepest part of the sea lies eleven kilometres below its surface, east of Manila.",
    "An electric kettle boils a litre of water in three minutes and switches itself off.",
    "Sparrows stay in the same garden all year and eat seeds when it snows.",
    "A bicycle chain lasts three thousand kilometres if it is cleaned and oiled.",
    "Banks ask for two proofs of address before they open an account.",
    "A dream lasts from a few seconds to half an hour and is soon forgotten.",
    "Cacti store water in their stems and want a bright window.",
    "A crib should have a firm mattress and no pillow.",
    # Others.
    "The library lends books for four weeks and films for one.",
    "Copper turns green in the rain, which protects the metal below.",
    "Chess clubs meet on Tuesdays in the town hall; beginners are welcome.",
    "Volcanic soil is rich in minerals, and vines love it.",
    "A violin has four strings, tuned in fifths.",
    "Sort glass by colour, and leave the lids at home.",
    "Penguins know their mates by voice among thousands.",
    "The museum is free on the first Sunday of each month.",
    "Salt lowers the freezing point, so it melts the ice on the road.",
    "A marathon is a little over forty-two kilometres.",
    "Wool felts in a hot wash; use cold water and little soap.",
    "The bridge was closed for repairs from May to September.",
]

QUERIES = [
    ("how do I stop my bread from going stale", 0),
    ("what vitamin do people need in the winter", 1),
    ("what makes the tide rise and fall", 2),
    ("how to remove the white crust from the inside of a kettle", 3),
    ("where do birds go in the cold season", 4),
    ("my knees hurt when I was cycling, how high should the saddle be", 5),
    ("why do small savings become so large over time", 6),
    ("why does the phone keep me from sleep in the evening", 7),
    ("why are the leaves of my house plant turning yellow", 8),
    ("how long may a new mother stay away from work", 9),
]
"""Each question with the position of its answer in `DOCUMENTS`."""


def vector(text: str) -> list[float]:
    """Give the direction of a text's words: each adds to a place that its hash picks.

    It stands in for an embedding model, so that the examples download nothing.
    """
    sums = [0.0] * DIMENSIONS
    for word in re.findall(r"\w+", text.lower()):
        hashed = zlib.crc32(word.encode())
        sums[hashed % DIMENSIONS] += 1 if hashed & DIMENSIONS else -1
    length = math.hypot(*sums) or 1.0
    return [each / length for each in sums]


def precision_at_1(best: Sequence[int]) -> float:
    """Tell how many questions got the right answer first, as a share of all.

    `best` is the position in `DOCUMENTS` of the first result of each question, in their order.
    """
    hits = [found == right for found, (_, right) in zip(best, QUERIES, strict=True)]
    return sum(hits) / len(hits)
