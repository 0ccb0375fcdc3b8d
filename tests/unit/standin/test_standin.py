# -*- coding: utf-8 -*-
# Copyright (c) 2026, the erni_ki.inference team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-in does beyond the recordings: switches, processes, threads, persistence, its command line."""
from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time
import types

import pytest
from ansible_collections.erni_ki.inference.tests.unit.standin import harness

control, gguf, gojson, gpu, llama_server, registry, runner, web = (harness.standin_module(name) for name in (
    "control", "gguf", "gojson", "gpu", "llama_server", "registry", "runner", "web"))
CATALOGUE = json.loads((harness.IMAGE / "data" / "catalogue.json").read_text())["models"]
WAIT_S = 30


@pytest.fixture(name="server", scope="module")
def server_fixture(tmp_path_factory):
    with harness.running(tmp_path_factory.mktemp("standin"), STANDIN_CONTROL_ENDPOINT="1", LLAMA_ARG_THREADS="3") as server:
        server.call("POST", "/api/pull", {"model": "tinystory", "stream": False})
        yield server


@pytest.fixture(name="tiny")
def tiny_fixture(server):
    """The stand-in as at the start, with the model tinystory, nothing loaded."""
    server.control()
    server.call("DELETE", "/standin/control")
    for model in server.call("GET", "/api/ps")[1]["models"]:
        server.call("POST", "/api/generate", {"model": model["name"], "keep_alive": 0})
    until(lambda: not server.children())
    return server


