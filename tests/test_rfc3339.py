"""Timestamps: strict parsing, and rendering."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handler import rfc3339

SEVEN = datetime(2026, 11, 20, 19, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ("2026-11-20T19:00:00Z", SEVEN),
        ("2026-11-20t19:00:00z", SEVEN),
        ("2026-11-20T19:00:00+00:00", SEVEN),
        ("2026-11-20T19:00:00-00:00", SEVEN),
        ("2026-11-20T20:00:00+01:00", SEVEN),
        ("2026-11-20T15:30:00-03:30", SEVEN),
        ("2026-11-21T00:45:00+05:45", SEVEN),
        ("2026-11-21T18:59:00+23:59", SEVEN),
        ("2026-11-19T19:01:00-23:59", SEVEN),
        ("2024-02-29T00:00:00Z", datetime(2024, 2, 29, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999Z", datetime.max.replace(tzinfo=UTC)),
        # A leap second is the second after `:59`.
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2017-01-01T00:59:60+01:00", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2016-12-31T23:59:60.25Z", datetime(2017, 1, 1, 0, 0, 0, 250000, UTC)),
    ],
)
def test_a_timestamp_is_parsed_to_utc(text: str, stamp: datetime) -> None:
    """Whatever the offset, with letters in either case."""
    read = rfc3339.parse(text)
    assert (read, read.utcoffset()) == (stamp, timedelta(0))


@pytest.mark.parametrize("digits", range(1, 13))
def test_a_fraction_may_have_any_number_of_digits(digits: int) -> None:
    """Up to the microsecond each digit counts; what is finer is cut off, not rounded."""
    fraction = "198765999999"[:digits]
    micros = int(f"{fraction:0<6}"[:6])
    assert rfc3339.parse(f"2026-11-20T19:00:00.{fraction}Z") == SEVEN + timedelta(microseconds=micros)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-20T19:00:00",
        "2026-11-20T19:00:00.5",
        "2026-11-20",
        "19:00:00Z",
        "2026-11-20 19:00:00Z",
        "2026-11-20T19:00Z",
        "2026-11-20T19:00:00.Z",
        "2026-11-20T19:00:00,5Z",
        "2026-11-20T19:00:00+0100",
        "2026-11-20T19:00:00+01",
        "2026-11-20T19:00:00+1:00",
        "2026-11-20T19:00:00 Z",
        "2026-11-20T19:00:00CET",
        " 2026-11-20T19:00:00Z",
        "2026-11-20T19:00:00Z\n",
        "2026-11-20T19:00:00ZZ",
        "26-11-20T19:00:00Z",
        "20261120T190000Z",
        "2026-324T19:00:00Z",
        "+2026-11-20T19:00:00Z",
        "\u0662\u0660\u0662\u0666-11-20T19:00:00Z",
        "1795201200",
        "now",
        "",
    ],
)
def test_what_is_not_rfc_3339_with_a_zone_is_refused(text: str) -> None:
    """No zone, another form of ISO 8601, other digits, or random text: never a guess."""
    with pytest.raises(ValueError, match="not an RFC 3339"):
        rfc3339.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-29T19:00:00Z",
        "2026-13-01T19:00:00Z",
        "2026-00-01T19:00:00Z",
        "2026-11-31T19:00:00Z",
        "2026-11-20T24:00:00Z",
        "2026-11-20T19:60:00Z",
        "2026-11-20T19:00:61Z",
        "0000-01-01T00:00:00Z",
        "2026-11-20T19:00:00+24:00",
        "2026-11-20T19:00:00-01:60",
        "9999-12-31T23:59:60Z",
        "9999-12-31T23:59:59-00:01",
        "0001-01-01T00:00:00+00:01",
    ],
)
def test_a_moment_that_does_not_exist_is_refused(text: str) -> None:
    """The right form is not enough: month, day, hour, offset and year must exist, in UTC too."""
    with pytest.raises(ValueError, match=r"must be|out of range|no such zone|outside the years"):
        rfc3339.parse(text)


@pytest.mark.parametrize(
    ("stamp", "text"),
    [
        (SEVEN, "2026-11-20T19:00:00.000Z"),
        (SEVEN.replace(microsecond=120999), "2026-11-20T19:00:00.120Z"),
        (datetime(2026, 11, 20, 20, 0, tzinfo=timezone(timedelta(hours=1))), "2026-11-20T19:00:00.000Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000Z"),
    ],
)
def test_a_moment_is_written_in_utc_with_milliseconds(stamp: datetime, text: str) -> None:
    """One way to write, whatever zone the moment came in."""
    assert rfc3339.render(stamp) == text


_zones = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_stamps = st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31), timezones=_zones)


@given(_stamps)
def test_what_python_writes_is_read_as_the_same_moment(stamp: datetime) -> None:
    """The ISO form of any aware moment comes back exactly."""
    read = rfc3339.parse(stamp.isoformat())
    assert (read, read.tzinfo) == (stamp, UTC)


@given(_stamps)
def test_what_is_written_can_be_read_again(stamp: datetime) -> None:
    """Writing loses what is finer than a millisecond, and nothing else."""
    lost = stamp - rfc3339.parse(rfc3339.render(stamp))
    assert timedelta(0) <= lost < timedelta(milliseconds=1)


@given(st.text() | st.text(alphabet="0123456789-:+.TtZz ", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but ValueError comes out of text that is not a timestamp."""
    try:
        read = rfc3339.parse(text)
    except ValueError:
        return
    assert read.tzinfo is UTC
