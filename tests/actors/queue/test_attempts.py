"""Each sentence of the rule of attempts, as pure functions."""

from __future__ import annotations

import pytest

from actors.queue.attempts import (
    MOST_FAILURES,
    Tally,
    Verdict,
    daemon_vanished,
    forgiven,
    progressed,
    reported,
    rested,
    running,
    trainer_vanished,
)

BOOT = "boot-1"


def test_a_reported_failure_spends_one_and_the_third_parks() -> None:
    tally, verdicts = Tally(), []
    for _ in range(3):
        tally, verdict = reported(running(tally, BOOT), 3)
        verdicts.append(verdict)
    assert verdicts == ["back", "back", "park"]
    assert tally.attempts == tally.failures == 3
    assert tally.live_boot is None


def test_a_failure_after_progress_spends_none_and_resumes_in_place() -> None:
    tally, verdict = reported(progressed(Tally(), 5), 3)
    assert (tally.attempts, tally.failures, verdict) == (0, 1, "resume")
    tally, verdict = reported(tally, 3)
    assert (tally.attempts, verdict) == (1, "back"), "progress has not risen since the previous failure"


def test_progress_counts_from_the_previous_failure_and_not_from_the_highest_point() -> None:
    tally, _ = reported(progressed(Tally(), 5), 3)
    tally = progressed(tally, 3)  # fell back past a torn checkpoint
    tally, verdict = reported(tally, 3)
    assert (tally.attempts, verdict) == (1, "back")
    tally, verdict = reported(progressed(tally, 4), 3)
    assert (tally.attempts, verdict) == (1, "resume")


def test_at_most_twenty_failures_whatever_the_progress() -> None:
    tally, verdict = Tally(), "resume"
    for number in range(1, MOST_FAILURES + 1):
        assert verdict == "resume", f"parked after {number - 1}"
        tally, verdict = reported(progressed(tally, number), 3)
    assert verdict == "park"
    assert tally.attempts == 0


def test_a_vanishing_trainer_resumes_in_place_and_the_third_in_a_row_spends_one() -> None:
    tally = Tally()
    verdicts: list[Verdict] = []
    for _ in range(6):
        tally, verdict = trainer_vanished(tally, 3)
        verdicts.append(verdict)
    assert verdicts == ["resume", "resume", "back"] * 2
    assert tally.attempts == 2


def test_only_progress_resets_the_vanishings() -> None:
    tally, _ = trainer_vanished(Tally(), 3)
    tally, _ = trainer_vanished(tally, 3)
    assert progressed(tally, 0).vanished == 2
    assert rested(tally).vanished == 2
    tally = progressed(tally, 1)
    assert tally.vanished == 0
    assert trainer_vanished(tally, 3)[1] == "resume"


def test_the_last_attempt_may_be_spent_by_vanishing() -> None:
    tally = Tally()
    for _ in range(8):
        tally, verdict = trainer_vanished(tally, 3)
        assert verdict != "park"
    assert trainer_vanished(tally, 3)[1] == "park"


def test_three_daemons_in_a_row_in_one_boot_are_suspicious_and_spend_nothing() -> None:
    tally, verdicts = Tally(), []
    for _ in range(3):
        tally, verdict = daemon_vanished(running(tally, BOOT), BOOT)
        verdicts.append(verdict)
    assert verdicts == ["resume", "resume", "park"]
    assert tally.attempts == tally.failures == 0


def test_a_daemon_that_vanishes_in_loading_is_not_counted() -> None:
    tally = Tally()
    for _ in range(5):
        tally, verdict = daemon_vanished(rested(tally), BOOT)
        assert verdict == "resume"
    assert tally.lost == 0


def test_another_boot_may_have_been_a_power_cut() -> None:
    tally, _ = daemon_vanished(running(Tally(), BOOT), BOOT)
    tally, _ = daemon_vanished(running(tally, BOOT), BOOT)
    tally, verdict = daemon_vanished(running(tally, BOOT), "boot-2")
    assert (tally.lost, verdict) == (0, "resume")


def test_three_in_two_boots_are_not_three_in_one() -> None:
    tally, _ = daemon_vanished(running(Tally(), BOOT), BOOT)
    tally, _ = daemon_vanished(running(tally, BOOT), BOOT)
    tally, verdict = daemon_vanished(running(rested(tally), "boot-2"), "boot-2")
    assert (tally.lost, verdict) == (1, "resume"), "the machine was restarted while the job rested"


def test_a_newer_checkpoint_between_resets_the_daemons_too() -> None:
    tally, _ = daemon_vanished(running(Tally(), BOOT), BOOT)
    tally, _ = daemon_vanished(running(tally, BOOT), BOOT)
    tally, verdict = daemon_vanished(running(progressed(tally, 7), BOOT), BOOT)
    assert (tally.lost, verdict) == (1, "resume")


def test_a_retry_forgives_everything_but_the_progress() -> None:
    tally = forgiven(Tally(attempts=3, failures=9, progress=4, progress_at_failure=2, vanished=2, lost=2))
    assert tally == Tally(progress=4, progress_at_failure=4)
    assert reported(tally, 3)[1] == "back", "the progress of before the retry is no progress since"


@pytest.mark.parametrize("most", [1, 2, 5])
def test_the_number_of_attempts_is_a_setting(most: int) -> None:
    tally, spent = Tally(), 0
    verdict: Verdict = "back"
    while verdict != "park":
        tally, verdict = reported(tally, most)
        spent += 1
    assert spent == most
