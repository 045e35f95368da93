"""What a grammar means, and which are refused before anything is asked of a model."""

from __future__ import annotations

import random
import re

import pytest

from multimodel.errors import BadRequest
from multimodel.workers.constraint import Walk
from multimodel.workers.gbnf import LAST, byte_ranges, grammar_from


def matches(grammar: str, text: str) -> bool:
    walk = Walk(grammar_from(grammar))
    return walk.complete(walk.after(walk.start, text.encode()))


@pytest.mark.parametrize(
    ("grammar", "pattern"),
    [
        ('root ::= "ab"', "ab"),
        ('root ::= ""', ""),
        ('root ::= "a" | "b" "c"', "a|bc"),
        ('root ::= "a" ("b" | "c" ("a" | "b"))', "a(b|c(a|b))"),
        ('root ::= "a"* "b"+ "c"?', "a*b+c?"),
        ('root ::= "ab"{2}', "(ab){2}"),
        ('root ::= [abc]{2,} "."', "[abc]{2,}[.]"),
        ('root ::= "a"{0,2} "b"{0} "c"{ 1 , 3 }', "a{0,2}c{1,3}"),
        ("root ::= [a-b] [^a.]", "[ab][^a.]"),
        ("root ::= [a\\-c]", "[a\\-c]"),
        ("root ::= [a-]+", "[a-]+"),
        ('root ::= . "b" .', ".b."),
        ('root ::= ("a" | "b"){2,3}?', "((a|b){2,3})?"),
        ('root ::= item ("," item)* \n item ::= [a-c]', "[a-c](,[a-c])*"),
        ('# first\nroot ::= # why\n  "a"   # because\n  | other\n\nother ::=\n  "b" "c"\n', "a|bc"),
        ('root ::= a-rule_2 | "b"\na-rule_2 ::= "c"', "c|b"),
        ('root ::= "a" | "ab" | "abc" "c"', "a|ab|abcc"),
        ('root ::= ("a" | "a" "b") ("b" | "c")', "(a|ab)(b|c)"),
        ('root ::= "|" ")"', r"\|\)"),
    ],
)
def test_a_grammar_means_what_its_regular_expression_means(grammar: str, pattern: str) -> None:
    """Over all short texts of a few letters."""
    letters = ["", *"abc,.-|)"]
    texts = {a + b + c + d for a in letters for b in letters for c in letters for d in letters}
    found = {text for text in texts if matches(grammar, text)}
    assert found == {text for text in texts if re.fullmatch(pattern, text, re.DOTALL)}


@pytest.mark.parametrize(
    ("grammar", "inside", "outside"),
    [
        ('root ::= "(" root ")" | "x"', ["x", "(x)", "(((x)))"], ["(x", "x)", "()"]),
        ('root ::= "a" root "b" | ""', ["", "ab", "aaabbb"], ["aab", "abab"]),
        ('root ::= e\ne ::= t ("+" t)*\nt ::= [0-9]+ | "(" e ")"', ["1+(2+33)", "(((7)))"], ["1+", "(1", "+1"]),
        (r'root ::= "\x41\u00e9\U0001F600\n\t\r\"\\"', ['Aé😀\n\t\r"\\'], ["Aé😀"]),
        (r"root ::= [\x41-\x43\]\[^]+", ["A]C[B^"], ["D", "\\"]),
        ("root ::= [^\\n]+", ["é", "😀 x", "a\r"], ["\n", "a\nb", ""]),
        ("root ::= [ぁ-ゟ]{2}", ["ひら"], ["ひ", "カタ", "ab"]),
        ("root ::= [é-ü]", ["é", "ü", "ö"], ["è", "ý", "e"]),
        ("root ::= .", ["a", "\n", "é", "漢", "😀", "\U0010ffff"], ["", "ab"]),
        ("root ::= [^a-z]", ["A", "é", "\U0010ffff"], ["a", "z"]),
    ],
)
def test_what_no_regular_expression_says(grammar: str, inside: list[str], outside: list[str]) -> None:
    assert all(matches(grammar, text) for text in inside)
    assert not any(matches(grammar, text) for text in outside)


