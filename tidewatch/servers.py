"""Real servers as child processes on this machine: Apache Kafka and Redis, for trying, testing and measuring.

Each listens on a free loopback port and keeps that port and its data across ``stop`` and ``start``.
Where ``setpriv`` exists (every Linux with util-linux) the kernel ends the child when the thread
that started it dies, even by SIGKILL; start them from the main thread.
"""

import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from confluent_kafka import KafkaException

from scorers.errors import ConfigError, UnavailableError
from stream.kafka import Broker
from tidewatch.topics import quiet_admin

HOST = "127.0.0.1"
CLUSTER_ID = "dGlkZXdhdGNoLWxvY2FsLQ"
"""Any base64 UUID; a fixed one lets a data folder be used again."""
JAVA = 17
"""Kafka 4 brokers need this version of Java, or a newer one."""

_KAFKA = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port}
log.dirs={data}
num.network.threads=2
num.io.threads=4
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
log.cleaner.dedupe.buffer.size=16777216
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
"""
"""A killed broker may register again once its old session has run out, hence the short one."""


class Server:
    """A server process that ends with us; use it as a context manager."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environ: Mapping[str, str] | None = None) -> None:
        self._name = name
        self._environ = environ
        self._command = [*tether(), *command]
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, within_s: float = 60.0) -> None:
        """Start, or start again on the same port and data, and wait until it answers.

        Raises:
            UnavailableError: it ended, or did not answer ``within_s``; the end of its log is told.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the command is ours
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True, env=self._environ,
            )  # fmt: skip
        try:
            self._await(self._process, time.monotonic() + within_s)
        except BaseException:
            self.kill()
            raise

    def answers(self) -> bool:
        """Whether it answers now."""
        raise NotImplementedError

    def stop(self, within_s: float = 15.0) -> None:
        """End it with SIGTERM, and with SIGKILL when that takes longer than ``within_s``."""
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        self._send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def terminate(self) -> None:
        """Ask it to end, and wait for nothing."""
        self._send(signal.SIGTERM)

    @property
    def returncode(self) -> int | None:
        """How it ended by itself or when asked to; None while it runs, or after ``kill``."""
        return None if self._process is None else self._process.poll()

    def wait(self, within_s: float) -> int:
        """Until it ends by itself; how.

        Raises:
            UnavailableError: it does not, in time.
        """
        if self._process is None:
            raise UnavailableError(f"{self._name} does not run.")
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"{self._name} did not end within {within_s:g} s:\n{self.tail()}") from None

    def pause(self) -> None:
        """Freeze it: connections stay, nothing answers."""
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        self._send(signal.SIGCONT)

    def tail(self, lines: int = 20) -> str:
        """The end of its log."""
        return "\n".join(self._log.read_text("utf-8", errors="replace").splitlines()[-lines:])

    def _await(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise UnavailableError(f"{self._name} did not start; its log {self._log} ends:\n{self.tail()}")
            time.sleep(0.05)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)


class KafkaServer(Server):
    """Apache Kafka: one KRaft node, broker and controller in one, topics not made on first use.

    ``jars`` is what ``scripts/kafka-jars`` resolves; ``workdir`` keeps settings, data and log.

    Raises:
        ConfigError: there is no Java 17, or there are no jars.
    """

    def __init__(self, jars: Path, workdir: Path) -> None:
        self._workdir = workdir
        self._classpath = f"{jars.absolute()}/*"
        self.version = kafka_version(jars)
        port, controller = free_ports(2)
        self.broker = Broker(f"{HOST}:{port}")
        workdir.mkdir(parents=True, exist_ok=True)
        settings = workdir / "server.properties"
        settings.write_text(_KAFKA.format(host=HOST, port=port, controller=controller, data=workdir / "data"), "utf-8")
        log = {"defaultLogLevel": "warn", "showDateTime": "true", "dateTimeFormat": "HH:mm:ss.SSS"}
        options = ["-Xms256m", "-Xmx1g", *(f"-Dorg.slf4j.simpleLogger.{name}={value}" for name, value in log.items())]
        super().__init__("Kafka", self._java(*options, "kafka.Kafka", str(settings)), workdir / "kafka.log")

    def start(self, within_s: float = 60.0) -> None:
        """Format the data folder the first time, then start."""
        if not (self._workdir / "data" / "meta.properties").exists():
            self._format()
        super().start(within_s)

    def answers(self) -> bool:
        """Whether the broker lists itself."""
        try:
            return bool(quiet_admin(self.broker).list_topics(timeout=0.5).brokers)
        except KafkaException:
            return False

    def _format(self) -> None:
        tool = self._java("kafka.tools.StorageTool", "format", "-t", CLUSTER_ID)
        done = subprocess.run(  # noqa: S603 - the command is ours
            [*tool, "-c", str(self._workdir / "server.properties")],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise UnavailableError(f"Kafka could not format {self._workdir / 'data'}: {done.stderr.strip()}")

    def _java(self, *arguments: str) -> list[str]:
        return [_program("java"), "-cp", self._classpath, *arguments]


class RedisServer(Server):
    """Redis in memory, nothing written to disk.

    Raises:
        ConfigError: there is no ``redis-server`` on the PATH.
    """

    def __init__(self, workdir: Path) -> None:
        (port,) = free_ports(1)
        self.url = f"redis://{HOST}:{port}/0"
        workdir.mkdir(parents=True, exist_ok=True)
        quiet = ["--save", "", "--appendonly", "no", "--loglevel", "warning", "--dir", str(workdir)]
        command = [_program("redis-server"), "--bind", HOST, "--port", str(port), *quiet]
        super().__init__("Redis", command, workdir / "redis.log")

    def answers(self) -> bool:
        """Whether it answers a ping."""
        try:
            with redis.Redis.from_url(self.url, socket_timeout=0.5) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    @property
    def version(self) -> str:
        """What the running server says it is."""
        with redis.Redis.from_url(self.url) as client:
            return str(client.info("server")["redis_version"])


def kafka_version(jars: Path) -> str:
    """The version of the broker in ``jars``.

    Raises:
        ConfigError: there is none.
    """
    for jar in jars.glob("kafka_2.13-*.jar"):
        return jar.stem.removeprefix("kafka_2.13-")
    raise ConfigError(f"There are no Kafka jars in {jars}; run scripts/kafka-jars (it needs Maven).")


def java_version() -> int:
    """The major version of the Java on the PATH, 0 without one."""
    java = shutil.which("java")
    if java is None:
        return 0
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)  # noqa: S603 - found on PATH
    found = re.search(r'version "(\d+)', told.stderr)
    return int(found[1]) if found else 0


def free_ports(count: int) -> list[int]:
    """Loopback ports that were free a moment ago, all different."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ConfigError(f"{name!r} is not installed; `make setup` as root installs what Debian has.")
    return found


def tether() -> list[str]:
    """The beginning of a command that ends with the thread that starts it; empty without ``setpriv``."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
