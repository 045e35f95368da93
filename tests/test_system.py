"""The System tab: what it says of devices and models, and that it looks only while it is open."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from typing import Any

import pytest

from multimodel.hardware import Device, cores
from multimodel.memory.plan import LEAST_ERROR, MemoryPlan, Request, Term
from multimodel.pool import Resident
from multimodel.types import LoadOptions, ModelId, ModelSpec
from multimodel.workers.protocol import Facts, Status
from tabs.format import counted, size, variations
from tabs.system import Machine, system_html

from .serving import Server, app, chromium, ended
from .support import GUIDE_GGUF, eventually, needs, needs_browser

GB = 10**9
CPU = Device("cpu", "A processor", 16 * GB, 10 * GB, "float32", "float32: no shorter format is known to be quicker")
MACHINE = Machine((CPU,), {"cpu": 9 * GB}, cores=8, shared=7, idle_minutes=15.0)
FACTS = Facts(1024, "cpu", "Q8_0", 4_000_000, "own", 100, slots=8)
IDLE = Resident(
    key="abc",
    spec=ModelSpec(ModelId("gguf", "owner/model:Q8_0"), LoadOptions(context_length=1024)),
    state="idle",
    predicted=3 * GB,
    measured=2 * GB,
    taken=3 * GB,
    device="cpu",
    facts=FACTS,
    status=Status(answering=0, waiting=0, threads=2, cached_tokens=1200, prompt_tokens=200, reused_tokens=50),
    idle=185.0,
)


def words(html: str) -> str:
    """The text as a person reads it."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def test_a_device_with_what_is_free_who_has_the_rest_and_the_reason_for_its_format() -> None:
    said = words(system_html(MACHINE, [IDLE]))
    assert "CPU A processor 9.0 GB of 16.0 GB free models 3.0 GB everything else 4.0 GB" in said
    assert "float32: no shorter format is known to be quicker" in said
    assert "8 processor cores. The models that answer share 7; the page keeps 1." in said
    assert "nobody has asked it for 15 minutes" in said
    assert "nobody has asked it for 20 seconds" in words(system_html(replace(MACHINE, idle_minutes=1 / 3), [IDLE]))


def test_a_model_that_is_idle() -> None:
    said = words(system_html(MACHINE, [IDLE]))
    assert "model:Q8_0 GGUF, Q8_0, 1,024 tokens of context, CPU" in said
    assert "Idle for 3 min 2.0 GB 3.0 GB predicted – 0 of up to 8 1,200 tokens held 25% of prompt tokens reused" in said
    assert said.count("Unload") == 1


