"""The chat page in a real Chromium, against a server with a scripted engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import openai_rig
import pytest
from chromium import Chromium, Tab, needs_chromium
from openai_rig import CALL, HERMES_4, House
from server_rig import Running, offer, served

from hermes_cli.server.settings import Key, ServerSettings

pytestmark = needs_chromium

ANSWERS = "document.querySelectorAll('article.assistant .again').length"
MODELS = "document.querySelector('#model').options.length"
ANSWER = "document.querySelector('article.assistant')"
PHONE = {"width": 375, "height": 667, "phone": True}
HOSTILE = """<script>document.title = 'owned'</script>
<img src=x onerror="document.title = 'owned'"> <svg onload="document.title = 'owned'"><iframe src="javascript:1"></iframe>

[script](javascript:document.title='owned') [data](data:text/html,<script>1</script>) [Script](JaVaScRiPt:1)
<javascript:alert(1)> [fine](https://example.org/x) ![picture](http://127.0.0.1:9/tracker.png)

| a | b |
| :-- | --: |
| <b onclick="x()">1</b> | 2 |

```html
<script>document.title = 'owned'</script>
```
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    chromium = Chromium(tmp_path_factory.mktemp("chromium"))
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with openai_rig.house(offer("hermes", known=HERMES_4), offer("other", known=HERMES_4), tools=True) as made:
        yield made


@pytest.fixture
def tab(house: House, browser: Chromium) -> Iterator[Tab]:
    """The page, as soon as it has its list of models."""
    with browser.tab(address(house.running)) as opened:
        ready(opened)
        yield opened


def address(running: Running) -> str:
    return f"http://127.0.0.1:{running.port}/"


def ask(tab: Tab, text: str, answers: int = 1) -> None:
    """Type a question, send it, and wait for the end of its answer."""
    tab.click("#question")
    tab.type(text)
    tab.press("Enter", 13)
    tab.until(f"{ANSWERS} === {answers}")


def ready(tab: Tab) -> None:
    tab.until(f"{MODELS} === 4")


def test_a_question_streams_and_its_conversation_survives_a_reload(house: House, browser: Chromium, tab: Tab) -> None:
    house.says(["<think>", "I greet.", "</think>", "**Hel", "lo**\n\n", "```python\nprint(", "1)\n```"], ["Again"])
    ask(tab, "Hi there")
    assert tab.run(f"{ANSWER}.querySelector('strong').textContent") == "Hello"
    assert tab.run(f"{ANSWER}.querySelector('.code .hljs-built_in').textContent") == "print"
    assert tab.run(f"{ANSWER}.querySelector('details.reasoning').open") is False
    assert tab.run(f"{ANSWER}.querySelector('.reasoning-text').textContent") == "I greet."
    assert "tokens" in tab.run("document.querySelector('.stats').textContent")
    assert "Hello" in tab.run("document.querySelector('#announcer').textContent")
    tab.call("Page.reload")
    tab.until(f"performance.navigation.type === 1 && {ANSWERS} === 1")
    assert tab.run(f"{ANSWER}.querySelector('strong').textContent") == "Hello"
    assert tab.run("document.querySelector('#sessions .open').textContent") == "Hi there"
    ready(tab)
    ask(tab, "And now?", 2)
    prompt = "".join(map(str, house.engine.requests[-1].prompt))
    assert prompt.index("Hi there") < prompt.index("print(1)") < prompt.index("And now?")
    assert browser.events
    assert not tab.complaints()


def test_the_code_goes_to_the_clipboard(house: House, tab: Tab) -> None:
    house.says(["```js\nlet a = '<b>';\n```"])
    tab.run(
        "document.execCommand = () => { window.copied = getSelection().toString() "
        "|| document.activeElement.value; return true }; delete Navigator.prototype.clipboard"
    )
    ask(tab, "Code?")
    tab.click(".copy-code")
    assert tab.until("window.copied") == "let a = '<b>';"
    assert tab.until("document.querySelector('.copy-code').textContent === 'Copied'")


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stop_ends_the_request_and_continue_goes_on(house: House, tab: Tab, how: str) -> None:
    never = asyncio.Event()
    house.says(["Once upon", never], [" a time."])
    tab.click("#question")
    tab.type("A story")
    tab.press("Enter", 13)
    tab.until(f"{ANSWER} && {ANSWER}.innerText.includes('Once upon')")
    assert tab.run(f"{ANSWER}.getAttribute('aria-busy')") == "true"
    if how == "button":
        tab.click("#stop")
    else:
        tab.press("Escape", 27)
    tab.until(f"{ANSWER}.innerText.includes('Stopped.') && {ANSWERS} === 1")
    house.running.logged("/v1/chat/completions 499")
    assert house.engine.cancelled == [0]
    tab.run("[...document.querySelectorAll('.foot button')].find((one) => one.textContent === 'Continue').click()")
    tab.until(f"{ANSWERS} === 1 && {ANSWER}.innerText.includes('Once upon a time.')")
    assert not tab.complaints()


def test_regenerate_and_edit_leave_out_what_came_after(house: House, tab: Tab) -> None:
    house.says(["One"], ["Two"], ["Three"])
    ask(tab, "First")
    tab.click(".again")
    tab.until(f"{ANSWERS} === 1 && {ANSWER}.innerText.includes('Two')")
    tab.press("ArrowUp", 38)
    tab.click("article.user .edit")
    tab.run("document.querySelector('article.user textarea').value = ''")
    tab.click("article.user textarea")
    tab.type("Changed")
    tab.press("Enter", 13)
    tab.until(f"{ANSWERS} === 1 && {ANSWER}.innerText.includes('Three')")
    prompt = "".join(map(str, house.engine.requests[-1].prompt))
    assert "Changed" in prompt
    assert "First" not in prompt
    assert "Two" not in prompt


def test_what_a_model_writes_is_never_run_and_nothing_is_fetched(house: House, browser: Chromium) -> None:
    house.says([HOSTILE[at : at + 5] for at in range(0, len(HOSTILE), 5)])
    with browser.tab(address(house.running)) as tab:
        ready(tab)
        ask(tab, "<img src=x onerror=\"document.title='owned'\">")
        addresses = browser_addresses(tab)
        assert addresses == ["https://example.org/x", "http://127.0.0.1:9/tracker.png"]
        assert not tab.run(f"{ANSWER}.querySelectorAll('script, img, svg, iframe, b, [onclick], [style]').length")
        assert tab.run(f"{ANSWER}.querySelector('.markdown a').rel") == "noopener noreferrer nofollow"
        assert tab.run("document.querySelector('article.user .text').textContent").startswith("<img")
        assert "<script>" in tab.run(f"{ANSWER}.querySelector('.code pre').textContent")
        assert tab.run("document.title") != "owned"
        assert all(asked.startswith(address(house.running)) for asked in tab.requested())


def browser_addresses(tab: Tab) -> list[str]:
    found: list[str] = json.loads(
        tab.run(f"JSON.stringify([...{ANSWER}.querySelectorAll('.markdown a')].map((a) => a.href))")
    )
    return found


def test_huge_answers_stay_usable(house: House, tab: Tab) -> None:
    paragraph = "word *word* " * 80 + "\n\n"
    house.says([paragraph * 12] * 10 + ["x" * 50_000] * 4 + ["**end**"])  # 315 KB, more than is read as Markdown
    ask(tab, "Much")
    assert tab.run(f"{ANSWER}.innerText.endsWith('\\n') || {ANSWER}.innerText.includes('**end**')")
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")
    tab.until("document.querySelector('#scroller').scrollTop > 1000")
    tab.call("Page.reload")
    tab.until(f"performance.navigation.type === 1 && {ANSWERS} === 1 && {ANSWER}.textContent.includes('**end**')")


def test_tools_of_the_server_are_shown(house: House, tab: Tab) -> None:
    house.says([CALL], ["Clear."], ["Still."])
    tab.run(
        "(() => { const model = document.querySelector('#model'); model.value = 'hermes+tools';"
        "model.dispatchEvent(new Event('change')) })()"
    )
    ask(tab, "Weather?")
    assert "get_weather" in tab.run("document.querySelector('.call summary').textContent")
    assert '"Oslo"' in tab.run("document.querySelector('.call pre').textContent")
    ask(tab, "And now?", 2)
    prompt = "".join(map(str, house.engine.requests[-1].prompt))
    assert prompt.index("get_weather") < prompt.index("Clear.") < prompt.index("And now?")


def test_settings_reach_the_model(house: House, tab: Tab) -> None:
    house.says(["Arr"])
    tab.press(",", 188, modifiers=2)
    tab.until("document.querySelector('#settings').open")
    assert tab.until("document.querySelector('[name=temperature]').placeholder")
    tab.run(
        "document.querySelector('[name=system]').value = 'You are a pirate.';"
        "document.querySelector('[name=temperature]').value = '0.25';"
        "document.querySelector('[name=max_tokens]').value = '77'"
    )
    tab.click("#settings .primary")
    tab.until("localStorage.getItem('hermes.defaults')?.includes('pirate')")  # taken over, after the dialog is gone
    ask(tab, "Hi")
    (request,) = house.engine.requests
    assert "You are a pirate." in "".join(map(str, request.prompt))
    assert (request.sampling.temperature, request.max_tokens) == (0.25, 77)


def test_a_server_with_a_key_asks_for_it_once(browser: Chromium) -> None:
    with (
        served(ServerSettings(keys=(Key("alice", "right-key-%2f-€"),))) as running,
        browser.tab(address(running)) as tab,
    ):
        for key in ("wrong-key", "right-key-%2f-€"):
            tab.until("document.querySelector('#ask-key').open && document.activeElement.id === 'typed-key'")
            tab.type(key)
            tab.press("Enter", 13)
            tab.until("document.querySelector('#typed-key').value === ''")
        tab.until(f"{MODELS} === 1")
        assert "right-key" not in tab.run("document.documentElement.outerHTML + location.href + document.cookie")
        tab.call("Page.reload")
        tab.until(f"performance.navigation.type === 1 && {MODELS} === 1")


def test_a_server_that_has_gone_is_said_and_the_question_stays(browser: Chromium) -> None:
    with served() as running, browser.tab(address(running)) as tab:
        tab.until(f"{MODELS} === 1")
        tab.call("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
        ask(tab, "Are you there?")
        assert "does not answer" in tab.run(f"{ANSWER}.innerText")
        assert "Are you there?" in tab.run("document.querySelector('article.user').innerText")
        tab.call(
            "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )
        tab.click(".again")
        tab.until(f"{ANSWERS} === 1 && {ANSWER}.innerText.includes('hi')")
        browser.events.clear()


def test_a_phone_s_width(house: House, browser: Chromium) -> None:
    house.says(["A wide line:\n\n```\n" + "x" * 400 + "\n```\n\n| " + "column | " * 30 + "\n| " + "--- | " * 30 + "\n"])
    with browser.tab(address(house.running), **PHONE) as tab:  # type: ignore[arg-type]
        ready(tab)
        tab.run("document.querySelector('#question').value = 'Hi'")
        tab.click("#send")
        tab.until(f"{ANSWERS} === 1")
        assert tab.run("document.documentElement.scrollWidth") == 375
        assert tab.run("document.querySelector('#scroller').scrollWidth <= 375")
        assert tab.run("getComputedStyle(document.querySelector('#sidebar')).display") == "none"
        tab.click("#open-sidebar")
        tab.until("document.querySelector('#sidebar').getBoundingClientRect().width > 200")
        tab.press("Escape", 27)
        tab.until("getComputedStyle(document.querySelector('#sidebar')).display === 'none'")


def test_every_control_has_a_name(house: House, tab: Tab) -> None:
    """As a screen reader gets it, from the browser's accessibility tree."""
    house.says(["A [link](https://example.org) and `code`.\n\n```\ncode\n```"])
    ask(tab, "Hi")
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "combobox", "tab", "link", "article", "region", "tabpanel"}
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in roles
    ]
    assert len(named) > 12
    assert not [role for role, name in named if not name]
    assert ("textbox", "Your message") in named
    assert ("combobox", "Model") in named
    assert ("article", "You") in named


def test_the_second_tab_tells_what_runs(house: House, tab: Tab) -> None:
    never = asyncio.Event()
    house.says(["Working ", never])
    tab.click("#question")
    tab.type("Work")
    tab.press("Enter", 13)
    tab.until(f"{ANSWER} && {ANSWER}.innerText.includes('Working')")
    tab.click("#tab-server")
    tab.until("document.querySelectorAll('.card').length === 2")
    text = tab.until(
        "document.querySelector('#server').innerText.includes('1 of 4 at once')"
        " && document.querySelector('#server').innerText"
    )
    assert "1 tokens written" in text
    tab.until("/[0-9.]+ tokens\\/s/.test(document.querySelector('#server').innerText)")
    tab.press("Escape", 27)
    tab.until("document.querySelector('#server').innerText.includes('0 of 4 at once')")


def test_conversations_can_be_renamed_saved_and_deleted(house: House, tab: Tab) -> None:
    house.says(["**One**"])
    ask(tab, "First")
    tab.run("window.prompt = (_, before) => `${before} question`; document.querySelector('#sessions .rename').click()")
    tab.until("document.querySelector('#announcer').innerText === 'Renamed.'")
    tab.call("Page.reload")
    tab.until(f"performance.navigation.type === 1 && {ANSWERS} === 1 && {MODELS} === 4")
    assert tab.run("document.querySelector('#sessions .open').innerText") == "First question"
    tab.run("URL.createObjectURL = (blob) => { window.saved = blob.text(); return 'page/icon.svg' }")
    tab.click("#export-markdown")
    assert tab.run("window.saved") == "# First question\n\n## You\n\nFirst\n\n## hermes\n\n**One**\n"
    tab.click("#export-json")
    assert json.loads(tab.run("window.saved"))["messages"][1]["parts"] == [{"type": "text", "text": "**One**"}]
    tab.press("O", 79, modifiers=10)
    tab.until("document.querySelectorAll('article').length === 0")
    assert tab.run("document.querySelectorAll('#sessions li').length") == 1
    tab.run("window.confirm = () => true; document.querySelector('#sessions .remove').click()")
    tab.until("document.querySelector('#announcer').innerText === 'Deleted.'")
    tab.call("Page.reload")
    tab.until(f"performance.navigation.type === 1 && !{ANSWERS} && {MODELS} === 4")
    assert tab.run("document.querySelectorAll('#sessions li').length") == 0


OPENAI_SHAPE = {
    "system": "Be brief.",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the weather?"},
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "I ask.",
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "a", "content": "rainy"},
        {"role": "assistant", "content": "It is **rainy**. <img src=x onerror=\"document.title='owned'\">"},
    ],
}


