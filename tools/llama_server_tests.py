"""Runs llama.cpp's own server tests against `hermes serve`, and says of each that fails why.

    python tools/llama_server_tests.py ~/src/llama.cpp              # all of them, and a table
    python tools/llama_server_tests.py ~/src/llama.cpp -k tokenize  # what follows the tree goes to pytest

The tests (tools/server/tests/unit of a llama.cpp tree) are copied, and EDITS takes out of the copy what holds for their
tiny model alone: its texts and its numbers of tokens. Their handle of a process starts `hermes serve demo`, or a tiny
BERT for embeddings. What needs a model or a feature that is not here is left out by WITHOUT, and KNOWN has the reason
for each other failure; any that it does not name, or that passes now, makes the exit code 1. Those marked slow fetch
models of gigabytes, and are not run, nor those of test_vision_api.py, which fetch pictures.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shutil
import subprocess
import sys
import tempfile
import types
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import tiny_bert  # needs the folder of the tests

START = 120.0  # seconds in which a server has to be ready
KEPT = 3  # servers that are kept for the next test with the same options
CONTEXT = 1024  # tokens of the demo model
LIBRARY = ("/chat/completions", "/embeddings", "/models", "/responses")  # here they are below /v1 alone
# What the model says where a grammar does not leave it a choice; other texts are those of another model.
CONSTRAINED = ('"42"', "[ -3000 ]", '"foooooo"', "(\\{|John)+", "a{5,5}")
REPOSITORY = "ggml-org/test-model-stories260K"  # of the model whose place the demo model takes

# Files: patterns of lines, and what stands in their place.
EDITS = {
    "utils.py": [
        (r"assert len\(choice\['delta'\]\['content'\]\) > 0.*", "pass  # as OpenAI's, the first one is empty"),
    ],
    "*.py": [
        (r"assert .* == (n_prompt|n_predicted|n_cache|n_tokens|n_token_output|2 \* 9|n_predict|226|96)$", "pass"),
        (r"assert .*system_fingerprint.*startswith\(.b.\).*", "pass"),
        (r'(assert .*delta"?\]?.*content"?\]?) is None', r'\1 in (None, "")'),
        (r'(assert .*finish_reason.*) == (finish_reason|"length")$', r'\1 in ("stop", "length")'),
        (r'assert data\["stop_type"\] == "limit"', 'assert data["stop_type"] in ("limit", "eos")'),
        (r'assert "content" not in choice\["delta"\]', "pass  # the text of their model"),
        (r'(assert .* ==) "<s> " \+ ', r"\1 "),
        (r"assert len\(res.body\[.content.\]\) > 10", "pass  # the text of their model"),
        (r'assert (res\.body\["model"\]|data\["model"\]) == .*', "pass"),
    ],
}

# What a test sets on its server, and why it is left out.
WITHOUT = {
    "lora_files": "adapters are set by `--lora` of chat, not by requests",
    "mmproj_url": "images are not read",
    "media_path": "images are not read",
    "server_reranking": "no reranking",
    "models_dir": "several models are named in a file, not found in a folder",
    "models_preset": "several models are named in a file",
    "slot_save_path": "`--prefix-cache` keeps prompts by itself",
    "sleep_idle_seconds": "`--keep-alive` unloads idle models",
    "spec_type": "a draft model of their own; tests/engine/embedded has these",
    "ui_mcp_proxy": "no proxy for pages",
    "server_tools": "tools of the server are MCP servers (`--mcp`)",
    "mcp_servers_config": "tools of the server are named by `--mcp`",
    "mcp_servers_json": "tools of the server are named by `--mcp`",
    "gcp_compat": "no routes of Google's Vertex AI",
    "enable_ctx_shift": "a conversation is never cut silently",
    "backend_sampling": "no sampling on the GPU",
    "cors_origins": "`--cors` names whole origins, and `localhost` is none",
    "chat_template": "templates are files; there are no built-in names",
    "cache_ram": "no second cache in RAM",
}

# Tests that fail, by a pattern of their names, and why.
_NAMES = "metrics have names of their own (`hermes_…`), and are always on"
_VERBOSE = "`__verbose` would show prompts; /apply-template does"
_PROGRESS = "`return_progress` is told in `warnings`, and not honoured"
_TEMPLATE = "a template without a switch for reasoning, or for another model"
_CORS = "no page may ask unless `--cors` names it"
KNOWN = {
    "test_basic.py::test_server_multiple_addresses": "one address",
    "test_basic.py::test_server_props": "no seed on the command line",
    "test_basic.py::test_server_models": "the id is the model's name; aliases stand beside it",
    "test_basic.py::test_server_model_aliases_and_tags": "the id is the model's name; no tags",
    "test_basic.py::test_server_slots": "/slots is always on, and shows no prompt",
    "test_basic.py::test_no_ui": "the page is for browsers (`Accept: text/html`)",
    "test_chat_completion.py::test_chat_template_*": _VERBOSE,
    "test_chat_completion.py::test_verbose_debug": _VERBOSE,
    "test_chat_completion.py::test_invalid_chat_completion_req[[]messages7]": "two turns of the assistant are taken",
    "test_chat_completion.py::test_context_size_exceeded*": "the error is worded and typed as vLLM's",
    "test_chat_completion.py::test_return_progress*": _PROGRESS,
    "test_compat_anthropic.py::test_anthropic_empty_messages": "no messages are 400, as Anthropic has it",
    "test_compat_anthropic.py::test_anthropic_vision_format_accepted": "an image is 400, not 500",
    "test_compat_anthropic.py::*with_image": "images in results become a line of text",
    "test_compat_oai_responses.py::*telemetry": _PROGRESS,
    "test_completion.py::test_completion_stream[[]*": "`tokens` only if `return_tokens` asks for them",
    "test_completion.py::test_n_probs_post_sampling": "probabilities are the model's, before any sampler",
    "test_completion.py::test_logit_bias[[]False*": "biases are for token ids, not for texts",
    "test_ctx_shift.py::*short_prompt[[]-1*": "their model never ends its text",
    "test_ctx_shift.py::*long_prompt": "the error is worded as vLLM's",
    "test_ctx_shift.py::*stream": "their model never ends its text",
    "test_embedding.py::test_embedding_mixed_input[[]input[37]*": "texts and token ids are not mixed in one text",
    "test_embedding.py::*pooling_none*": "one vector for each text",
    "test_embedding.py::*too_long": "the error is worded as vLLM's",
    "test_ignore_eos.py::*": "`generation_settings` show no biases",
    "test_metrics.py::test_metrics_generation_rate*": "rates have three digits",
    "test_metrics.py::test_metrics_timings_on_prompt_progress": _PROGRESS,
    "test_metrics.py::*": _NAMES,
    "test_proxy.py::test_mcp_no_proxy": "no proxy for pages",
    "test_security.py::test_access_static_assets*": "the page is for browsers (`Accept: text/html`)",
    "test_security.py::test_openai_library*": "without `/v1` a 404 says the right address",
    "test_security.py::test_cors_options*": _CORS,
    "test_template.py::test_reasoning*": _TEMPLATE,
    "test_template.py::test_date_inside_prompt*": "a variable that transformers does not give either (`datetime`)",
    "test_tokenize.py::test_tokenize_with_bos": "the number of their model's BOS",
}


class Servers:
    """`hermes serve` processes by their arguments, the last ones used last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: dict[tuple[str, ...], tuple[subprocess.Popen[str], int]] = {}

    def port(self, arguments: tuple[str, ...]) -> int:
        """Return the port of a server that was started with these arguments; start one if there is none."""
        server = self._running.pop(arguments, None)
        if server is None or server[0].poll() is not None:
            server = self._start(arguments)
        self._running[arguments] = server
        while len(self._running) > KEPT:
            self._end(self._running.pop(next(iter(self._running)))[0])
        return server[1]

    def model(self, pooling: str | None) -> str:
        """Return the path of a model for embeddings."""
        path = self._folder / f"bert-{pooling}.gguf"
        if not path.exists():
            tiny_bert.CONTEXT = 512
            tiny_bert.write_tiny_bert(path, pooling)
        return str(path)

    def close(self) -> None:
        """End all."""
        for process, _ in self._running.values():
            self._end(process)

    def _start(self, arguments: tuple[str, ...]) -> tuple[subprocess.Popen[str], int]:
        command = [sys.executable, "-m", "hermes_cli", "serve", "--port", "0", "--quiet", *arguments]
        with (self._folder / "server.log").open("a") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        address = process.stdout.readline() if process.stdout else ""
        if not (port := re.search(r":(\d+)", address)):
            process.wait(START)
            lines = (self._folder / "server.log").read_text().splitlines()
            raise RuntimeError("\n".join(["hermes serve does not start:", *command, *lines[-5:]]))
        return process, int(port[1])

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        process.terminate()
        process.wait(START)


