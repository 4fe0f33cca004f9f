"""What a log tells of a start; the lines are those of real engines."""

from __future__ import annotations

import pytest

from hermes_cli.engine.upstream.engine_log import hint, progress, root_cause

VLLM_MEMORY = """\
INFO 11-30 18:00:00 [api_server.py:1850] vLLM API server version 0.32.0
(EngineCore pid=71) INFO 11-30 18:00:01 [core.py:93] Initializing a V1 LLM engine (v0.32.0)
(EngineCore pid=71) ERROR 11-30 18:00:02 [core.py:1104] EngineCore failed to start.
(EngineCore pid=71) ERROR 11-30 18:00:02 [core.py:1104] Traceback (most recent call last):
(EngineCore pid=71) ERROR 11-30 18:00:02 [core.py:1104] ValueError: Available memory 21.31/23.54 GiB is less than desired 0.92
(APIServer pid=70) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
VLLM_CONTEXT = """\
(EngineCore pid=7) ERROR 11-30 18:00:02 [core.py:1104] ValueError: To serve at least one request with the models's max seq len (131072), \
16.00 GiB KV cache is needed, which is larger than the available KV cache memory (4.10 GiB). \
Based on the available memory, the estimated maximum model length is 33584.
RuntimeError: Engine core initialization failed. See root cause above.
"""
VLLM_WORKER = """\
(Worker_TP1 pid=9) ERROR 11-30 18:00:02 [multiproc_executor.py:870] WorkerProc failed to start.
(Worker_TP1 pid=9) ERROR 11-30 18:00:02 [multiproc_executor.py:870] AssertionError: Not enough allowed NUMA nodes
(EngineCore pid=8) ERROR 11-30 18:00:03 [core.py:1104] Exception: WorkerProc initialization failed due to an exception
(APIServer pid=7) RuntimeError: Engine core initialization failed. See root cause above.
"""
VLLM_CONFIG = """\
(APIServer pid=7) WARNING 11-30 18:00:01 [utils.py:58] Found ulimit of 20000. This can cause fd limit errors like \
`OSError: [Errno 24] Too many open files`.
pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
  Value error, User-specified max_model_len (4096) is greater than the derived max_model_len (1024).
"""
LLAMA_PORT = """\
0.00.013.685 I srv    load_model: loading model 'demo.gguf'
0.01.510.128 E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080
0.01.510.130 I srv  llama_server: cleaning up before exit...
"""
LLAMA_FILE = """\
0.00.013.685 I srv    load_model: loading model 'x.gguf'
0.00.020.000 E gguf_init_from_file_ptr: invalid magic characters: 'hell', expected 'GGUF'
0.00.020.130 E srv    load_model: failed to load model, 'x.gguf'
"""


@pytest.mark.parametrize(
    ("log", "cause", "next_step"),
    [
        (VLLM_MEMORY, "ValueError: Available memory 21.31/23.54 GiB is less than desired 0.92", "free memory"),
        (VLLM_CONTEXT, "ValueError: To serve at least one request", "--context 33584"),
        (VLLM_WORKER, "AssertionError: Not enough allowed NUMA nodes", ""),
        (VLLM_CONFIG, "Value error, User-specified max_model_len (4096) is greater", ""),
        (LLAMA_PORT, "couldn't bind HTTP server socket", "end the program that listens there"),
        (LLAMA_FILE, "invalid magic characters: 'hell', expected 'GGUF'", ""),
        ("vllm: error: unrecognized arguments: --temperature 0.8\n", "vllm: error: unrecognized", "--engine-arg"),
        ("something\nelse\n\n", "else", ""),
        ("", "", ""),
    ],
)
def test_the_first_cause(log: str, cause: str, next_step: str) -> None:
    assert cause in root_cause(log)
    assert next_step in hint(root_cause(log), log)


def test_the_progress_is_the_last_line() -> None:
    log = "(Worker pid=3) \x1b[36mLoading safetensors checkpoint shards:  50% Completed | 2/4\x1b[0m\n\n"
    assert progress(log) == "Loading safetensors checkpoint shards:  50% Completed | 2/4"
