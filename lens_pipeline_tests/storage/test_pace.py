from lens_pipeline.storage.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_about_every_ten_seconds_says_rows_done_rows_a_second_and_the_time_left() -> None:
    clock, lines = Clock(), list[str]()
    pace = Pace("rendering", 10_000, lines.append, clock=clock)
    for _ in range(25):
        clock.now += 1
        pace.advance(20)
    assert lines == [
        "rendering: 200 of 10,000 rows (2.0%), 20 rows/s, 8 min 10 s left",
        "rendering: 400 of 10,000 rows (4.0%), 20 rows/s, 8 min 00 s left",
    ]
    pace.end()
    assert lines[2:] == ["rendering: 500 rows in 25 s"]


def test_rows_that_were_there_count_as_done_and_make_nothing_look_faster() -> None:
    clock, lines = Clock(), list[str]()
    pace = Pace("rendering", 1_000_000, lines.append, clock=clock)
    pace.find(900_000)
    for _ in range(2):
        clock.now += 9
        pace.advance(90)
    assert lines == [
        "rendering: 900,180 of 1,000,000 rows (90.0%), 10 rows/s, 2 h 46 min left; 900,000 were there already"
    ]


def test_the_start_of_processes_does_not_count_towards_the_time_left() -> None:
    clock, lines = Clock(), list[str]()
    pace = Pace("rendering", 1000, lines.append, clock=clock)
    clock.now += 30
    pace.find(100)
    for wait in (12, 10, 2, 10):
        clock.now += wait
        pace.advance(10 * wait)
    assert lines == [
        "rendering: 100 of 1,000 rows (10.0%), too early to say how much time is left; 100 were there already",
        "rendering: 220 of 1,000 rows (22.0%), too early to say how much time is left; 100 were there already",
        "rendering: 320 of 1,000 rows (32.0%), too early to say how much time is left; 100 were there already",
        "rendering: 440 of 1,000 rows (44.0%), 10 rows/s, 56 s left; 100 were there already",
    ]


def test_no_rate_is_made_up_before_a_row_is_done_and_short_work_says_nothing() -> None:
    clock, lines = Clock(), list[str]()
    pace = Pace("rendering", 1000, lines.append, clock=clock)
    clock.now += 9
    pace.advance(0)
    pace.end()
    assert lines == []
    clock.now += 2
    pace.find(10)
    assert lines == [
        "rendering: 10 of 1,000 rows (1.0%), too early to say how much time is left; 10 were there already"
    ]
