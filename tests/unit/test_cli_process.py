"""The command in a process of its own: what it imports, its streams, and how it ends when the world is unkind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
HEAVY = ("numpy", "openvino", "openvino_genai", "openai", "httpx", "pydantic", "rich", "torch", "faiss", "tokenizers",
         "eval.runner", "rag.thriftrag", "rag.models", "indexers")
# The command with the product replaced: {setup} sees `kb`, the fake facade.
PROGRAM = """
import os, sys
sys.path.insert(0, {here!r})
import cli_fakes
from rag.cli import main, session
kb = cli_fakes.FakeKB()
session.open_kb = lambda settings, create: kb
{setup}
sys.exit(main())
"""
PRINTS_FROM_BELOW = """
def ask(question, **_):
    print("a library speaks")
    os.write(1, b"and one in C\\n")
    return cli_fakes.ANSWER
kb.ask = ask
"""


def start(*args: str, setup: str = "", python: tuple[str, ...] = (), stdout: int | None = subprocess.PIPE,
          env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    program = PROGRAM.format(here=str(HERE), setup=setup)
    return subprocess.Popen([sys.executable, *python, "-c", program, *args], stdin=subprocess.DEVNULL, stdout=stdout,
                            stderr=subprocess.PIPE, env={**os.environ, **(env or {})})


def run(*args: str, setup: str = "", env: dict[str, str] | None = None) -> tuple[int, bytes, bytes]:
    process = start(*args, setup=setup, env=env)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_help_is_light() -> None:
    """What would make `--help` slow is not imported for it."""
    code = (f"import sys; sys.argv = ['thriftrag', '--help']\nfrom rag.cli import main\nassert main() == 0\n"
            f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    assert b"Usage: thriftrag" in done.stdout
    assert done.stderr.decode().splitlines()[-1] == "[]"


@pytest.mark.parametrize("args", [("ingest", "--help"), ("models", "--help"), ("eval", "--help"), ("--version",)])
def test_other_help_is_light_too(args: tuple[str, ...]) -> None:
    code = (f"import sys; sys.argv = ['thriftrag', *{args!r}]\nfrom rag.cli import main\nassert main() == 0\n"
            f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
    assert done.stderr.decode().splitlines()[-1] in ("[]", "['pydantic']")  # the parser's own, once there is a command


def test_the_installed_command_and_the_module_agree() -> None:
    script = Path(sys.executable).parent / "thriftrag"
    installed = subprocess.run([script, "--version"], capture_output=True, timeout=60, check=True)
    module = subprocess.run([sys.executable, "-m", "rag.cli", "--version"], capture_output=True, timeout=60, check=True)
    assert installed.stdout == module.stdout
    assert installed.stdout.startswith(b"thriftrag ")


def test_json_is_alone_on_stdout_whatever_libraries_print() -> None:
    code, out, err = run("ask", "Who?", "--json", setup=PRINTS_FROM_BELOW)
    assert code == 0
    value, end = json.JSONDecoder().raw_decode(out.decode())
    assert b"a library speaks" in err
    assert b"and one in C" in err
    assert value["answer"] == "Two years [1]."
    assert out.decode()[end:] == "\n"


@pytest.mark.parametrize("env", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
                                 {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "POSIX"}])
def test_output_is_utf8_whatever_the_locale(env: dict[str, str]) -> None:
    code, out, err = run("ask", "Who?", env=env)
    assert code == 0, err
    assert "“The warranty lasts two years.”" in out.decode("utf-8")
    code, out, err = run("ask", "Who?", setup=r"kb.error = cli_fakes.DocumentMissing('\u201c\xe9\u201d')", env=env)
    assert "“é”" in err.decode("utf-8")


def test_a_question_in_undecodable_bytes_is_refused() -> None:
    process = subprocess.Popen([sys.executable.encode(), b"-m", b"rag.cli", b"ask", b"caf\xe9", b"--json"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert json.loads(out)["error"]["message"] == "The question is not valid UTF-8 text."


@pytest.mark.skipif(os.name == "nt", reason="signals and pipes of POSIX")
@pytest.mark.parametrize("args", [("--help",), ("config",), ("config", "--json"), ("ask", "Who?"),
                                  ("ask", "Who?", "--stream")])
def test_a_closed_pipe_is_silent(args: tuple[str, ...]) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start(*args, stdout=write)
    os.close(write)
    _, err = process.communicate(timeout=60)
    assert err == b""
    assert process.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_a_failure() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    process = start("config", "--json", stdout=full)
    os.close(full)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err == b"Error: the output could not be written: No space left on device.\n"


@pytest.mark.skipif(os.name == "nt", reason="closed descriptors of POSIX")
def test_a_command_without_stdout_still_runs() -> None:
    script = f"exec {sys.executable} -m rag.cli config --json >&-"
    assert subprocess.run(["sh", "-c", script], capture_output=True, timeout=60, check=True).stderr == b""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_leaves_while_a_model_computes_in_c() -> None:
    """`time.sleep` in the work's thread stands for a call that listens to nobody."""
    setup = """
import time
def ask(question, **_):
    print("computing", file=sys.stderr, flush=True)
    time.sleep(60)
kb.ask = ask
"""
    process = start("ask", "Who?", setup=setup)
    assert process.stderr is not None
    assert process.stderr.readline() == b"computing\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"Stopped. Nothing was changed.\n")


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_before_the_command_has_begun() -> None:
    setup = """
import rag.cli.process
def run():
    raise KeyboardInterrupt
rag.cli.process.run = run
"""
    assert run("config", setup=setup) == (130, b"", b"Stopped.\n")


def test_no_bars_and_no_colours_in_a_pipe() -> None:
    code, out, err = run("ingest", str(HERE), env={"TERM": "xterm-256color"})
    assert code == 0
    assert b"\x1b" not in out + err
