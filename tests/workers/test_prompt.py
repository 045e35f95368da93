"""A chat template is code of a stranger: it may take two seconds and a gigabyte, and not the process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import pytest

from multimodel.errors import BadRequest, BrokenFile
from multimodel.types import Message
from multimodel.workers import prompt
from multimodel.workers.prompt import render

from ..support import ROOT, needs

pytestmark = [needs("jinja2"), pytest.mark.skipif(sys.platform == "win32", reason="needs signals")]

resource = pytest.importorskip("resource")

ASK = [Message("user", "hello")]


def template(text: str) -> Callable[[Sequence[Message]], str]:
    """What both libraries do with the template of a model."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return lambda messages: ImmutableSandboxedEnvironment().from_string(text).render(messages=messages, **GIVEN)


def raise_exception(message: str) -> None:
    """What templates refuse a conversation by: a ValueError in the one library, a TemplateError in the other."""
    raise ValueError(message)


GIVEN = {"raise_exception": raise_exception}


LOOPS = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% set ns = namespace(x=3) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "{% macro again() %}{{ again() }}{{ again() }}{% endmacro %}{{ again() }}",
]


@pytest.mark.parametrize("text", LOOPS)
def test_one_that_loops_is_ended_and_nothing_of_its_limits_stays(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt, "TEMPLATE_SECONDS", 0.2)
    before = signal.getsignal(signal.SIGALRM), resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(BrokenFile, match="template") as caught:
        render(template(text), ASK)
    assert caught.value.hint
    assert (signal.getsignal(signal.SIGALRM), resource.getrlimit(resource.RLIMIT_AS)) == before
    assert signal.getitimer(signal.ITIMER_REAL) == signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert render(template("{{ messages[0].content }}"), ASK) == "hello"


@pytest.mark.parametrize("text", ["{{ 'A' * 3000000000 }}", "{{ (range(99999) | list * 9999) | length }}"])
def test_one_that_wants_all_memory_gets_none_of_it(text: str) -> None:
    with pytest.raises(BrokenFile, match=r"^The chat template makes too much text: it takes more than a gigabyte"):
        render(template(text), ASK)


UNSTOPPABLE = """
import sys
from multimodel.types import Message
from multimodel.workers import prompt
from multimodel.workers.prompt import render
prompt.TEMPLATE_SECONDS, prompt.LAST_SECONDS = 0.1, 0.4
pair = (1, 2)
for _ in range(60):
    pair = (pair, pair)  # the hash of it takes for ever, in native code
render(lambda messages: str(hash(pair)), [Message("user", "x")])
"""


def test_one_that_nothing_interrupts_ends_its_process() -> None:
    done = subprocess.run([sys.executable, "-c", UNSTOPPABLE], cwd=ROOT, timeout=60)
    assert done.returncode == -signal.SIGVTALRM


def test_the_limit_is_of_one_run_not_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt, "TEMPLATE_SECONDS", 0.3)
    for _ in range(4):
        assert render(lambda messages: time.sleep(0.1) or "done", ASK) == "done"


def test_what_a_template_refuses_is_told_in_its_words_after_the_system_text_was_folded() -> None:
    refused: list[int] = []

    def alternating(messages: Sequence[Message]) -> str:
        refused.append(len(messages))
        return template("{{ raise_exception('roles must alternate') }}")(messages)

    with pytest.raises(BadRequest, match=r"refuses this conversation: roles must alternate$") as caught:
        render(alternating, [Message("system", "Be brief."), *ASK])
    assert refused == [2, 1] and caught.value.hint == "Start a new chat."


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{% for m in messages %}\n{% endif %}", "TemplateSyntaxError in line 2: .*unknown tag 'endif'"),
        ("{{ messages | nonesuch }}", "TemplateAssertionError in line 1: No filter named 'nonesuch'"),
        ("{{ nonesuch.name }}", "UndefinedError: 'nonesuch' is undefined$"),
        ("{{ range(1, 2, 0) }}", r"ValueError: range\(\) arg 3 must not be zero$"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero$"),
    ],
)
def test_one_that_is_broken_is_said_to_be_and_another_template_helps(text: str, says: str) -> None:
    with pytest.raises(BrokenFile, match=f"^The chat template is broken: {says}") as caught:
        render(template(text), ASK)
    assert "\n" not in str(caught.value) and "another chat template" in caught.value.hint
