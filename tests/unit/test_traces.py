"""Real load curves as hours."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scorers.errors import InputError
from scorers.forecast.schema import HOUR_MS, HOURS, UNIT
from tidewatch.forecast.traces import names, trace

FIRST = pd.Timestamp("1995-07-01")


def web(folder: Path, minutes: pd.DataFrame) -> Path:
    minutes.to_parquet(folder / "nasa_http_requests_per_minute.parquet")
    return folder


def minutes(count: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    stamps = FIRST + pd.to_timedelta(np.arange(count), "min")
    return pd.DataFrame(
        {"timestamp": stamps.astype("datetime64[ms]"), "requests": random.poisson(50, count), "outage": 0}
    )


def test_an_hour_holds_its_largest_five_minutes(tmp_path: Path) -> None:
    given = minutes(6 * 60)
    hours = trace("nasa", web(tmp_path, given))
    sums = given.requests.to_numpy().reshape(6, 12, 5).sum(axis=2).max(axis=1)

    assert hours.schema == HOURS
    assert hours["peak_total"].to_pylist() == np.rint(sums / np.median(sums) * 200 * UNIT).astype(int).tolist()
    assert hours["hour"].to_pylist()[0] == pd.Timestamp("1995-07-01T04:00Z").value // 10**6, "it is told in local time"


def test_an_outage_and_what_was_hardly_measured_are_missing(tmp_path: Path) -> None:
    given = minutes(8 * 60)
    given.loc[60:179, "outage"] = 1
    hours = trace("nasa", web(tmp_path, given.drop(index=range(5 * 60, 5 * 60 + 40))))
    places = (np.array(hours["hour"]) - hours["hour"][0].as_py()) // HOUR_MS

    assert places.tolist() == [0, 3, 4, 6, 7]


def test_minutes_not_measured_were_as_the_rest_of_their_five(tmp_path: Path) -> None:
    given = minutes(3 * 60)
    given["requests"] = 10
    hours = trace("nasa", web(tmp_path, given.drop(index=[3, 61, 62, 130])))

    assert hours["peak_total"].to_pylist() == [200 * UNIT] * 3


def test_an_unknown_trace_and_a_missing_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="use one of"):
        trace("moon", tmp_path)
    with pytest.raises(InputError, match="TIDEWATCH_DATA"):
        trace("nasa", tmp_path)


@pytest.mark.parametrize("name", names())
def test_every_trace_has_hours_in_order_on_a_common_scale(name: str, data_root: Path) -> None:
    hours = trace(name, data_root)
    frame = hours.to_pandas()

    assert hours.schema == HOURS
    assert not frame.duplicated(["server", "hour"]).any()
    assert frame.sort_values(["server", "hour"]).index.equals(frame.index)
    assert (frame.hour % HOUR_MS == 0).all()
    assert frame.peak_total.median() / UNIT == pytest.approx(200, abs=1)
    assert (frame.peak_total >= 0).all()


def test_what_nobody_measured_is_missing(data_root: Path) -> None:
    nasa = np.array(trace("nasa", data_root)["hour"])
    planetlab = trace("planetlab", data_root).to_pandas()
    days = planetlab.groupby("server").hour.apply(lambda hours: len(set(hours // (24 * HOUR_MS))))

    assert min((np.diff(nasa)[np.diff(nasa) > HOUR_MS] / HOUR_MS).tolist()) >= 37, "the hurricane"
    assert (np.diff(nasa) > HOUR_MS).sum() == 2
    assert days.between(9, 10).all()
