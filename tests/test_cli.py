"""The command line serves what it promises, and says what is wrong with what it is told."""

import os
import re
import signal
import socket
import subprocess
import sys

import openai
import pytest

from llm_patterns.cli import fault, main
from llm_patterns.errors import ConfigurationError
from llm_patterns.simulation import BrownOut, ErrorRate, faults

PROGRAM = [sys.executable, "-m", "llm_patterns.cli", "simulate", "--port", "0"]


def test_it_serves_the_sdk_until_it_is_interrupted():
    """From the command to an answer of the vendor's client, and an orderly end."""
    options = ["--api-key", "secret", "--models", "small", "--time-to-first-token", "0.01"]
    program = [*PROGRAM, *options, "--output-tokens", "5", "--tokens-per-second", "1000"]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as server:
        lines = iter(server.stderr.readline, "")
        address = next(found[0] for line in lines if (found := re.search(r"http://\S+", line)))
        with openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0) as api:
            messages = [{"role": "user", "content": "Hello"}]
            answer = api.chat.completions.create(model="small", messages=messages)
            with pytest.raises(openai.NotFoundError):
                api.chat.completions.create(model="large", messages=messages)
        server.send_signal(signal.SIGINT)
        server.stderr.read()
    assert answer.usage.completion_tokens == 5
    assert server.returncode in {0, -signal.SIGINT, 128 + signal.SIGINT}


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        (["--fault", "outag:start=1"], "there are brown-out, capacity-loss"),
        (["--fault", "outage:begin=1"], "begin: Extra inputs"),
        (["--fault", "brown-out:slowdown=slow"], "slowdown: Input should be a valid number"),
        (["--fault", "brown-out"], "slowdown: Field required"),
        (["--fault", "outage:start"], "start"),
        (["--slots", "0"], "at least 1 slot"),
        (["--rpm", "0"], "requests_per_minute"),
        (["--tokens-per-second", "0"], "--tokens-per-second must be above 0"),
        (["--time-to-first-token", "-1"], "--time-to-first-token 0 or more"),
        (["--output-tokens", "0"], "output_tokens is 0"),
        (["--port", "many"], "invalid int value"),
        (["--port", "99999"], "port"),
    ],
)
def test_a_wrong_option_is_explained(capsys, options, wrong):
    """Status 2, and a message that names the value and the remedy."""
    with pytest.raises(SystemExit) as ended:
        main(["simulate", *options])
    assert ended.value.code == 2
    assert wrong in capsys.readouterr().err


def test_a_port_in_use_ends_the_command():
    """With a status that says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as ended:
        main(["simulate", "--port", str(taken.getsockname()[1])])
    assert ended.value.code not in {0, 2}


def test_help_names_every_option_and_fault(capsys):
    """Worth reading: how to connect, what can go wrong, examples."""
    with pytest.raises(SystemExit) as ended:
        main(["simulate", "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert "base_url=" in text
    for name in set(faults.__all__) - {"Fault"}:
        assert re.sub("(?<=[a-z])(?=[A-Z])", "-", name).lower() in text


def test_a_command_is_needed(capsys):
    """Without one, the usage is shown."""
    with pytest.raises(SystemExit):
        main([])
    assert "usage: llm-patterns" in capsys.readouterr().err


def test_faults_are_read_with_their_settings():
    """Kind, then names and values."""
    assert fault("brown-out:start=1,duration=2,slowdown=3") == BrownOut(
        start=1, duration=2, slowdown=3
    )
    read = fault("error-rate:probability=0.1,status_code=429,retry_after=2")
    assert read == ErrorRate(probability=0.1, status_code=429, retry_after=2)


def test_a_fault_of_no_kind_is_refused():
    """The kinds that exist are named."""
    with pytest.raises(ConfigurationError, match="no kind ''"):
        fault("")


def test_without_the_server_extra_it_says_what_to_install():
    """In an environment that lacks uvicorn."""
    program = "import sys; sys.modules['uvicorn'] = None; from llm_patterns.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", program, "simulate"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ},
    )
    assert run.returncode == 2
    assert "production-llm-patterns[server]" in run.stderr
