"""From a conversation to the text a model reads: what both runtimes do with a chat template, and without one."""

from __future__ import annotations

import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType

import psutil

from ..errors import BadRequest, BrokenFile
from ..tools import Tools, tools_from
from ..types import Message
from .protocol import Request

PLAIN_NOTE = "This model has no chat template; it continues plain text."
NO_TOOLS_NOTE = "The chat template of this model takes no tools; they were left out."
THINKS = re.compile(r"(<think>|\[THINK\])\s*$")
"""Some templates begin the model's thoughts; the answer then begins inside them."""
TEMPLATE_SECONDS = 2.0  # a template is code of the model's author, and a one-line loop can run for hours
LAST_SECONDS = 10.0  # of processor: some loops run in native code, which nothing but the end of the process interrupts
TEMPLATE_BYTES = 1 << 30  # it may take beside what the process has
OTHER_TEMPLATE = "Choose another model, or load it with another chat template."


def plain_prompt(messages: Sequence[Message]) -> str:
    """The text that a model without a chat template continues.

    >>> plain_prompt([Message("system", "A tale."), Message("user", "Once upon a time")])
    'A tale.\\nOnce upon a time'
    """
    return "\n".join(message.content for message in messages if message.content)


def without_specials(messages: Sequence[Message], specials: Iterable[str]) -> tuple[Message, ...]:
    """The messages without the special tokens of the model: typed text must not end a turn or begin another.

    >>> without_specials([Message("user", "a<|e<|end|>nd|>b")], ["<|end|>"])[0].content
    'ab'
    """
    longest_first = sorted(filter(None, specials), key=len, reverse=True)
    if not longest_first:
        return tuple(messages)
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    return tuple(
        replace(
            message,
            content=_strip(pattern, message.content),
            name=_strip(pattern, message.name),
            calls=tuple(
                replace(call, name=_strip(pattern, call.name), arguments=_strip(pattern, call.arguments))
                for call in message.calls
            ),
        )
        for message in messages
    )


def shorter(messages: Sequence[Message], clean: Sequence[Message]) -> int:
    """How many characters were taken out."""
    return sum(len(m.content) for m in messages) - sum(len(m.content) for m in clean)


def _strip(pattern: re.Pattern[str], text: str) -> str:
    while (shorter := pattern.sub("", text)) != text:  # taking one out can join the halves of another
        text = shorter
    return text


def tools_of(request: Request, takes: bool) -> tuple[Tools, list[str]]:
    """The tools of a request as its template is given them, and notes. Raises BadRequest for tools that are none."""
    tools = tools_from(request.params.tools) if request.params.tools is not None else None
    return (tools, []) if takes or not tools else (None, [NO_TOOLS_NOTE])


def opening(end: str) -> str:
    """The tag with which a prompt that ends so has begun the model's thoughts; empty mostly.

    >>> opening("<|im_start|>assistant\\n<think>\\n"), opening("<|im_start|>assistant\\n")
    ('<think>', '')
    """
    found = THINKS.search(end)
    return found[1] if found else ""


def system_folded(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The system text moved into the first user turn, for templates that refuse the system role.

    >>> [m.content for m in system_folded([Message("system", "Be brief."), Message("user", "hi")])]
    ['Be brief.\\n\\nhi']
    """
    system = "\n\n".join(m.content for m in messages if m.role == "system")
    turns = [m for m in messages if m.role != "system"]
    at = next((i for i, m in enumerate(turns) if m.role == "user"), None)
    if at is not None and system:
        turns[at] = replace(turns[at], content=f"{system}\n\n{turns[at].content}")
    return tuple(turns)


def render(template: Callable[[Sequence[Message]], str], messages: Sequence[Message]) -> str:
    """What the model's own template makes of the messages, within two seconds and a gigabyte.

    Where the last message is an answer, the model goes on with it. A template that refuses the system role gets the
    system text inside the first user turn. Raises BadRequest with the template's own words where it refuses the
    conversation, BrokenFile where it does not work at all.
    """
    from jinja2.exceptions import SecurityError, TemplateError  # what both libraries render templates with

    if messages and messages[-1].role == "assistant":
        return render(template, messages[:-1]) + messages[-1].content
    try:
        with time_limit(TEMPLATE_SECONDS), memory_limit(TEMPLATE_BYTES):
            return _folded_if_refused(template, messages)
    except SecurityError as error:
        raise BrokenFile(f"The chat template does what it may not: {error}", hint=OTHER_TEMPLATE) from error
    except MemoryError as error:
        much = "The chat template makes too much text: it takes more than a gigabyte of memory."
        raise BrokenFile(much, hint=OTHER_TEMPLATE) from error
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        if _refuses(error):
            hint = "Start a new chat."
            raise BadRequest(f"The chat template refuses this conversation: {error}", hint=hint) from error
        raise BrokenFile(f"The chat template is broken: {_fault(error)}", hint=OTHER_TEMPLATE) from error


def _folded_if_refused(template: Callable[[Sequence[Message]], str], messages: Sequence[Message]) -> str:
    try:
        return template(messages)
    except Exception as error:
        if not _refuses(error) or not any(m.role == "system" for m in messages):
            raise
        return template(system_folded(messages))


def _refuses(error: BaseException) -> bool:
    """Whether a template raised this on purpose: by the function that both libraries give it, each with its own error.

    >>> def raise_exception(message):
    ...     raise ValueError(message)
    >>> try:
    ...     raise_exception("System role not supported")
    ... except ValueError as error:
    ...     _refuses(error), _refuses(ValueError("of its own"))
    (True, False)
    """
    *_, last = [None, *traceback.walk_tb(error.__traceback__)]
    return last is not None and last[0].f_code.co_name == "raise_exception"


def _fault(error: BaseException) -> str:
    """What is wrong with a template, in one line.

    >>> _fault(ZeroDivisionError("division by zero")), _fault(RecursionError())
    ('ZeroDivisionError: division by zero', 'RecursionError')
    """
    first, _, _ = str(error).partition("\n")  # of a syntax error, the lines below are the template's own
    line = f" in line {number}" if (number := getattr(error, "lineno", None)) else ""
    return f"{type(error).__name__}{line}" + (f": {first}" if first else "")


@contextmanager
def time_limit(seconds: float) -> Generator[None]:
    """Raise BrokenFile in the block once the time is over; end the process with SIGVTALRM where that is not obeyed.

    Needs the main thread, and signals; elsewhere there is no limit.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, _too_slow)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_VIRTUAL, LAST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def memory_limit(room: int) -> Generator[None]:
    """Let the block take `room` bytes and no more: MemoryError. There is no limit where the system knows none."""
    if sys.platform == "win32":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    with suppress(ValueError, OSError):  # above a limit that the process was started with
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _too_slow(number: int, frame: FrameType | None) -> None:
    slow = f"The chat template of this model runs longer than {TEMPLATE_SECONDS:g} s."
    raise BrokenFile(slow, hint=OTHER_TEMPLATE)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens are equal.

    >>> common_prefix([1, 2, 3], [1, 2, 4, 5]), common_prefix([], [1])
    (2, 0)
    """
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
