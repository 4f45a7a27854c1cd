"""`rank` reads lines or JSON Lines, ranks in process and prints a table or JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rerank_sidecar.cli.commands import commands

LINES = "the sky is blue\n\nan apple is a red fruit\nfruit flies\n"


def _rank(*arguments: str, stdin: str | bytes | None = None, query: str = "red fruit") -> Result:
    command = ["rank", "--model", "lexical", "--query", query, *arguments]
    return CliRunner().invoke(commands, command, input=stdin)


def _rank_json(*arguments: str, stdin: str | bytes | None = None) -> dict[str, Any]:
    ran = _rank("--json", *arguments, stdin=stdin)
    assert ran.exit_code == 0, ran.output
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_table_of_a_file_says_where_each_text_came_from(tmp_path: Path) -> None:
    file = tmp_path / "lines.txt"
    file.write_text(LINES)
    ran = _rank(str(file))
    assert ran.exit_code == 0, ran.output
    head, first, second, third, *_ = ran.stdout.splitlines()
    assert head.split() == ["rank", "score", "from", "text"]
    assert first.startswith("1 ")
    assert first.endswith("line 3  an apple is a red fruit")
    assert "line 4  fruit flies" in second
    assert "line 1  the sky is blue" in third
    assert "lexical" in ran.stdout


@pytest.mark.parametrize("file", [["-"], []])
def test_json_of_piped_lines(file: list[str]) -> None:
    found = _rank_json(*file, stdin=LINES)
    assert found["query"] == "red fruit"
    assert found["model"]["name"] == "lexical"
    assert found["score_kind"] == "LEXICAL"
    assert [each["line"] for each in found["results"]] == [3, 4, 1]
    first = found["results"][0]
    assert (first["rank"], first["index"], first["id"]) == (1, 1, None)
    assert first["text"] == "an apple is a red fruit"
    assert found["results"][0]["score"] > found["results"][1]["score"]
    assert found["errors"] == []


def test_json_lines_are_known_by_their_ids() -> None:
    stdin = '{"id": "sky", "text": "the sky"}\n{"text": "red fruit", "id": 7, "other": [1]}\n'
    found = _rank_json(stdin=stdin)
    assert [each["id"] for each in found["results"]] == ["7", "sky"]
    table = _rank(stdin=stdin).stdout.splitlines()
    assert table[1].endswith("7     red fruit")


def test_top_n_and_unit_scores() -> None:
    found = _rank_json("--top-n", "2", "--normalize", "unit", stdin=LINES)
    assert len(found["results"]) == 2
    assert found["normalization"] == "unit"
    assert all(0 <= each["score"] <= 1 for each in found["results"])


def test_byte_order_mark_and_other_scripts() -> None:
    found = _rank_json(stdin="\ufeff빨간 과일\nred fruit\n".encode())
    assert {each["text"] for each in found["results"]} == {"빨간 과일", "red fruit"}


def test_control_characters_do_not_reach_the_terminal() -> None:
    ran = _rank(stdin="red \x1b[31m [bold]fruit[/bold]\tpie\n")
    assert "\x1b" not in ran.stdout
    assert "red [31m [bold]fruit[/bold] pie" in ran.stdout


BIDI_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


@pytest.mark.parametrize("control", BIDI_CONTROLS, ids=ascii)
def test_what_turns_the_direction_of_text_does_not_reach_the_terminal(control: str) -> None:
    line = {"id": f"a{control}b", "text": f"red{control}fruit"}
    ran = _rank(stdin=json.dumps(line))
    assert control not in ran.stdout
    assert "a b   red fruit" in ran.stdout


def test_a_complaint_is_one_line_whatever_the_id() -> None:
    lines = [{"text": "red fruit"}, {"id": "a\n\x1b\u202eb", "text": "x" * 100}]
    ran = _rank("--max-document-bytes", "50", stdin="\n".join(map(json.dumps, lines)))
    (complaint,) = ran.stderr.splitlines()
    assert complaint.startswith("rerank-sidecar: a b could not be scored: ")


def test_json_lines_with_half_an_emoji_are_read() -> None:
    stdin = r'{"id": "\udc00", "text": "red \ud83d"}' + "\n" + r'{"text": "\ud83d\ude00"}'
    found = _rank_json(stdin=stdin)
    texts = {each["id"]: each["text"] for each in found["results"]}
    assert texts == {"\ufffd": "red \ufffd", None: "😀"}


def test_a_document_that_fails_alone_is_told_beside_the_others() -> None:
    stdin = "red fruit\n" + "x" * 100 + "\n"
    ran = _rank("--max-document-bytes", "50", stdin=stdin)
    assert ran.exit_code == 0
    assert "red fruit" in ran.stdout
    assert "line 2 could not be scored" in ran.stderr
    found = json.loads(_rank("--json", "--max-document-bytes", "50", stdin=stdin).stdout)
    assert [each["line"] for each in found["results"]] == [1]
    assert [(each["line"], each["reason"]) for each in found["errors"]] == [(2, "LIMIT_EXCEEDED")]


def test_nothing_scored_is_a_failure() -> None:
    ran = _rank("--max-document-bytes", "1", stdin="red fruit\n")
    assert ran.exit_code == 1
    assert "line 1 could not be scored" in ran.stderr


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\n \n", "has no text to rank"),
        (b'{"text": "a"}\n{"text": 1}\n', 'line 2: not a JSON object with "text"'),
        (b'{"text": "a"}\nb\n', 'line 2: not a JSON object with "text"'),
        (b'{"id": "a"}\n', 'line 1: not a JSON object with "text"'),
        (b"a\nb\xff\n", "line 2: not UTF-8 text"),
        (b'{"text": "a"}\n{"text": "\xff"}\n', "line 2: not"),
        (b'{"text": "a"}\n{"text": "b", "n": NaN}\n', "line 2: not a JSON object"),
        (b'{"text": "a"}\n{"n": ' + b"[" * 100_000, "line 2: not a JSON object"),
    ],
)
def test_malformed_input_is_one_clear_line(content: bytes, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "input"
    file.write_bytes(content)
    ran = _rank(str(file))
    assert ran.exit_code == 2
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"rerank-sidecar: {file}")
    assert complaint in line


def test_text_that_begins_with_a_brace_is_text() -> None:
    found = _rank_json(stdin="{red} fruit\nsky\n")
    assert found["results"][0]["text"] == "{red} fruit"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["missing.txt"], "cannot read missing.txt: No such file or directory"),
        (["--top-n", "0", "-"], "top_n"),
        (["--config", "missing.toml", "-"], "config file missing.toml does not exist"),
        (["--workers", "0", "-"], "workers: "),
    ],
)
def test_wrong_use_is_one_clear_line(arguments: list[str], complaint: str) -> None:
    ran = _rank(*arguments, stdin="a\n")
    assert ran.exit_code == 2
    (line,) = ran.stderr.splitlines()
    assert complaint in line


def test_command_line_over_environment_over_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "sidecar.toml"
    config.write_text('model = "./no-such-model-in-the-file"\n')
    with_file = ["rank", "--query", "a", "--config", str(config)]
    assert "in-the-file" in CliRunner().invoke(commands, with_file, input="a\n").stderr
    monkeypatch.setenv("RERANK_SIDECAR_MODEL", "./no-such-model-in-the-environment")
    assert "in-the-environment" in CliRunner().invoke(commands, with_file, input="a\n").stderr
    ran = CliRunner().invoke(commands, [*with_file, "--model", "lexical"], input="a\n")
    assert ran.exit_code == 0


def test_real_command_in_a_pipe() -> None:
    command = [sys.executable, "-m", "rerank_sidecar", "rank", "--model", "lexical", "-q", "fruit"]
    ran = subprocess.run(command, input=LINES, capture_output=True, text=True, check=True)
    assert "fruit flies" in ran.stdout.splitlines()[1]
    assert ran.stderr == ""
    assert all(len(line) <= 160 for line in ran.stdout.splitlines())


def _run_in_shell(redirection: str, *, unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m rerank_sidecar rank --model lexical -q fruit {redirection}"
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, env=environment
    )


def test_closed_standard_input_is_one_clear_line() -> None:
    ran = _run_in_shell("<&-")
    assert ran.returncode == 2
    assert ran.stderr == "rerank-sidecar: name a FILE, or pipe lines of text into the command\n"


def test_closed_standard_output_takes_nothing_and_does_not_fail() -> None:
    ran = _run_in_shell("<<< 'red fruit' >&-")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("flag", ["", "--json", "--help"])
def test_output_that_cannot_be_written_is_one_clear_line(flag: str, unbuffered: str) -> None:
    ran = _run_in_shell(f"{flag} <<< 'red fruit' > /dev/full", unbuffered=unbuffered)
    assert ran.returncode == 1
    assert ran.stderr == "rerank-sidecar: cannot write: No space left on device\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("flag", ["", "--json"])
def test_a_reader_that_has_seen_enough_is_no_complaint(flag: str, unbuffered: str) -> None:
    ran = _run_in_shell(
        f"{flag} <<< 'red fruit' | true; exit ${{PIPESTATUS[0]}}", unbuffered=unbuffered
    )
    assert (ran.returncode, ran.stderr) == (1, "")


@pytest.mark.parametrize(("flags", "name"), [([], "small"), (["--model", "words"], "words")])
def test_of_several_models_the_default_ranks(tmp_path: Path, flags: list[str], name: str) -> None:
    config = tmp_path / "sidecar.toml"
    config.write_text(
        '[[models]]\nname = "small"\nsource = "embedded"\n'
        '[[models]]\nname = "words"\nsource = "lexical"\n'
        '[[models]]\nname = "never-loaded"\nsource = "./no-such-folder"\n'
    )
    command = ["rank", "--query", "a", "--json", "--config", str(config), *flags]
    ran = CliRunner().invoke(commands, command, input="a\n")
    assert json.loads(ran.stdout)["model"]["name"] == name