def until(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def loaded(server, **options):
    assert server.call("POST", "/api/generate", {"model": "tinystory", "options": options})[1]["done_reason"] == "load"
    return server.call("GET", "/api/ps")[1]["models"][0]


def generate(server, tokens=3, **more):
    return server.call("POST", "/api/generate", {"model": "tinystory", "prompt": "hello", "stream": False, "options": {"num_predict": tokens}, **more})


# ---------------------------------------------------------------- the child process

def threads_of(pid):
    return len(list(pathlib.Path("/proc/%d/task" % pid).iterdir()))


def cpu_seconds(pid):
    """CPU time of all threads of a process, in seconds."""
    fields = pathlib.Path("/proc/%d/stat" % pid).read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_loaded_model_is_a_process_with_threads(tiny):
    loaded(tiny)
    pid, = tiny.children()
    assert pathlib.Path("/proc/%d/comm" % pid).read_text() == "llama-server\n"
    # Three from LLAMA_ARG_THREADS, and the one that listens to the server.
    assert threads_of(pid) == 3 + 1


def test_a_request_may_ask_for_other_threads(tiny):
    loaded(tiny)
    first, = tiny.children()
    loaded(tiny, num_thread=5)
    second, = tiny.children()
    assert first != second and threads_of(second) == 5 + 1


def test_the_same_options_keep_the_process(tiny):
    loaded(tiny)
    pid, = tiny.children()
    assert generate(tiny)[0] == 200
    assert tiny.children() == [pid]
    assert loaded(tiny, num_ctx=512)["context_length"] == 512
    assert tiny.children() != [pid]


def test_threads_are_busy_while_tokens_are_made_and_not_before(tiny):
    loaded(tiny)
    pid, = tiny.children()
    before = cpu_seconds(pid)
    time.sleep(0.2)
    assert cpu_seconds(pid) - before < 0.1
    tiny.control(ms_per_token=100)

    def busy():
        generate(tiny, 2)
        return cpu_seconds(pid) - before > 0.25
    until(busy)


def test_threads_can_be_told_to_be_busy_always_or_never(tiny):
    tiny.control(spin="always")
    loaded(tiny)
    pid, = tiny.children()
    until(lambda: cpu_seconds(pid) > 0.3)
    tiny.control(spin="never", threads=2)
    loaded(tiny, num_ctx=1024)
    pid, = tiny.children()
    assert threads_of(pid) == 2 + 1
    before = cpu_seconds(pid)
    tiny.control(spin="never", ms_per_token=50)
    generate(tiny, 4, options={"num_ctx": 1024, "num_predict": 4})
    assert cpu_seconds(pid) - before < 0.1


def test_a_killed_process_fails_the_request_and_the_next_loads_again(tiny):
    tiny.control(ms_per_token=50)
    answers = []
    asked = threading.Thread(target=lambda: answers.append(generate(tiny, 100)))
    asked.start()
    until(lambda: tiny.call("GET", "/api/ps")[1]["models"])
    os.kill(tiny.children()[0], 9)
    asked.join()
    assert answers[0][0] == 500 and answers[0][1]["error"].startswith("model runner has unexpectedly stopped")
    assert tiny.call("GET", "/api/ps")[1]["models"] == []
    tiny.control()
    assert generate(tiny)[0] == 200


def test_a_client_that_hangs_up_ends_its_answer(tiny):
    tiny.control(ms_per_token=20)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", tiny.port, timeout=WAIT_S)) as connection:
        connection.request("POST", "/api/generate", json.dumps({"model": "tinystory", "prompt": "x", "keep_alive": "1s", "options": {"num_predict": 9000}}))
        assert connection.getresponse().readline()
    # Three minutes of answer were left; it expires one second after it is dropped.
    until(lambda: not tiny.call("GET", "/api/ps")[1]["models"])


def test_the_model_expires(tiny):
    assert tiny.call("POST", "/api/generate", {"model": "tinystory", "keep_alive": "200ms"})[1]["done_reason"] == "load"
    assert tiny.children()
    until(lambda: not tiny.children())
    assert tiny.call("GET", "/api/ps")[1]["models"] == []


def test_no_child_outlives_its_server(tmp_path):
    with harness.running(tmp_path) as server:
        server.call("POST", "/api/pull", {"model": "tinystory", "stream": False})
        loaded(server)
        pid, = server.children()
        server.process.kill()
        server.process.wait()
        until(lambda: not pathlib.Path("/proc/%d" % pid).exists() or " Z " in pathlib.Path("/proc/%d/stat" % pid).read_text())


def test_more_models_than_may_be_loaded(tmp_path):
    with harness.running(tmp_path, OLLAMA_MAX_LOADED_MODELS="1") as server:
        for name in ("tinystory", "smollm2:135m"):
            server.call("POST", "/api/pull", {"model": name, "stream": False})
            server.call("POST", "/api/generate", {"model": name})
        assert [model["name"] for model in server.call("GET", "/api/ps")[1]["models"]] == ["smollm2:135m"]
        assert len(server.children()) == 1


def test_a_full_queue(tmp_path):
    with harness.running(tmp_path, OLLAMA_MAX_QUEUE="1", STANDIN_LOAD_MS="2000") as server:
        for name in ("tinystory", "smollm2:135m"):
            server.call("POST", "/api/pull", {"model": name, "stream": False})
        first = threading.Thread(target=server.call, args=("POST", "/api/generate", {"model": "tinystory"}))
        first.start()
        until(server.children)
        status, answer = server.call("POST", "/api/generate", {"model": "smollm2:135m"})
        first.join()
        assert (status, answer) == (503, {"error": "server busy, please try again.  maximum pending requests exceeded"})


def test_a_wrong_thread_count_ends_the_process(tmp_path):
    with harness.running(tmp_path, LLAMA_ARG_THREADS="many") as server:
        server.call("POST", "/api/pull", {"model": "tinystory", "stream": False})
        status, answer = server.call("POST", "/api/generate", {"model": "tinystory"})
        assert (status, answer) == (500, {"error": "llama-server process has terminated: exit status 1"})
        assert "LLAMA_ARG_THREADS" in server.log()


def test_threads_are_counted_as_llama_cpp_counts(tmp_path):
    for number, siblings in enumerate(["0,4", "1,5", "0,4", "1,5"]):
        place = tmp_path / ("cpu%d" % number)
        place.mkdir()
        (place / "thread_siblings").write_text(siblings + "\n")
    cores = llama_server.physical_cores(str(tmp_path / "cpu%d" / "thread_siblings"))
    assert cores == 2
    assert llama_server.physical_cores(str(tmp_path / "none%d")) >= 1
    assert llama_server.thread_count(["-t", "7"], {"LLAMA_ARG_THREADS": "3"}) == 7
    assert llama_server.thread_count([], {"LLAMA_ARG_THREADS": "3"}) == 3
    assert llama_server.thread_count([], {"LLAMA_ARG_THREADS": "0"}) == os.cpu_count()


# ---------------------------------------------------------------- devices

@pytest.mark.parametrize("switches, share", [
    ({}, 0),
    ({"device": "cpu"}, 0),
    ({"device": "gpu"}, 1),
    ({"device": "partial"}, 0.4),
    ({"device": "gpu", "vram_mib": 10}, 0.4),
    ({"device": "gpu", "vram_mib": 1}, 0),
])
def test_where_a_model_runs(tiny, switches, share):
    tiny.control(**switches)
    model = loaded(tiny)
    assert model["size_vram"] == int(model["size"] * share)


def test_a_request_may_ask_for_the_cpu(tiny):
    tiny.control(device="gpu")
    assert loaded(tiny, num_gpu=0)["size_vram"] == 0


class Nvml:
    """NVML as ctypes hands it out, with two cards."""

    uuids = (b"GPU-1", b"GPU-2")

    def __init__(self, code=0):
        self.code = code

    def nvmlInit_v2(self):
        return self.code

    def nvmlDeviceGetCount_v2(self, count):
        count._obj.value = len(self.uuids)
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, handle):
        handle._obj.value = index + 1
        return 0

    def nvmlDeviceGetUUID(self, handle, text, size):
        text.value = self.uuids[handle.value - 1]
        return 0


def no_library(name):
    raise OSError(f"{name}: cannot open shared object file")


