"""What a prompt is about, by plain rules. A tag that the person gave to its conversation goes before them."""

from __future__ import annotations

import re

OTHER = "other"
RULES = (
    (
        "code",
        "it holds a block of code, or names a programming language or a thing of programming",
        re.compile(
            r"```|\b(python|javascript|typescript|java|rust|golang|kotlin|swift|haskell|sql|bash|html|css|regex|json|"
            r"c\+\+|c#|numpy|pandas|docker|git|function|class|method|compiler?|debug|bug|refactor|unit tests?|api|code|"
            r"script|algorithm|stack ?trace|exception|traceback)(?!\w)|\w+\(\)|=>|;\s*$",
            re.IGNORECASE | re.MULTILINE,
        ),
    ),
    (
        "maths",
        "it holds a calculation or a formula, or asks to prove, solve, integrate or the like",
        re.compile(
            r"\d\s*[-+*/^×÷=]\s*\(?\d|[a-z]\s*\^\s*\d|\$[^$]+\$|\\\(|"
            r"\b(prove|proof|theorem|equations?|integral|integrate|derivative|differentiate|matrix|eigenvalues?|"
            r"probability|calculate|compute|solve|polynomial|logarithm|arithmetic|algebra|geometry|percent(age)? of|"
            r"how many|sum of|square root|prime numbers?)\b",
            re.IGNORECASE,
        ),
    ),
)
"""(topic, the rule in words, the rule), in their order: the first that holds decides."""


def topic_of(prompt: str) -> str:
    """The topic of a prompt: "code", "maths" or "other".

    >>> topic_of("Write a Python function that sorts"), topic_of("What is 17 * 23?"), topic_of("A poem on autumn")
    ('code', 'maths', 'other')
    """
    return next((topic for topic, _, rule in RULES if rule.search(prompt[:20_000])), OTHER)


def rules() -> str:
    """The rules as a person reads them."""
    said = "; ".join(f"{topic}: {why}" for topic, why, _ in RULES)
    return f"Without a tag, a prompt's own words decide. {said[:1].upper()}{said[1:]}; all else is {OTHER}."
