"""Progress without a terminal, and the two output streams."""

import pytest

from i2l_meshnet import console


def test_without_a_terminal_progress_is_a_line_each_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    for _ in console.track(range(10), "evaluating", 10):
        clock[0] += 25.0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["3", "6", "9"]
    assert "of 10" in lines[0]
    assert "3 min left" in lines[0]


def test_results_and_messages_have_streams_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    console.output("a [red]result[/red]\x1b[2J")
    console.message("a message")
    assert capsys.readouterr() == ("a [red]result[/red]\\x1b[2J\n", "a message\n")