def identity(folder, load=no_library, **environ):
    return gpu.identity(environ, str(folder / "nvidia[0-9]*"), str(folder / "nvidiactl"), load)


def test_gpus_are_devices(tmp_path):
    assert identity(tmp_path) is None
    (tmp_path / "nvidiactl").touch()
    assert identity(tmp_path) is None
    (tmp_path / "nvidia0").touch()
    assert identity(tmp_path) == "GPU-standin"
    assert identity(tmp_path, CUDA_VISIBLE_DEVICES="-1") is None


def test_a_lost_permission_is_a_lost_gpu(tmp_path, monkeypatch):
    (tmp_path / "nvidia0").touch()
    for number, lost in ((1, True), (13, True), (6, False), (2, False)):
        def fail(path, flags, number=number):
            raise OSError(number, "")
        monkeypatch.setattr(gpu.os, "open", fail)
        assert (identity(tmp_path) is None) is lost


def test_nvml_knows_which_gpus_there_are(tmp_path):
    (tmp_path / "nvidia0").touch()
    assert identity(tmp_path, lambda name: Nvml()) == "GPU-1"
    assert identity(tmp_path, lambda name: Nvml(), CUDA_VISIBLE_DEVICES="GPU-2") == "GPU-2"
    assert identity(tmp_path, lambda name: Nvml(), CUDA_VISIBLE_DEVICES="GPU-3") is None
    assert identity(tmp_path, lambda name: Nvml(18)) is None


def test_a_gpu_that_is_lost_after_the_start_is_not_loaded_on(monkeypatch):
    found = ["GPU-1", "GPU-1", None]
    monkeypatch.setattr(gpu, "identity", lambda environ: found.pop(0))
    loaded_on = []

    def start(model, options, environ, settings, on_gpu, parallel):
        loaded_on.append(on_gpu)
        raise runner.RunnerError("enough seen")
    monkeypatch.setattr(runner, "Runner", start)
    scheduler = runner.Scheduler({}, dict)
    for unused in range(2):
        with pytest.raises(runner.RunnerError):
            scheduler.acquire(types.SimpleNamespace(path="x", header=None), {}, None)
    assert scheduler.gpu == "GPU-1" and loaded_on == [True, False]


def test_who_is_on_the_gpu_is_told_to_the_card(tiny):
    tiny.control(device="gpu")
    model = loaded(tiny)
    words = pathlib.Path(f"/proc/{tiny.children()[0]}/cmdline").read_text().split("\0")
    assert words[words.index("--standin-vram") + 1] == str(model["size_vram"]) and "-ngl" not in words
    loaded(tiny, num_gpu=0)
    words = pathlib.Path(f"/proc/{tiny.children()[0]}/cmdline").read_text().split("\0")
    assert "--standin-vram" not in words and words[words.index("-ngl") + 1] == "0"


# ---------------------------------------------------------------- switches

def test_slow(tiny):
    tiny.control(ms_per_token=150)
    answer = generate(tiny, 3)[1]
    assert answer["eval_count"] == 3 and answer["eval_duration"] >= 0.44e9
    tiny.control(tokens_per_second=1000)
    assert generate(tiny, 3)[1]["eval_duration"] < 0.44e9


def test_hung_until_it_is_told_otherwise(tiny):
    tiny.control(hung=["/api/tags"])
    assert tiny.call("GET", "/api/version")[0] == 200
    with pytest.raises(OSError):
        tiny.call("GET", "/api/tags", timeout=0.2)
    answers = []
    asked = threading.Thread(target=lambda: answers.append(tiny.call("GET", "/api/tags")))
    asked.start()
    asked.join(0.2)
    assert not answers
    tiny.control()
    asked.join()
    assert answers[0][0] == 200


def test_hung_in_the_middle_of_an_answer(tiny):
    tiny.control(ms_per_token=10)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", tiny.port, timeout=0.5)) as connection:
        connection.request("POST", "/api/generate", json.dumps({"model": "tinystory", "prompt": "x", "options": {"num_predict": 10000}}))
        answer = connection.getresponse()
        assert answer.readline()
        tiny.control(hung=True)
        with pytest.raises(OSError):
            while answer.readline():
                pass


def test_failing(tiny):
    tiny.control(failing=["/api/generate"], failing_status=503, failing_error="no room")
    assert generate(tiny) == (503, {"error": "no room"})
    assert tiny.call("GET", "/api/ps")[0] == 200
    tiny.control(failing=True)
    assert tiny.call("GET", "/api/ps") == (500, {"error": "the stand-in was told to fail"})
    tiny.control(failing=["/v1/"])
    status, answer = tiny.call("GET", "/v1/models")
    assert status == 500


def test_a_wrong_control_file_is_not_taken(tiny):
    tiny.control(device="gpu")
    assert loaded(tiny)["size_vram"] > 0
    tiny.control(devise="cpu")
    assert loaded(tiny, num_ctx=1024)["size_vram"] > 0
    assert "control file not taken" in tiny.log() and "no such switch: devise" in tiny.log()


