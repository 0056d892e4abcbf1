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
    clock.now += 10
    pace.advance(100)
    assert lines == [
        "rendering: 900,100 of 1,000,000 rows (90.0%), 10 rows/s, 2 h 46 min left; 900,000 were there already"
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
    assert lines == ["rendering: 10 of 1,000 rows (1.0%); 10 were there already"]
