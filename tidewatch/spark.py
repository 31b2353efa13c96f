"""Training and scoring on Apache Spark: the same work as here, in Spark's processes.

::

    statistics ──▶ rows asked for ──▶ lots of whole devices ──▶ trained in a child ──▶ results and a fleet ──▶ driver
    files and shards of a batch ──▶ the tasks of tidewatch/batch, one Spark job each ──▶ receipts ──▶ driver

Every lot or task is a job of its own, many at a time, so that what is done is written down at once.
Needs the extra ``spark``; import it where it is asked for.
"""

import math
import os
import re
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGINT, getsignal, signal
from threading import current_thread, main_thread
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from scorers import pack
from scorers.crew import single_threaded
from scorers.errors import ConfigError, InputError, UnavailableError
from scorers.fleet import Fleet
from scorers.period import Period
from scorers.source import TASK_ROWS
from scorers.statistics import BLOCKS
from scorers.train import Plan, fit_apart
from tidewatch.batch.spread import Pool
from tidewatch.engines import Spark
from tidewatch.runs import lot
from tidewatch.servers import JAVA

try:
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext, SparkFiles
    from pyspark.errors import PySparkException
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql import functions as sf
except ImportError as missing:
    raise ConfigError(
        f"The engine spark needs PySpark ({missing}); install it with pip install 'tidewatch[spark]'."
    ) from missing