def test_the_first_file_that_is_there_counts(tmp_path, monkeypatch):
    files = [tmp_path / "first.json", tmp_path / "second.json"]
    monkeypatch.setattr(control, "FILES", [str(file) for file in files])
    switches = control.Control({})
    assert switches()["device"] == "auto"
    for file, device in zip(reversed(files), ("cpu", "gpu")):
        file.write_text(json.dumps({"device": device}))
        assert switches()["device"] == device
    files[0].unlink()
    assert switches()["device"] == "cpu"


def test_the_endpoint(tiny):
    assert tiny.call("PUT", "/standin/control", {"hung": True, "ms_per_token": 7})[1]["ms_per_token"] == 7
    with pytest.raises(OSError):
        tiny.call("GET", "/api/ps", timeout=0.2)
    assert tiny.call("PUT", "/standin/control", {"hung": "perhaps"})[0] == 400
    assert tiny.call("DELETE", "/standin/control")[1]["hung"] == []
    assert tiny.call("GET", "/api/ps")[0] == 200


def test_no_endpoint_unless_it_is_asked_for(tmp_path):
    with harness.running(tmp_path) as server:
        assert server.call("GET", "/standin/control") == (404, "404 page not found")


@pytest.mark.parametrize("values, words", [
    ({"ms_per_token": "fast"}, "it must be a number from 0 to 600000"),
    ({"ms_per_token": True}, "it must be a number"),
    ({"ms_per_token": 1, "tokens_per_second": 1}, "not both"),
    ({"tokens_per_second": 0}, "must be a number above 0"),
    ({"answer_tokens": 1.5}, "a whole number"),
    ({"device": "tpu"}, "one of auto, cpu, partial, gpu"),
    ({"hung": ["api"]}, "true, false or a list of paths"),
    ({"failing_error": 5}, "must be text"),
    ({"speed": 1}, "no such switch: speed"),
])
def test_wrong_switches(values, words):
    with pytest.raises(control.Bad, match=words):
        control.check(values, "here")


def test_a_wrong_environment_ends_the_server(tmp_path):
    with pytest.raises(AssertionError, match="Error: environment STANDIN_.*: device is 'tpu'; it must be one of"):
        with harness.running(tmp_path, STANDIN_DEVICE="tpu"):
            pass


def test_a_wrong_flag_ends_the_server(tmp_path):
    with pytest.raises(AssertionError, match="Error: environment STANDIN_CONTROL_ENDPOINT: it must be true or false"):
        with harness.running(tmp_path, STANDIN_CONTROL_ENDPOINT="maybe"):
            pass


def test_switches_of_the_environment(tmp_path):
    with harness.running(tmp_path, STANDIN_HUNG="/api/ps,/api/show", STANDIN_ANSWER_TOKENS="4") as server:
        server.call("POST", "/api/pull", {"model": "tinystory", "stream": False})
        answer = server.call("POST", "/api/generate", {"model": "tinystory", "prompt": "x", "stream": False})[1]
        assert (answer["eval_count"], answer["done_reason"]) == (4, "stop")
        with pytest.raises(OSError):
            server.call("GET", "/api/ps", timeout=0.2)


# ---------------------------------------------------------------- it says what it is

def test_it_is_named_for_what_it_is(tiny):
    assert tiny.log().startswith("ollama-standin: this is NOT Ollama.")
    dockerfile = (harness.IMAGE / "Dockerfile").read_text()
    assert 'erni-ki.standin="ollama"' in dockerfile and "NOT Ollama" in dockerfile
    assert (harness.IMAGE / "README.md").read_text().startswith("# The Ollama stand-in\n\nThis is **not Ollama**.")


def test_a_request_with_an_id_is_logged_when_it_begins(tiny):
    """So that a test can see who got a request, whatever became of it."""
    connection = http.client.HTTPConnection("127.0.0.1", tiny.port, timeout=WAIT_S)
    with contextlib.closing(connection):
        body = {"model": "tinystory", "stream": True, "max_tokens": 3, "messages": [{"role": "user", "content": "Once"}]}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"X-Request-Id": "0123abc"})
        assert connection.getresponse().read().rstrip().endswith(b"data: [DONE]")
    lines = tiny.log().splitlines()
    begun = lines.index("[STANDIN] begin 0123abc /v1/chat/completions")
    until(lambda: any("| 200 |" in line and "/v1/chat/completions" in line for line in tiny.log().splitlines()[begun + 1:]))


def test_it_is_python_s_standard_library_alone():
    """Its imports, in a Python without anything else."""
    names = sorted(path.stem for path in (harness.IMAGE / "standin").glob("*.py") if not path.stem.startswith("__"))
    code = "import sys; sys.path.insert(0, %r)\n%s" % (str(harness.IMAGE), "\n".join("import standin.%s" % name for name in names))
    subprocess.run([sys.executable, "-IBS", "-c", code], check=True)