def test_the_device_counts_each_model_for_the_larger_of_its_two_figures() -> None:
    assert "models 3.5 GB" in words(system_html(MACHINE, [replace(IDLE, measured=7 * GB // 2)]))
    gpu = replace(MACHINE, devices=(replace(CPU, kind="cuda"),), spare={"cuda": 9 * GB})
    there = replace(IDLE, device="cuda", measured=7 * GB // 2)  # of the processor's memory
    assert "models 3.0 GB" in words(system_html(gpu, [there]))


def test_a_load_is_planned_with_the_margin_that_a_refusal_counts() -> None:
    plan = MemoryPlan(model="m", request=Request(), terms=(Term("weights", 315_600_000, "exact", "the file"),))
    assert plan.margin == LEAST_ERROR
    assert f"(2%, at least {size(plan.margin)})" in words(system_html(MACHINE, [IDLE]))


def test_a_model_that_answers() -> None:
    status = Status(answering=8, waiting=3, threads=1, cached_tokens=1)
    said = words(system_html(MACHINE, [replace(IDLE, state="answering", status=status)]))
    assert "Answering 2.0 GB 3.0 GB predicted 1 8 of up to 8 3 waiting 1 token held Stop and unload" in said


def test_a_model_that_is_being_loaded() -> None:
    said = words(system_html(MACHINE, [replace(IDLE, state="loading", facts=None, status=None, measured=0)]))
    assert "model:Q8_0 GGUF, 1,024 tokens of context Loading – 3.0 GB predicted – – – Unload" in said


def test_no_model_and_models_that_stay() -> None:
    said = words(system_html(replace(MACHINE, idle_minutes=0.0, cores=7), []))
    assert "None. A model on this machine is loaded by the first question to it." in said
    assert "Models stay until another needs their room." in said
    assert "the page keeps" not in said


def test_a_name_cannot_be_markup() -> None:
    spec = ModelSpec(ModelId("gguf", "<img src=x onerror=alert(1)>\"'"))
    assert "<img" not in system_html(MACHINE, [replace(IDLE, spec=spec, key='"><script>')])
    assert "<script" not in system_html(MACHINE, [replace(IDLE, spec=spec, key='"><script>')])


def test_every_way_to_load_is_told() -> None:
    silent = {"device", "rope_factor", "sequences", "anyway"}
    options: dict[str, Any] = {
        **{
            "dtype": "int4",
            "context_length": 9,
            "kv_type": "q8_0",
            "gpu_layers": 3,
            "flash_attention": True,
            "revision": "v1",
            "adapter": "a/b.gguf",
        },
        **{"adapter_scale": 0.5, "chat_template": "x", "rope_scaling": "yarn", "rope_factor": 2.0},
    }
    assert set(LoadOptions.__dataclass_fields__) == set(options) | silent
    assert len(variations(LoadOptions(**options))) == len(options) - 1


def test_what_the_facts_tell_is_not_told_twice() -> None:
    spec = replace(IDLE.spec, load=LoadOptions(context_length=1024))
    assert words(system_html(MACHINE, [replace(IDLE, spec=spec)])).count("1,024 tokens") == 1


# in the browser


@pytest.fixture
def no_leaks() -> None:
    """App and browser live as long as this module; `serving` and playwright see to their ends."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("app")
    settings = {"MULTIMODEL_COLUMNS": ["gguf:guide"]}
    size = {"width": 1440, "height": 900}
    with app(folder, **settings) as server, chromium() as browser, browser.new_context(viewport=size) as context:
        page = context.new_page()
        page.set_default_timeout(90_000)
        page.server, page.errors, page.asked = server, [], []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("request", lambda request: page.asked.append(time.monotonic()))
        page.goto(server.url)
        page.wait_for_selector(".mm-column")
        yield page
        assert not page.errors


def workers(server: Server) -> list[Any]:
    return [child for child in server.children() if "multimodel.workers" in " ".join(child.cmdline())]


@pytest.mark.browser
@needs_browser
@needs("playwright", "llama_cpp")
@pytest.mark.skipif(not GUIDE_GGUF.exists(), reason="needs assets/guide/guide-q8_0.gguf")
def test_it_shows_what_goes_on_and_unloads_by_hand(page: Any) -> None:
    tab, models = page.get_by_role("tab", name="System"), page.locator(".mm-sys-models tbody tr")
    page.wait_for_selector(".mm-chip:not([title='Looking for a GPU'])")
    machine = f"CPU, {counted(cores(), 'core')}, "  # however many are for models
    assert page.locator(".mm-chip").inner_text().startswith(machine)
    read_long_ago(page)
    tab.click()
    page.get_by_text("None. A model on this machine").wait_for()
    chip_and_tab = "[document.querySelector('.mm-chip'), document.querySelector('.mm-sys-free')]"
    chip, free = page.evaluate(f"{chip_and_tab}.map((shown) => shown.textContent)")
    assert chip == machine + free
    page.get_by_role("tab", name="Chat", exact=True).click()
    read_long_ago(page)
    page.locator("#mm-prompt textarea").fill("What is a token?")
    page.locator("#mm-prompt textarea").press("Enter")
    page.wait_for_selector(".mm-turn .mm-figures")
    page.wait_for_selector(".mm-chip:not(:text('1 B of 2 B free'))")
    tab.click()
    page.locator(".mm-sys-idle").wait_for()
    assert models.count() == 1
    assert re.search(r"guide.*Idle.*MB.*predicted.*tokens held", models.inner_text(), re.DOTALL)
    (worker,) = workers(page.server)
    models.get_by_role("button", name="Unload guide").click()
    page.get_by_text("None. A model on this machine").wait_for()
    assert ended(worker)
    quiet_while_closed(page)
    tab.click()  # on a telephone it is behind the tabs' own menu
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def read_long_ago(page: Any) -> None:
    """The chip in the page's head says nothing of today."""
    page.evaluate("window.mmFree('1 B of 2 B free')")


def quiet_while_closed(page: Any) -> None:
    """Another tab is open: the page asks for nothing any more."""
    page.get_by_role("tab", name="Chat", exact=True).click()
    page.wait_for_timeout(500)
    eventually(lambda: page.wait_for_timeout(100) or time.monotonic() - page.asked[-1] > 5)
