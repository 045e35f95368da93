"""Where two answers part, word by word."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

LONG = 1500
"""Words after the first difference that are compared; it takes a time that grows with their square."""

_WORD = re.compile(r"\s*\S+")


@dataclass(frozen=True, slots=True)
class Part:
    """A passage that both have, or only one of them."""

    kind: Literal["both", "left", "right"]
    text: str  # of a passage that both have, as the left one writes its white space


@dataclass(frozen=True, slots=True)
class Divergence:
    """How two texts compare."""

    same: int  # words that they begin with alike
    parts: tuple[Part, ...]
    agreement: float  # 0..1: twice the words that both have in the same order, over the words of both
    compared: bool = True  # False: they are longer than what is compared word by word

    @property
    def equal(self) -> bool:
        """Whether they say the same, white space aside."""
        return all(part.kind == "both" for part in self.parts)

    def next(self, kind: Literal["left", "right"], words: int = 6) -> str:
        """The first words of one text after the point where they part; empty where it ends there.

        >>> diverge("a b c d", "a b x").next("left"), diverge("a b", "a b x").next("left")
        ('c d', '')
        """
        text = "".join(part.text for part in self.parts if part.kind in ("both", kind))
        return " ".join(text.split()[self.same : self.same + words])


def diverge(left: str, right: str) -> Divergence:
    """Compare two texts.

    >>> found = diverge("the cat sat down", "the cat lay down")
    >>> found.same, [(part.kind, part.text) for part in found.parts], found.agreement
    (2, [('both', 'the cat'), ('left', ' sat'), ('right', ' lay'), ('both', ' down')], 0.75)
    """
    mine, theirs = _WORD.findall(left), _WORD.findall(right)
    a, b = [word.strip() for word in mine], [word.strip() for word in theirs]
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    matcher = SequenceMatcher(None, a[same : same + LONG], b[same : same + LONG], autojunk=False)
    parts, both = [Part("both", "".join(mine[:same]))], same
    for kind, i, j, k, m in matcher.get_opcodes():
        ours, others = "".join(mine[same + i : same + j]), "".join(theirs[same + k : same + m])
        if kind == "equal":
            both += j - i
            parts.append(Part("both", ours))
        else:
            parts += [Part("left", ours), Part("right", others)]
    parts += [Part("left", "".join(mine[same + LONG :])), Part("right", "".join(theirs[same + LONG :]))]
    short = max(len(a), len(b)) <= same + LONG
    return Divergence(same, tuple(part for part in parts if part.text), _share(2 * both, len(a) + len(b)), short)


def _share(part: int, total: int) -> float:
    return part / total if total else 1.0