@pytest.mark.parametrize("path", ["/api/push", "/v1/responses", "/v1/messages", "/api/me"])
def test_it_says_what_it_does_not_build(tiny, path):
    assert tiny.call("POST", path, {"model": "tinystory"}) == (501, {"error": "the stand-in does not build %s" % path})


# ---------------------------------------------------------------- streams

def sse(server, path, body):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)) as connection:
        connection.request("POST", path, json.dumps(body))
        response = connection.getresponse()
        assert response.headers["Content-Type"] == "text/event-stream"
        frames = response.read().decode().split("\n\n")
    assert frames.pop() == "" and frames.pop() == "data: [DONE]"
    return [json.loads(frame[len("data: "):]) for frame in frames]


def test_v1_chat_streams(tiny):
    frames = sse(tiny, "/v1/chat/completions", {"model": "tinystory", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "stream": True,
                                                "stream_options": {"include_usage": True}})
    assert [frame["object"] for frame in frames] == ["chat.completion.chunk"] * 5
    assert len({(frame["id"], frame["created"]) for frame in frames}) == 1
    deltas = [frame["choices"][0]["delta"] for frame in frames[:4]]
    assert [sorted(delta) for delta in deltas] == [["content", "role"], ["content"], ["content"], []]
    assert [frame["choices"][0]["finish_reason"] for frame in frames[:4]] == [None, None, None, "length"]
    assert frames[4]["choices"] == [] and frames[4]["usage"] == {"prompt_tokens": 14, "completion_tokens": 3, "total_tokens": 17}
    assert all("usage" not in frame for frame in frames[:4])


def test_v1_completions_stream(tiny):
    frames = sse(tiny, "/v1/completions", {"model": "tinystory", "prompt": "hi", "max_tokens": 2, "stream": True})
    assert [frame["object"] for frame in frames] == ["text_completion"] * 3
    assert [frame["choices"][0]["finish_reason"] for frame in frames] == [None, None, "length"]
    assert all(frame["choices"][0]["text"] for frame in frames[:2])


def test_chat_streams(tiny):
    status, lines = tiny.call("POST", "/api/chat", {"model": "tinystory", "messages": [{"role": "user", "content": "hi"}], "options": {"num_predict": 2}})
    assert status == 200
    assert [line["done"] for line in lines] == [False, False, True]
    assert all(line["message"]["role"] == "assistant" for line in lines)
    assert lines[-1]["eval_count"] == 2 and lines[-1]["done_reason"] == "length"


def test_tokens_arrive_as_they_are_made(tiny):
    loaded(tiny)
    tiny.control(ms_per_token=500)
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", tiny.port, timeout=WAIT_S)) as connection:
        connection.request("POST", "/api/generate", json.dumps({"model": "tinystory", "prompt": "x", "options": {"num_predict": 4}}))
        answer, begun = connection.getresponse(), time.monotonic()
        answer.readline()
        first = time.monotonic() - begun
        answer.read()
        # Far less than the three tokens between take, for a machine that has other things to do.
        assert time.monotonic() - begun - first > 0.2


def test_the_same_question_has_the_same_answer(tiny):
    first, second = (generate(tiny, 8)[1]["response"] for _time in range(2))
    assert first == second
    assert first != generate(tiny, 8, options={"num_predict": 8, "seed": 5})[1]["response"]


def test_embeddings(tiny):
    tiny.call("POST", "/api/pull", {"model": "all-minilm", "stream": False})
    answer = tiny.call("POST", "/api/embed", {"model": "all-minilm", "input": ["one", "two"]})[1]
    assert [len(one) for one in answer["embeddings"]] == [384, 384]
    assert abs(sum(value * value for value in answer["embeddings"][0]) - 1) < 1e-4
    assert len(tiny.call("POST", "/v1/embeddings", {"model": "all-minilm", "input": "one"})[1]["data"]) == 1
    assert tiny.call("POST", "/api/embeddings", {"model": "all-minilm", "prompt": "one"})[1]["embedding"] == answer["embeddings"][0]
    assert tiny.call("POST", "/api/generate", {"model": "all-minilm", "prompt": "x"}) == (400, {"error": '"all-minilm" does not support generate'})


# ---------------------------------------------------------------- models

@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry["names"][0])
def test_catalogue(entry):
    """The shapes are those of the published models: their parameters come out as published, within what norms and biases make."""
    unit = {"M": 1e6, "B": 1e9}[entry["parameter_size"][-1]]
    stated, header = float(entry["parameter_size"][:-1]) * unit, gguf.llama(entry["shape"])
    if not entry["shape"].get("embedding"):
        assert abs(header.parameters - stated) / stated < 0.03
        assert 0.65 < header.tensor_bytes / entry["size"] <= 1.07
    assert gguf.read(io.BytesIO(gguf.dump(header))).parameters == header.parameters


