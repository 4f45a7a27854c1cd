"""Keeps skips honest: in CI, a skipped test that is not listed with its reason is a failure.

And has Hypothesis look at results alone: how long an example takes depends on who else is running.
And gives every test the log level of a fresh process, whatever a server in another one was told.
"""

import logging
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("hypothesis"):  # the environment of `make test-clients` does without
    from hypothesis import settings

    settings.register_profile("untimed", deadline=None)
    settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def usual_log_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


_LISTED = Path(__file__).with_name("expected_skips.txt")


def _expected_skips() -> list[str]:
    lines = _LISTED.read_text("utf-8").splitlines()
    return [line.split("\t")[0] for line in lines if line and not line.startswith("#")]


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") != "true" or reporter is None:
        return
    skipped = {report.nodeid for report in reporter.stats.get("skipped", [])}
    unexpected = {each for each in skipped if not each.startswith(tuple(_expected_skips()))}
    if unexpected:
        reporter.write_line(f"skipped but not in {_LISTED.name}: {sorted(unexpected)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