SETTINGS = {
    "spark.app.name": "tidewatch",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.executorEnv.OPENBLAS_NUM_THREADS": "1",
    "spark.executorEnv.OMP_NUM_THREADS": "1",
}
HERE = {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
"""For a master that is in this process: nobody else is to connect."""
ROWS = "device_id string, window_end timestamp, metric string, " + ", ".join(
    f"{name} {'bigint' if name == 'count' else 'double'}" for name in BLOCKS
)
LOT = "results binary, fleet binary"
"""What becomes of a lot: an Arrow stream with the schema of ``runs.RESULTS``, and a packed fleet."""
ANSWER_S = 10.0
"""Time that a standalone master has to answer."""
TASKS = 2
"""Jobs at a time for each core that Spark has."""

Lot = tuple[pa.Table, Fleet]


@contextmanager
def session(given: Spark) -> Iterator[SparkSession]:
    """Spark under these settings, stopped at the end; what it logs goes to a file.

    Raises:
        ConfigError: there is no such master or option.
        UnavailableError: Spark does not start, or gives up what it was asked to do.
    """
    _reach(given.master)
    options = {name: value.get_secret_value() for name, value in given.options.items()}
    local = HERE if given.master.startswith("local") else {}
    conf = {"spark.master": given.master} | SETTINGS | local | options
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    with ExitStack() as held:
        held.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        started = _started(conf, given.log)
        held.callback(_stop, started)
        try:
            yield started
        except (Py4JError, PySparkException) as error:
            raise UnavailableError(
                f"Spark gave up ({_told(error)}); {given.log} tells more, and running it again goes on."
            ) from error


def _started(conf: dict[str, str], log: Path) -> SparkSession:
    """A session; options do not show among the arguments of a process."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file, tempfile.NamedTemporaryFile("w", suffix=".conf", encoding="utf-8") as properties:
            properties.writelines(f"{name}={_property(value)}\n" for name, value in conf.items())
            properties.flush()
            gateway = None
            if SparkContext._gateway is None:  # noqa: SLF001 - else its Java runs already
                gateway = _launch(properties.name, {"stdout": file, "stderr": file})
            with _own_interrupts():
                context = SparkContext(conf=SparkConf().setAll(list(conf.items())), gateway=gateway)
        return SparkSession(context)
    except OSError as error:
        raise ConfigError(f"spark.log {log} cannot be written ({error}); name another file.") from error
    except (Py4JError, PySparkException) as error:
        why = _last(log) or _told(error)
        hint = f"it needs Java {JAVA} or newer, and settings of [spark] that fit; {log} tells more"
        raise UnavailableError(f"Spark does not start ({why}); {hint}.") from error


def _launch(properties: str, streams: dict[str, Any]) -> Any:
    """Spark's Java, which ends with this process; ``streams`` is how PySpark lets its output be caught."""
    before = os.environ.get("PYSPARK_SUBMIT_ARGS")
    os.environ["PYSPARK_SUBMIT_ARGS"] = f"--properties-file {properties} --load-spark-defaults pyspark-shell"
    try:
        return launch_gateway(popen_kwargs=streams)
    finally:
        os.environ.pop("PYSPARK_SUBMIT_ARGS")
        if before is not None:
            os.environ["PYSPARK_SUBMIT_ARGS"] = before


@contextmanager
def _own_interrupts() -> Iterator[None]:
    """Ctrl-C means after it what it meant before: PySpark would take it for itself."""
    before = getsignal(SIGINT)
    yield
    if current_thread() is main_thread():
        signal(SIGINT, before)


def _stop(started: SparkSession) -> None:
    with suppress(Py4JError, OSError):  # its Java may be gone
        started.stop()


def _property(value: str) -> str:
    """A value as ``java.util.Properties`` reads it."""
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r").replace(" ", "\\ ")


def _reach(master: str) -> None:
    """See that a standalone master is there: Spark itself would try for a minute, and fail later."""
    if not master.startswith("spark://"):
        return
    refused: OSError | None = None
    for address in master.removeprefix("spark://").split(","):
        host, _, port = address.rpartition(":")
        if not (host and port.isdecimal()):
            raise ConfigError(f"spark.master {master!r} is no address; write spark://host:7077.")
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
        except OSError as error:
            refused = error
        else:
            return
    raise UnavailableError(f"No Spark master answers at {master} ({refused}); start it, or correct spark.master.")


def _told(error: Exception) -> str:
    """One line of what went wrong, which in Java is the innermost cause."""
    text = str(getattr(error, "java_exception", None) or error)
    causes = re.findall(r"^(?:Caused by: )?(?:\w+\.)+\w*(?:Exception|Error): (.+)$", text, re.MULTILINE)
    return (causes[-1] if causes else text.strip().splitlines()[0]).rstrip(".")


def _last(log: Path) -> str:
    """What Spark's Java said at its end, if it says what is wrong."""
    lines = log.read_text("utf-8", "replace").splitlines()
    found = [line for line in lines if re.search(r"(Exception|Error): |is not set|not found|No such file", line)]
    return found[0].rpartition("Exception: ")[2].rstrip(".") if found else ""


def trained(
    spark: SparkSession, source: ds.Dataset, plan: Plan, period: Period, done: Collection[str] = ()
) -> Iterator[tuple[Lot, int]]:
    """Lots of devices, their results and models, in no order; and how many devices there are in all.

    Args:
        spark: a session of ours.
        source: window statistics in files that the executors see under the same names.
        plan: what is done with each device.
        period: which windows.
        done: devices to leave out.
    """
    rows = _chosen(spark, source, period, done)
    size = rows.agg(sf.count_distinct("device_id"), sf.count("*")).first()
    devices, count = size or (0, 0)
    if not devices:
        return
    parts = max(math.ceil(count / TASK_ROWS), min(devices, TASKS * spark.sparkContext.defaultParallelism))
    if plan.champion is not None:
        spark.sparkContext.addFile(str(plan.champion))
    order = ("device_id", "window_end", "metric")
    lots = rows.repartition(parts, "device_id").sortWithinPartitions(*order).mapInArrow(_fit(plan), LOT)
    for row in _jobs(spark, lots):
        with pa.ipc.open_stream(row.results) as results:
            yield (results.read_all(), pack.loads(row.fleet, Path("from Spark"))), devices


def _chosen(spark: SparkSession, source: ds.Dataset, period: Period, done: Collection[str]) -> DataFrame:
    """The rows of a period, without devices that are done; ``window_end`` is epoch ms."""
    files = [_address(name) for name in source.files]
    if not files:
        raise InputError("There are no Parquet files of statistics; let the Parquet sink write some.")
    rows = spark.read.schema(ROWS).option("recursiveFileLookup", "true").parquet(*files)
    for since, until in ((period.since, None), (None, period.until)):
        if since is not None:
            rows = rows.where(sf.col("window_end") >= _moment(since))
        if until is not None:
            rows = rows.where(sf.col("window_end") < _moment(until))
    for since, until in period.excluded:
        rows = rows.where(~((sf.col("window_end") >= _moment(since)) & (sf.col("window_end") < _moment(until))))
    if done:
        left_out = spark.createDataFrame([(device,) for device in done], "device_id string")
        rows = rows.join(sf.broadcast(left_out), "device_id", "left_anti")
    return rows.withColumn("window_end", sf.unix_millis("window_end"))


def _address(name: str) -> str:
    """A file by its name as Spark reads it, which takes brackets and the like for patterns."""
    return "file://" + re.sub(r"([\\{}\[\]*?])", r"\\\1", str(Path(name).absolute()))


def _moment(epoch_ms: int) -> Any:
    return sf.timestamp_millis(sf.lit(int(epoch_ms)))


def _fit(plan: Plan) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Trains the devices of one lot, in a process of Spark's."""
    champion = None if plan.champion is None else plan.champion.name

    def fit(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        found = list(batches)
        if not found:
            return
        there = None if champion is None else Path(SparkFiles.get(champion))
        outcomes = list(fit_apart(pa.Table.from_batches(found), replace(plan, champion=there)))
        results, fleet = lot(outcomes, "lot")
        with pa.BufferOutputStream() as buffer:
            with pa.ipc.new_stream(buffer, results.schema) as stream:
                stream.write_table(results)
            told = buffer.getvalue().to_pybytes()
        yield pa.RecordBatch.from_pydict({"results": [told], "fleet": [pack.dumps(fleet, 0)]})

    return fit


def pool(spark: SparkSession) -> Pool:
    """Where the tasks of a batch are done; each is a job of its own."""
    context = spark.sparkContext
    return Pool(partial(_Tasks, context), context.defaultParallelism)


class _Threads(ThreadPoolExecutor):
    """Threads that each wait for a job of Spark's."""

    def __init__(self, context: SparkContext) -> None:
        super().__init__(TASKS * context.defaultParallelism)
        self.context = context

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See :class:`concurrent.futures.Executor`; jobs under way end too where those that wait are cancelled."""
        super().shutdown(wait=False, cancel_futures=cancel_futures)
        if cancel_futures:
            with suppress(Py4JError, OSError):  # its Java may be gone
                self.context.cancelAllJobs()
        super().shutdown(wait=wait)


class _Tasks(_Threads):
    """Does what it is given in Spark's processes."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """See :class:`concurrent.futures.Executor`."""
        return super().submit(self._job, partial(work, *args, **kwargs))

    def _job(self, work: Callable[[], Any]) -> Any:
        (result,) = self.context.parallelize([None], 1).map(lambda _: _alone(work)).collect()
        return result


def _alone(work: Callable[[], Any]) -> Any:
    """Do something in a process of Spark's, which shares the cores with others."""
    single_threaded()
    pa.set_cpu_count(1)
    return work()


def _jobs(spark: SparkSession, lots: DataFrame) -> Iterator[Any]:
    """The rows of every partition, as they come."""
    context, rows = spark.sparkContext, lots.rdd
    threads = _Threads(context)
    try:
        jobs = [threads.submit(context.runJob, rows, list, [part]) for part in range(rows.getNumPartitions())]
        for job in as_completed(jobs):
            yield from job.result()
    finally:
        threads.shutdown(cancel_futures=True)