def test_catalogue_names_are_given_once():
    names = [name for entry in CATALOGUE for name in entry["names"]]
    assert len(names) == len(set(names))


def test_pulled_models_are_as_large_as_the_published(tmp_path):
    with harness.running(tmp_path) as server:
        assert server.call("POST", "/api/pull", {"model": "llama3.2:3b", "stream": False}) == (200, {"status": "success"})
        model, = server.call("GET", "/api/tags")[1]["models"]
        assert model["name"] == "llama3.2:3b" and 2019377376 < model["size"] < 2019377376 + 4096
        assert model["details"]["context_length"] == 131072
        # Without its weights.
        assert sum(path.stat().st_size for path in server.data.rglob("*") if path.is_file()) < 1 << 20
        info = server.call("POST", "/api/show", {"model": "llama3.2:3b"})[1]["model_info"]
        assert info["general.parameter_count"] == 3212749824
        again = server.call("POST", "/api/pull", {"model": "llama3.2:3b"})[1]
        assert [line.get("total") for line in again if "digest" in line][0] == 2019377376


def test_an_interrupted_pull_from_the_catalogue_goes_on(tmp_path):
    with harness.running(tmp_path, STANDIN_PULL_MIB_PER_SECOND="100") as server:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)) as connection:
            connection.request("POST", "/api/pull", json.dumps({"model": "smollm2:135m"}))
            answer = connection.getresponse()
            lines = [json.loads(answer.readline()) for _line in range(5)]
        assert lines[0] == {"status": "pulling manifest"} and 0 < lines[-1]["completed"] < lines[-1]["total"] == 270884192
        assert server.call("GET", "/api/tags")[1]["models"] == []
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)) as connection:
            connection.request("POST", "/api/pull", json.dumps({"model": "smollm2:135m"}))
            answer = connection.getresponse()
            answer.readline()
            assert json.loads(answer.readline())["completed"] >= lines[-1]["completed"]


def test_models_outlive_the_server(tmp_path):
    with harness.running(tmp_path) as server:
        server.call("POST", "/api/pull", {"model": "tinystory", "stream": False})
        before = server.call("GET", "/api/tags")
    with harness.running(tmp_path) as server:
        assert server.call("GET", "/api/tags") == before
        assert generate(server)[0] == 200


def test_it_stops_when_it_is_told(tmp_path):
    with harness.running(tmp_path) as server:
        server.call("POST", "/api/pull", {"model": "tinystory", "stream": False})
        loaded(server)
        pid, = server.children()
        server.process.terminate()
        assert server.process.wait(WAIT_S) == 0
        assert not pathlib.Path("/proc/%d" % pid).exists()


def test_it_ends_with_the_test_that_started_it(tmp_path):
    with harness.running(tmp_path) as server:
        server.process.stdin.close()
        assert server.process.wait(WAIT_S) == 0


def test_layers_in_use_stay(tiny):
    tiny.call("POST", "/api/copy", {"source": "tinystory", "destination": "other"})
    assert tiny.call("DELETE", "/api/delete", {"model": "other"})[0] == 200
    assert generate(tiny)[0] == 200


def test_create_from_a_model_of_the_catalogue_fetches_it(tmp_path):
    with harness.running(tmp_path) as server:
        lines = server.call("POST", "/api/create", {"model": "mine", "from": "tinystory", "system": "Be brief.", "parameters": {"num_thread": 2}})[1]
        assert lines[0] == {"status": "pulling manifest"} and lines[-1] == {"status": "success"}
        assert "PARAMETER num_thread 2" in server.call("POST", "/api/show", {"model": "mine"})[1]["modelfile"]
        server.call("POST", "/api/create", {"model": "quoted", "from": "mine", "parameters": {"stop": ['a "b"\n']}, "stream": False})
        assert r'"a \"b\"\n"' in server.call("POST", "/api/show", {"model": "quoted"})[1]["parameters"]
        server.call("POST", "/api/generate", {"model": "mine"})
        assert threads_of(server.children()[0]) == 2 + 1


def test_create_says_what_it_does_not_build(tiny):
    status, answer = tiny.call("POST", "/api/create", {"model": "mine", "from": "tinystory", "quantize": "q4_0", "stream": False})
    assert (status, answer) == (400, {"error": "the stand-in does not build 'quantize' of create"})