@pytest.mark.parametrize(
    ("grammar", "says"),
    [
        ("", "no rule called root"),
        ('start ::= "a"', "no rule called root"),
        ("root ::= other", "no rule called other"),
        ('root ::= "a"\nroot ::= "b"', "root is there twice, again in line 2"),
        ('root "a"', "Line 1 should begin with a name"),
        ('"a" ::= "b"', "Line 1"),
        ('root ::= "a', "Line 1"),
        ('root ::= "a"\n\n  & "b"', "Line 3: '& "),
        ('root ::= ("a"', "begins in line 1 is not closed"),
        ('root ::= "a")', r"Line 1"),
        ("root ::= *", "Line 1"),
        ("root ::= [a", "Line 1"),
        ("root ::= [z-a]", "ends before it begins"),
        ('root ::= "a"{3,2}', "ends before it begins"),
        (r'root ::= "\q"', "is no character"),
        (r'root ::= "\ud800"', "is no character"),
        (r'root ::= "\UFFFFFFFF"', "is no character"),
        ("root ::= []", "never comes to an end"),
        ("root ::= <think>", "Line 1"),
        # for ever
        ("root ::= root", "The rule root never comes to an end"),
        ('root ::= "a" root', "The rule root never comes to an end"),
        ('root ::= "a" | b\nb ::= "b" c\nc ::= "c" b', "The rule . never comes to an end"),
        ('root ::= root "a" | "b"', "The rule root can begin with itself"),
        ('root ::= a | "x"\na ::= b "y"\nb ::= root', "can begin with itself"),
        ('root ::= none root "a" | "b"\nnone ::= "n"?', "can begin with itself"),
        ('root ::= ("a"*)*', "A repetition can begin with itself"),
        # too much
        ('root ::= "a"{100000} "b"{100000}', "more than 100000 characters and rules"),
        ('root ::= (("a"{999}){999}){99999}', "more than 100000"),
        ('root ::= "a"{99999999999999999999}', "too often"),
        ("root ::= " + "(" * 20_000, "too deep"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(grammar: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says) as caught:
        grammar_from(grammar)
    assert str(caught.value).startswith("The grammar cannot be used. ") and caught.value.hint


def test_a_long_chain_of_rules_is_read_as_fast_as_it_is_long() -> None:
    rules = [f'r{i} ::= "a" r{i + 1}' for i in range(20_000)]
    assert grammar_from("\n".join(["root ::= r0", *rules, 'r20000 ::= "b"'])).starts


def test_noise_is_refused_or_read_but_nothing_else() -> None:
    chance = random.Random(1)
    parts = [
        "root",
        "::=",
        '"a"',
        "[b-c]",
        "(",
        ")",
        "|",
        "*",
        "{2}",
        "{1,3}",
        "\n",
        "x",
        "#",
        "\\",
        '"',
        ".",
        "é",
        " ",
    ]
    read = 0
    for _ in range(3000):
        try:
            grammar_from("root ::= " + " ".join(chance.choices(parts, k=chance.randrange(8))))
            read += 1
        except BadRequest as refusal:
            assert refusal.hint
    assert 100 < read < 2900


@pytest.mark.parametrize("seed", range(20))
def test_ranges_of_code_points_are_those_of_their_bytes(seed: int) -> None:
    chance = random.Random(seed)
    low, high = sorted(chance.choice([chance.randrange(LAST + 1), chance.randrange(0x900)]) for _ in range(2))
    sequences = list(byte_ranges(low, high))
    codes = {low, high, *(chance.randrange(LAST + 1) for _ in range(300)), *range(max(low - 70, 0), low + 70)}
    for code in codes - set(range(0xD800, 0xE000)):
        form = chr(code).encode()
        hits = [
            s for s in sequences if len(s) == len(form) and all(a <= b <= c for (a, c), b in zip(s, form, strict=True))
        ]
        assert len(hits) == (low <= code <= high)