def opened(tab: Tab, *documents: object) -> None:
    """Choose files with these documents, as a person does."""
    tab.run(
        "(() => { const chosen = new DataTransfer();"
        f"for (const text of {json.dumps([json.dumps(document) for document in documents])})"
        " chosen.items.add(new File([text], 'talk.json'));"
        "const field = document.querySelector('#import-files'); field.files = chosen.files;"
        "field.dispatchEvent(new Event('change')) })()"
    )


def test_saved_conversations_are_opened_again(house: House, tab: Tab) -> None:
    house.says(["**One**"], ["Two"])
    ask(tab, "First question")
    tab.run("URL.createObjectURL = (blob) => { window.saved = blob.text(); return 'page/icon.svg' }")
    tab.click("#export-json")
    saved = json.loads(tab.run("window.saved"))
    opened(tab, saved)
    tab.until("document.querySelectorAll('#sessions li').length === 2")
    assert tab.run(f"{ANSWER}.querySelector('strong').innerText") == "One"
    ask(tab, "Another", 2)
    opened(tab, OPENAI_SHAPE)
    tab.until("document.querySelectorAll('#sessions li').length === 3")
    text = tab.run(f"{ANSWER}.innerText")
    assert "get_weather done" in text
    assert "It is rainy." in text
    assert tab.run("document.title").startswith("What is the weather?")


def test_other_files_are_refused(tab: Tab) -> None:
    for document in ({}, [1, {"role": "user"}], {"messages": "x"}):
        tab.run("document.querySelector('#trouble').innerText = ''")
        opened(tab, document)
        tab.until("document.querySelector('#trouble').innerText.includes('holds no conversation')")
    assert tab.run("document.querySelectorAll('#sessions li').length") == 0
