"""Forecasters: trained on the past alone, equal to scikit-learn, filled for new servers, kept in one file."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from scorers.errors import ConfigError, ForecasterFileError, ModelError
from scorers.forecast import pack
from scorers.forecast.encode import HISTORY, Encoder, strange
from scorers.forecast.features import features
from scorers.forecast.fit import BOOSTED, PUBLISHED, Recipe, Teaching, fit, held_out, importance, judged
from scorers.forecast.labels import classes, halves, quantiles, scaled
from scorers.forecast.model import Forecaster, profile, stacked, week_hours
from scorers.forecast.schema import FEATURES, HOUR_MS
from tests.loads import DAY_MS, SPEC, START, hours, rows, targets

SPLIT = START + 16 * DAY_MS
TEACHING = Teaching((100.0, 500.0), SPEC, "v1")
SMALL = (
    replace(PUBLISHED, options={**PUBLISHED.options, "n_estimators": 9}),
    replace(BOOSTED[0], options={**BOOSTED[0].options, "max_iter": 9}),
    replace(BOOSTED[2], options={**BOOSTED[2].options, "max_iter": 9}),
)
each_recipe = pytest.mark.parametrize("recipe", SMALL, ids=lambda recipe: recipe.name)


@pytest.fixture(scope="module")
def known() -> pa.Table:
    return rows(hours())


@pytest.fixture(scope="module")
def forecasters(known: pa.Table) -> dict[str, Forecaster]:
    return {recipe.name: fit(halves(known, SPLIT)[0], recipe, TEACHING) for recipe in SMALL}


def test_no_load_is_low_and_thresholds_belong_to_the_class_below() -> None:
    found = classes(np.array([0, 99.9, 100, 100.000001, 500, 501, np.nan]), (100, 500))

    assert found.tolist() == [0, 0, 0, 1, 1, 2, -1]
    assert scaled((100, 500), 7) == (700, 3500)


def test_an_hour_under_way_at_the_split_neither_teaches_nor_tests(known: pa.Table) -> None:
    training, test = halves(known, SPLIT + HOUR_MS // 2)

    assert pc.max(training["hour"]).as_py() <= SPLIT - HOUR_MS
    assert pc.min(test["hour"]).as_py() >= SPLIT + HOUR_MS


@each_recipe
def test_nothing_of_the_test_rows_changes_a_model(known: pa.Table, recipe: Recipe) -> None:
    """Scaler, servers, profile and trees are those of training: test rows may say what they will."""
    training, test = halves(known, SPLIT)
    wild = [
        pa.array(np.full(len(test), 1e6)) if name in {"load", *HISTORY} else test[name] for name in test.schema.names
    ]
    mixed = pa.concat_tables([training, pa.table(wild, schema=FEATURES)])

    assert pack.dumps(fit(halves(mixed, SPLIT)[0], recipe, TEACHING)) == pack.dumps(fit(training, recipe, TEACHING))


def test_quantiles_part_the_loads_they_are_given() -> None:
    load = np.arange(1000.0)
    low, high = quantiles(load, (0.5, 0.9))

    assert np.bincount(classes(load, (low, high))).tolist() == [500, 400, 100]
    with pytest.raises(ConfigError, match=r"load\.quantiles .* in order"):
        quantiles(load, (0.9, 0.5))
    with pytest.raises(ModelError, match="Both quantiles"):
        quantiles(np.zeros(10), (0.5, 0.9))


def test_history_is_standardised_over_training_rows(known: pa.Table) -> None:
    encoder = Encoder.fit(known)
    matrix = encoder.matrix(known)
    lag = matrix[:, encoder.inputs.index("lag_48")]

    assert np.nanmean(lag) == pytest.approx(0, abs=1e-5)
    assert np.nanstd(lag) == pytest.approx(1, abs=1e-5)
    assert np.isnan(lag).sum() == known["lag_48"].null_count
    assert "year" not in encoder.inputs, "which is the same in every row"


def test_servers_are_numbered_by_their_load_and_a_new_one_is_missing(known: pa.Table) -> None:
    encoder = Encoder.fit(known)
    means = known.group_by("server").aggregate([("load", "mean")]).sort_by("load_mean")
    new = features(hours(), targets(["new"], SPLIT, 1), SPEC)

    assert list(encoder.servers) == means["server"].to_pylist()
    assert np.isnan(encoder.matrix(new)[0, encoder.inputs.index("server")])


def test_a_packed_forest_equals_scikit_learn(known: pa.Table, forecasters: dict[str, Forecaster]) -> None:
    training, test = halves(known, SPLIT)
    training = training.filter(pa.array(~strange(training)))
    ours = forecasters["forest"]
    theirs = RandomForestClassifier(**SMALL[0].options)
    theirs.fit(ours.encoder.matrix(training), classes(training["load"].to_numpy(), (100, 500)))

    np.testing.assert_allclose(ours.predict(test), theirs.predict_proba(ours.encoder.matrix(test)), rtol=0, atol=1e-12)


def test_a_packed_ordinal_model_equals_two_of_scikit_learn(known: pa.Table, forecasters: dict[str, Forecaster]) -> None:
    training, test = halves(known, SPLIT)
    training = training.filter(pa.array(~strange(training)))
    ours = forecasters["ordinal"]
    truth = classes(training["load"].to_numpy(), (100, 500))
    above = []
    for least in (0, 1):
        theirs = HistGradientBoostingClassifier(**SMALL[1].options)
        theirs.fit(ours.encoder.matrix(training), truth > least)
        above.append(theirs.predict_proba(ours.encoder.matrix(test))[:, 1])

    np.testing.assert_allclose(ours.predict(test), stacked(*above), rtol=0, atol=1e-12)


def test_ordinal_probabilities_never_cross() -> None:
    made = stacked(np.array([0.2, 0.9]), np.array([0.3, 0.1]))

    assert made.min() >= 0
    np.testing.assert_allclose(made.sum(axis=1), 1)


@each_recipe
def test_probabilities_add_up_and_beat_a_guess(
    known: pa.Table, forecasters: dict[str, Forecaster], recipe: Recipe
) -> None:
    test = halves(known, SPLIT)[1]
    probabilities = forecasters[recipe.name].predict(test)

    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert judged(forecasters[recipe.name], test).accuracy > 0.8
    assert forecasters[recipe.name].predict(test.slice(0, 0)).shape == (0, 3)


def test_two_classes_are_enough(known: pa.Table) -> None:
    quiet = known.filter(pc.less_equal(known["load"], 500))
    for recipe in SMALL:
        forecaster = fit(quiet, recipe, TEACHING)

        assert forecaster.predict(quiet)[:, 2].max() == 0
        assert pack.loads(pack.dumps(forecaster), Path("a")).seen == (0, 1)


def test_one_class_is_refused(known: pa.Table) -> None:
    with pytest.raises(ModelError, match=r"every hour to train on is low; set load\.thresholds"):
        fit(known, PUBLISHED, replace(TEACHING, thresholds=(1e6, 1e7)))


def test_hours_without_history_teach_nothing_and_alone_are_refused(known: pa.Table) -> None:
    with pytest.raises(ModelError, match="history, which begins 48 hours after"):
        fit(halves(known, START + 47 * HOUR_MS)[0], PUBLISHED, TEACHING)


def test_a_new_server_gets_the_fleets_average_and_is_marked(
    known: pa.Table, forecasters: dict[str, Forecaster]
) -> None:
    wanted = features(hours(), targets(["10.0.0.1", "new"], SPLIT, 48), SPEC)
    filled, fleet = forecasters["ordinal"].fill(wanted)
    training = halves(known, SPLIT)[0]
    same_hour = pc.and_(pc.equal(training["weekday"], 2), pc.equal(training["hour_of_day"], 0))
    average = pc.mean(training.filter(same_hour)["lag_168"]).as_py()

    assert len(filled) == len(wanted) == 96, "never skipped"
    assert fleet.tolist() == [False] * 48 + [True] * 48
    assert filled.slice(0, 48) == wanted.slice(0, 48)
    assert filled["lag_168"][48].as_py() == pytest.approx(average)
    assert not strange(filled).any()


def test_a_row_with_some_history_keeps_what_it_lacks_missing(forecasters: dict[str, Forecaster]) -> None:
    wanted = features(hours(days=3), targets(["10.0.0.1"], START + 3 * DAY_MS, 1), SPEC)
    filled, fleet = forecasters["ordinal"].fill(wanted)

    assert filled == wanted
    assert not fleet.any()
    assert wanted["lag_168"][0].as_py() is None


def test_the_profile_is_the_mean_by_hour_of_the_week(known: pa.Table) -> None:
    made = profile(known)
    frame = known.to_pandas()
    means = frame.groupby(24 * frame.weekday + frame.hour_of_day)[list(HISTORY)].mean()

    np.testing.assert_allclose(made[:, HISTORY.index("lag_48")], means["lag_48"])
    assert np.isnan(made[:, HISTORY.index("lag_730")]).all(), "nobody knows"
    assert week_hours(known).max() == 167


def test_candidates_are_judged_by_the_last_fifth_of_training(known: pa.Table) -> None:
    early, late = held_out(halves(known, SPLIT)[0])

    assert pc.max(early["hour"]).as_py() + HOUR_MS == pc.min(late["hour"]).as_py()
    assert len(late) / (len(early) + len(late)) == pytest.approx(0.2, abs=0.02)
    assert pc.max(late["hour"]).as_py() < SPLIT


def test_importance_names_what_the_model_leans_on(known: pa.Table, forecasters: dict[str, Forecaster]) -> None:
    found = importance(forecasters["ordinal"], halves(known, SPLIT)[1])

    assert next(iter(found)) in {"lag_168", "lag_48", "lag_72", "server"}
    assert set(found) == set(forecasters["ordinal"].encoder.inputs)


@each_recipe
def test_a_file_gives_back_the_forecaster(
    known: pa.Table, forecasters: dict[str, Forecaster], recipe: Recipe, tmp_path: Path
) -> None:
    saved = forecasters[recipe.name]
    pack.save(saved, tmp_path / "models" / "forecaster.twf")
    loaded = pack.load(tmp_path / "models" / "forecaster.twf")

    assert (loaded.predict(known) == saved.predict(known)).all()
    assert pack.dumps(loaded) == pack.dumps(saved)
    assert (loaded.version, loaded.spec, loaded.thresholds, loaded.kind) == ("v1", SPEC, (100.0, 500.0), saved.kind)
    assert pack.fingerprint(tmp_path / "models" / "forecaster.twf")


def test_a_torn_or_tampered_file_is_refused(forecasters: dict[str, Forecaster]) -> None:
    content = pack.dumps(forecasters["ordinal"])
    random = np.random.default_rng(3)
    for place in random.integers(0, len(content), 50):
        changed = bytearray(content)
        changed[place] ^= 1

        with pytest.raises(ForecasterFileError, match=r"changed after it was written|no forecaster"):
            pack.loads(bytes(changed), Path("a.twf"))
        with pytest.raises(ForecasterFileError, match=r"a\.twf is cut short"):
            pack.loads(content[:place], Path("a.twf"))


def resealed(content: bytes, **changes: object) -> bytes:
    """A file whose manifest says something else, with the trailer that it should then have."""
    with pa.ipc.open_stream(pa.py_buffer(content)) as reader:
        facts = json.loads(reader.schema.metadata[pack.MANIFEST]) | changes
        batch = reader.read_next_batch().replace_schema_metadata({pack.MANIFEST: json.dumps(facts)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    body: bytes = sink.getvalue().to_pybytes()
    return body + b"\nsha256:" + hashlib.sha256(body).hexdigest().encode()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"format": 99}, "newer than 1; upgrade"),
        ({"features": ["a"]}, "other features"),
        ({"inputs": ["lag_48"]}, "do not fit together"),
        ({"seen": [0, 7]}, "do not fit together"),
        ({"ensembles": 3}, "cannot be used|does not hold"),
        ({"spec": {"timezone": "Nowhere", "start": 0, "country": "US"}}, "Nowhere"),
        ({"thresholds": [1]}, "does not hold a forecaster"),
    ],
)
def test_a_file_whose_parts_do_not_fit_is_refused(
    forecasters: dict[str, Forecaster], changes: dict[str, object], why: str
) -> None:
    with pytest.raises(ForecasterFileError, match=why):
        pack.loads(resealed(pack.dumps(forecasters["ordinal"]), **changes), Path("a.twf"))


def test_a_foreign_or_missing_file_is_refused(tmp_path: Path) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([("a", pa.int64())])) as writer:
        writer.write_batch(pa.record_batch({"a": [1]}))
    body = sink.getvalue().to_pybytes()
    (tmp_path / "fleet.arrow").write_bytes(body + b"\nsha256:" + hashlib.sha256(body).hexdigest().encode())

    with pytest.raises(ForecasterFileError, match="something else than a forecaster"):
        pack.load(tmp_path / "fleet.arrow")
    with pytest.raises(ForecasterFileError, match=r"cannot be read .*tidewatch load train"):
        pack.load(tmp_path / "none.twf")