@pytest.mark.parametrize("data, words", [
    (b"GGUF", "unexpected EOF"),
    (b"GGUF" + b"\3\0\0\0" + b"\xff" * 16, "invalid count"),
    (b"GGUF" + b"\x63\0\0\0" + bytes(16), "unsupported GGUF version"),
    (gguf.dump(gguf.llama(harness.TINY)), "exceeds file size"),
], ids=["short", "absurd", "version", "no weights"])
def test_create_from_a_broken_file(tiny, data, words):
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    connection = http.client.HTTPConnection("127.0.0.1", tiny.port, timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request("POST", "/api/blobs/" + digest, data)
        assert connection.getresponse().status == 201
    status, answer = tiny.call("POST", "/api/create", {"model": "broken", "files": {"x.gguf": digest}, "stream": False})
    assert status == 500 and words in answer["error"]


def test_cloud_models_are_refused(tiny):
    assert tiny.call("POST", "/api/generate", {"model": "gpt-oss:20b-cloud", "prompt": "x"})[0] == 403


# ---------------------------------------------------------------- HTTP

def raw(server, data):
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as connection:
        connection.sendall(data)
        with connection.makefile("rb") as stream:
            return stream.read().decode()


def test_old_http_and_chunked_bodies(tiny):
    assert raw(tiny, b"GET /api/version HTTP/1.0\r\n\r\n").endswith('{"version":"0.32.15"}')
    answer = raw(tiny, b"POST /api/show HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
                       b"5\r\n{\"mod\r\nd\r\nel\":\"nosuch\"}\r\n0\r\n\r\n")
    assert answer.startswith("HTTP/1.1 404 ") and "model 'nosuch:latest' not found" in answer


def test_one_connection_serves_many_requests(tiny):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", tiny.port, timeout=WAIT_S)) as connection:
        for path, body in (("/api/version", None), ("/api/nosuch", b"x" * 1000), ("/api/generate", b"{"), ("/api/version", None)):
            connection.request("POST" if body else "GET", path, body)
            response = connection.getresponse()
            response.read()
            kept = connection.sock
        assert response.status == 200 and kept is not None


@pytest.mark.parametrize("host, listening, allowed", [
    ("localhost:11434", "127.0.0.1", True),
    ("127.0.0.1", "127.0.0.1", True),
    ("[::1]:1", "::1", True),
    ("192.168.1.5:11434", "127.0.0.1", True),
    ("host.internal", "127.0.0.1", True),
    ("203.0.113.5", "127.0.0.1", False),
    ("evil.example.com", "127.0.0.1", False),
    ("evil.example.com", "0.0.0.0", True),
])
def test_hosts(host, listening, allowed):
    assert web.allowed_host(host, listening) == allowed


@pytest.mark.parametrize("origin, more, allowed", [
    ("", "", True),
    ("http://localhost:3000", "", True),
    ("https://127.0.0.1", "", True),
    ("http://own.example", "", True),
    ("app://x", "", True),
    ("http://evil.example.com", "", False),
    ("http://localhost.evil.example", "", False),
    ("http://good.example", "http://good.example", True),
    ("http://a.good.example", "http://*.good.example", True),
    ("http://a.bad.example", "http://*.good.example", False),
])
def test_origins(origin, more, allowed):
    assert web.allowed_origin(origin, "own.example", more) == allowed


# ---------------------------------------------------------------- as Go writes and reads

@pytest.mark.parametrize("value, text", [
    (1e-06, "0.000001"), (1e-07, "1e-7"), (0.1, "0.1"), (10000.0, "10000"), (1e21, "1e+21"), (500000.5, "500000.5"), (True, "true"), (None, "null"),
    ("<a&b>\u2028\n", '"\\u003ca\\u0026b\\u003e\\u2028\\n"'), ({"b": [1, "ü"], "a": {}}, '{"b":[1,"ü"],"a":{}}'),
])
def test_json_out(value, text):
    assert gojson.dumps(value) == text


@pytest.mark.parametrize("body, words", [
    (b"", "missing request body"),
    (b"  ", "missing request body"),
    (b'{"a', "unexpected EOF"),
    (b'{"a":1,', "unexpected EOF"),
    (b'{"a" 1}', "invalid character '1' after object key"),
    (b'{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
    (b'{"a":[1 2]}', "invalid character '2' after array element"),
    (b'{a:1}', "invalid character 'a' looking for beginning of object key string"),
    (b'{"a":NaN}', "invalid character 'N' looking for beginning of value"),
    (b'{"a":"\n"}', "invalid character '\\n' in string literal"),
    (b"[" * 100000, "exceeded max depth"),
])
def test_json_in(body, words):
    with pytest.raises(gojson.GoError) as refused:
        gojson.decode(body)
    assert str(refused.value) == words or words == "exceeded max depth" and str(refused.value) in (words, "unexpected EOF")


FIELDS = {"name": "string", "count": "int", "flag": "bool", "options": "map[string]interface {}", "keep": "duration", "any": "any"}


@pytest.mark.parametrize("body, words", [
    ({"name": 5}, "json: cannot unmarshal number into Go struct field T.name of type string"),
    ({"count": 1.5}, "json: cannot unmarshal number 1.5 into Go struct field T.count of type int"),
    ({"flag": "yes"}, "json: cannot unmarshal string into Go struct field T.flag of type bool"),
    ({"count": True}, "json: cannot unmarshal bool into Go struct field T.count of type int"),
    ({"options": []}, "json: cannot unmarshal array into Go struct field T.options of type map[string]interface {}"),
    ({"keep": {}}, "Unsupported type: 'map[string]interface {}'"),
    ([1], "json: cannot unmarshal array into Go value of type api.T"),
])
def test_wrong_types(body, words):
    with pytest.raises(gojson.GoError) as refused:
        gojson.bind(json.dumps(body).encode(), "T", FIELDS)
    assert str(refused.value) == words


def test_right_types():
    assert gojson.bind(b'{"NAME":"x","count":null,"keep":1.5,"other":1,"any":[1]} trailing', "T", FIELDS) == {"name": "x", "keep": 1500000000, "any": [1]}
    assert gojson.bind(b"null", "T", FIELDS) == {}


@pytest.mark.parametrize("value, nanoseconds", [
    ("1h30m", 5400 * 10 ** 9), ("0", 0), ("1.5s", 1500000000), ("100µs", 100000), ("-1s", gojson.FOREVER_NS), (-1, gojson.FOREVER_NS), (0, 0),
    (60, 60 * 10 ** 9)])
def test_keep_alive(value, nanoseconds):
    assert gojson.keep_alive(value) == nanoseconds


@pytest.mark.parametrize("value, words", [
    ("soon", 'time: invalid duration "soon"'), ("", 'time: invalid duration ""'), ("10", 'time: missing unit in duration "10"'),
    ("10x", 'time: unknown unit "x" in duration "10x"'), ("999999999999h", 'time: invalid duration "999999999999h"'),
    ([], "Unsupported type: '[]interface {}'")])
def test_no_keep_alive(value, words):
    with pytest.raises(gojson.GoError) as refused:
        gojson.keep_alive(value)
    assert str(refused.value) == words


# ---------------------------------------------------------------- the command line

def ollama(server, *arguments):
    environ = harness.environment(server.folder, OLLAMA_HOST="127.0.0.1:%d" % server.port)
    return subprocess.run([sys.executable, "-m", "standin", *arguments], env=environ, capture_output=True, text=True, timeout=WAIT_S, check=False)


def test_command_line(tmp_path):
    with harness.running(tmp_path) as server:
        assert ollama(server, "--version").stdout == "ollama version is 0.32.15 (stand-in)\n"
        assert ollama(server, "ls").stdout.split() == ["NAME", "ID", "SIZE", "MODIFIED"]
        assert ollama(server, "pull", "nosuch").stderr.splitlines()[-1] == "Error: pull model manifest: file does not exist"
        assert ollama(server, "pull", "nosuch").returncode == 1
        assert len(ollama(server, "run", "tinystory", "hi").stdout.split()) == 24
        name, digest, size, unit = ollama(server, "ls").stdout.splitlines()[1].split()[:4]
        assert (name, len(digest), size, unit) == ("tinystory:latest", 12, "5.8", "MB")
        assert "100% CPU" in ollama(server, "ps").stdout
        assert ollama(server, "cp", "tinystory", "other").stdout == "copied 'tinystory' to 'other'\n"
        assert ollama(server, "stop", "tinystory").returncode == 0
        assert len(ollama(server, "ps").stdout.splitlines()) == 1
        assert ollama(server, "rm", "tinystory", "other").stdout == "deleted 'tinystory'\ndeleted 'other'\n"
        assert ollama(server, "rm", "tinystory").stderr == "Error: model 'tinystory' not found\n"
        assert "NOT Ollama" in ollama(server, "dance").stdout


def test_command_line_without_a_server(tmp_path):
    server = harness.Server(None, 9, tmp_path, tmp_path)
    failed = ollama(server, "ls")
    assert failed.returncode == 1
    assert failed.stderr == "Error: could not connect to ollama server, run 'ollama serve' to start it\n"
    assert "could not connect to a running Ollama instance" in ollama(server, "--version").stdout


@pytest.mark.parametrize("text, host, port", [
    ("", "127.0.0.1", 11434), ("0.0.0.0", "0.0.0.0", 11434), (":5000", "127.0.0.1", 5000), ("http://x", "x", 80), ("https://x/y", "x", 443),
    ("[::1]:7", "::1", 7), ("x:99999", "x", 11434)])
def test_ollama_host(text, host, port):
    assert harness.standin_module("client").host_and_port({"OLLAMA_HOST": text}) == (host, port)


def test_no_place_for_models(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AssertionError, match="Error: mkdir .*file.*: not a directory"):
        with harness.running(tmp_path, OLLAMA_MODELS=str(tmp_path / "file" / "models")):
            pass


def test_the_port_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(AssertionError, match="Error: listen tcp 127.0.0.1:[0-9]+: bind: address already in use"):
            with harness.running(tmp_path, OLLAMA_HOST="127.0.0.1:%d" % taken.getsockname()[1]):
                pass