def adapt(utils: Any, servers: Servers) -> None:  # noqa: ANN401 - a module of theirs
    """Put `hermes serve` in the place of llama-server in a copy of llama.cpp's utils.py."""
    server_class = utils.ServerProcess
    make_request, make_stream_request = server_class.make_request, server_class.make_stream_request

    def start(self: Any, **_: object) -> None:  # noqa: ANN401
        for name, why in WITHOUT.items():
            if getattr(self, name):
                pytest.skip(why)
        if self.model_hf_repo != REPOSITORY and not self.server_embeddings:
            pytest.skip("needs a model of its own" if self.model_hf_repo else "a router of several models")
        slots = self.n_slots or 4
        context = min((self.n_ctx or CONTEXT) // (1 if self.kv_unified else slots), CONTEXT)
        named = [
            *(word for name in (*(self.model_alias or "").split(","), "*") for word in ("--alias", name)),
            "--slots",
            str(slots),
            "--context",
            str(context),
        ]
        named += ["--batch", str(max(self.n_batch, 32))] if self.n_batch else []
        named += ["--api-key", self.api_key] if self.api_key else []
        named += ["--template", str(Path(self.chat_template_file).resolve())] if self.chat_template_file else []
        named += {"on": ["--think"], "off": ["--no-think"]}.get(self.reasoning, [])
        model = servers.model(self.pooling) if self.server_embeddings else "demo"
        self.server_port = servers.port((model, *named))
        self.ready = True

    def make_url(self: Any, path: str, host: str | None = None) -> str:  # noqa: ANN401
        below = "/v1" if path.startswith(LIBRARY) and not path.startswith("/models/") else ""
        path = "/completion" if path == "/completions" else path
        return f"http://{(host or self.server_host).split(',')[0]}:{self.server_port}{below}{path}"

    def with_defaults(self: Any, data: Any) -> Any:  # noqa: ANN401 - of the command line of llama-server
        if not isinstance(data, dict) or not data.keys() & {"prompt", "messages"}:
            return data
        limits = {"n_predict", "max_tokens"}
        wanted = {"seed": self.seed, "temperature": self.temperature}
        return wanted | ({} if data.keys() & limits else {"n_predict": self.n_predict}) | data

    server_class.start, server_class.stop, server_class.make_url = start, lambda _: None, make_url
    server_class.make_request = lambda self, method, path, data=None, *more, **named: make_request(
        self, method, path, with_defaults(self, data), *more, **named
    )
    server_class.make_stream_request = lambda self, method, path, data=None, *more, **named: make_stream_request(
        self, method, path, with_defaults(self, data), *more, **named
    )
    utils.ServerPreset.load_all = staticmethod(lambda: None)
    utils.download_file = lambda *_: pytest.skip("needs a model of its own")
    match = utils.match_regex
    utils.match_regex = lambda regex, text: match(regex, text) if regex in CONSTRAINED else isinstance(text, str)


class Report:
    """A pytest plugin that collects what became of each test."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.reasons: Counter[tuple[str, str]] = Counter()  # by file and reason
        self.surprises: list[str] = []
        self.failed: dict[str, int] = {}  # by the pattern of KNOWN that fits

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a test."""
        if report.when != "call" and report.passed:
            return
        name = report.nodeid.removeprefix("unit/")
        pattern = next((pattern for pattern in KNOWN if fnmatchcase(name, pattern)), "")
        self.failed.setdefault(pattern, 0)
        self.failed[pattern] += report.failed
        self.outcomes[name] = report.outcome
        file = name.partition("::")[0]
        if report.skipped and isinstance(report.longrepr, tuple):
            self.reasons[file, report.longrepr[2].removeprefix("Skipped: ")] += 1
        elif report.failed and pattern:
            self.reasons[file, KNOWN[pattern]] += 1
        elif report.failed:
            self.surprises.append(f"{name}\n    {_last_line(report)}")

    def show(self) -> None:
        """Print the table and what is not in it."""
        needless = [pattern for pattern, count in self.failed.items() if pattern and not count]
        self.surprises += [f"{pattern}: all pass; take it out of KNOWN" for pattern in needless]
        files = sorted({name.partition("::")[0] for name in self.outcomes})
        print("\n| file | passed | failed | left out | why not |\n| --- | ---: | ---: | ---: | --- |")
        for file in files:
            counted = Counter(outcome for name, outcome in self.outcomes.items() if name.startswith(f"{file}::"))
            why = "; ".join(f"{count} {reason}" for (of, reason), count in self.reasons.items() if of == file)
            print(f"| {file} | {counted['passed']} | {counted['failed']} | {counted['skipped']} | {why} |")
        total = Counter(self.outcomes.values())
        print(f"| together | {total['passed']} | {total['failed']} | {total['skipped']} | |")
        print("\n".join(["", *self.surprises]))


def _last_line(report: pytest.TestReport) -> str:
    lines = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
    return lines[0][:200] if lines else report.longreprtext[-200:]


def copied(tree: Path, folder: Path) -> Path:
    """Copy the tests of a tree with EDITS, beside the templates that they read; return the folder with `unit`."""
    tests = folder / "tools" / "server" / "tests"
    shutil.copytree(tree / "tools" / "server" / "tests", tests)
    shutil.copytree(tree / "models" / "templates", folder / "models" / "templates")
    (tests / "tmp").mkdir()
    for pattern, edits in EDITS.items():
        for path in tests.rglob(pattern):
            path.write_text("\n".join(_edited(line, edits) for line in path.read_text().splitlines()) + "\n")
    return tests


def _edited(line: str, edits: list[tuple[str, str]]) -> str:
    code = line.lstrip()
    for pattern, instead in edits:
        code = re.sub(f"^{pattern}", instead, code)
    return line[: len(line) - len(line.lstrip())] + code


def main() -> int:
    """Run the tests; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tree", type=Path, help="the folder of llama.cpp")
    options, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        tests = copied(options.tree.expanduser().resolve(), Path(folder).resolve())
        sys.path[:0] = [str(tests)]
        sys.modules["wget"] = types.ModuleType("wget")  # of which they need nothing here
        servers, report = Servers(Path(folder)), Report()
        adapt(importlib.import_module("utils"), servers)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tests)
            try:
                usual = ["-q", "-m", "not slow", "-p", "no:cacheprovider", "--tb=short"]
                pytest.main([*usual, "unit", "--ignore=unit/test_vision_api.py", *more], [report])
            finally:
                servers.close()
    report.show()
    return 1 if report.surprises or not report.outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
