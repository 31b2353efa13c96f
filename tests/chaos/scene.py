"""Where it happens: Kafka, Redis, a small disk, a network that can fail, and the processes of one installation."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from scorers.pack import save
from stream.contracts import Topics
from stream.kafka import Broker, ensure_topics
from tests.chaos.load import WINDOW, LoadSpec, models
from tests.chaos.proxy import Proxy
from tidewatch.children import Child
from tidewatch.servers import HOST, KafkaServer, RedisServer, free_ports
from tidewatch.settings import InForce, load, override

PROJECT = Path(__file__).parents[2]
JARS = PROJECT / "tests" / "live" / "kafka" / "target" / "jars"
PARTITIONS = 6
DISK_MB = 384
GRACEFUL_S = 10.0
WORKERS = ("worker-a", "worker-b", "worker-c")
SINKS = ("parquet", "redis")
FRONTS = (*WORKERS, *SINKS)
"""Everyone has a way to Kafka of its own, so that one can be cut off alone."""


class FrontedKafka(KafkaServer):
    """Kafka that sends each client back through the proxy it came by."""

    def __init__(self, jars: Path, workdir: Path) -> None:
        super().__init__(jars, workdir)
        ports = free_ports(2 * len(FRONTS))
        self.inner = dict(zip(FRONTS, ports[: len(FRONTS)], strict=True))
        self.outer = dict(zip(FRONTS, ports[len(FRONTS) :], strict=True))
        settings = workdir / "server.properties"
        known = dict(line.split("=", 1) for line in settings.read_text("utf-8").splitlines())
        names = {front: f"FRONT{number}" for number, front in enumerate(FRONTS)}
        for key, ports_of in (("listeners", self.inner), ("advertised.listeners", self.outer)):
            known[key] += "".join(f",{names[front]}://{HOST}:{ports_of[front]}" for front in FRONTS)
        plain = ["PLAINTEXT", "CONTROLLER", *names.values()]
        known["listener.security.protocol.map"] = ",".join(f"{name}:PLAINTEXT" for name in plain)
        known["inter.broker.listener.name"] = "PLAINTEXT"
        settings.write_text("\n".join(f"{key}={value}" for key, value in known.items()), "utf-8")


class Member(Child):
    """A worker or a sink as a supervisor would run it; starts again wherever it ended by itself."""

    def __init__(self, in_force: InForce, log: Path, *words: str) -> None:
        super().__init__(in_force, log, *words)
        self.log = log
        self.wanted = False
        self._asked = 0.0
        self._gone: float | None = None
        """When it ended; whoever could ask meanwhile may be waiting for a broker to start."""

    def begin(self) -> None:
        """Run from now on."""
        self.wanted = True
        self.start()

    def crash(self) -> None:
        """End by SIGKILL; not to be started again before ``begin``."""
        self.wanted = False
        self.kill()

    def ask(self) -> None:
        """Send SIGTERM."""
        self.wanted, self._asked, self._gone = False, time.monotonic(), None
        self.terminate()
        threading.Thread(target=self._see_off, args=[self._process], daemon=True).start()

    def _see_off(self, process: subprocess.Popen[bytes] | None) -> None:
        if process is not None:
            process.wait()
        self._gone = time.monotonic()

    def ended(self) -> "Ending | None":
        """How it took the SIGTERM, once it has ended or its time is up."""
        code = self.returncode
        took = (self._gone or time.monotonic()) - self._asked
        if code is None and took <= GRACEFUL_S:
            return None
        self.kill()
        return Ending(self.log.stem, took, code)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended that was asked to."""

    name: str
    seconds: float
    code: int | None

    @property
    def graceful(self) -> bool:
        """Whether as promised; Python itself ends by the signal while it is still starting."""
        return self.code in {0, -signal.SIGTERM} and self.seconds <= GRACEFUL_S


class Disk:
    """A small file system for the Parquet sink, if we may mount one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.limited = False
        self._ballast = folder / "ballast"

    def mount(self) -> None:
        """Make it small."""
        self.folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tidewatch-chaos", str(self.folder)]
        done = subprocess.run(command, capture_output=True, check=False) if os.geteuid() == 0 else None
        self.limited = done is not None and done.returncode == 0

    def unmount(self) -> None:
        """Give it back."""
        if self.limited:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=False)

    def fill(self) -> None:
        """Leave no byte free."""
        with suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)


@dataclass(slots=True)
class Scene:
    """Everything that runs, and may be harmed."""

    folder: Path
    kafka: FrontedKafka
    redis: RedisServer
    disk: Disk
    fronts: dict[str, Proxy]
    redis_front: Proxy
    compactor: Child
    members: dict[str, Member] = field(default_factory=dict)
    crashes: list[str] = field(default_factory=list)
    """Members that ended by themselves."""

    @property
    def broker(self) -> Broker:
        """Kafka as it is reached from here: by no proxy."""
        return self.kafka.broker

    @property
    def parquet(self) -> Path:
        """The folder of the Parquet sink."""
        return self.disk.folder / "parquet"

    def supervise(self) -> None:
        """Start again what ended by itself."""
        for name, member in self.members.items():
            if member.wanted and member.returncode is not None:
                self.crashes.append(f"{name} ended with {member.returncode}")
                member.start()


def settings(folder: Path, broker: str, redis_url: str, parquet: Path) -> InForce:
    """Of one installation."""
    changes = {
        "kafka.bootstrap": broker,
        "redis.url": redis_url,
        "topics.partitions": PARTITIONS,
        "worker.fleet": folder / "fleet.arrow",
        "worker.epoch_s": 0.5,
        "window.size_s": WINDOW.size_ms / 1000,
        "window.grace_s": WINDOW.grace_ms / 1000,
        "window.idle_s": WINDOW.idle_ms / 1000,
        "parquet.folder": parquet,
        "parquet.max_seconds": 2,
        "redis_sink.history": 20,
    }
    return override(load({}, environ={}), changes)


@contextmanager
def scene(folder: Path, spec: LoadSpec) -> Iterator[Scene]:
    """Kafka, Redis, disk and network up, topics made, nobody at work yet."""
    resolve_jars()
    with ExitStack() as stack:
        kafka = stack.enter_context(FrontedKafka(JARS, folder / "kafka"))
        redis = stack.enter_context(RedisServer(folder / "redis"))
        disk = Disk(folder / "disk")
        disk.mount()
        stack.callback(disk.unmount)
        fronts = {name: stack.enter_context(Proxy(kafka.outer[name], kafka.inner[name])) for name in FRONTS}
        (port,) = free_ports(1)
        redis_front = stack.enter_context(Proxy(port, urlsplit(redis.url).port or 0))
        ensure_topics(kafka.broker, Topics(), partitions=PARTITIONS)
        save(models(spec), folder / "fleet.arrow", created=spec.start)
        parquet = disk.folder / "parquet"
        plain = settings(folder, kafka.broker.bootstrap, redis.url, parquet)
        compactor = Child(plain, folder / "compact.log", "compact", "--keep-s", "5")
        stack.callback(compactor.kill)
        built = Scene(folder, kafka, redis, disk, fronts, redis_front, compactor)
        for name in FRONTS:
            words = ("sink", name) if name in SINKS else ("worker", "--log", "INFO")
            reach = settings(folder, f"{HOST}:{kafka.outer[name]}", f"redis://{HOST}:{port}/0", parquet)
            built.members[name] = Member(reach, folder / f"{name}.log", *words)
        stack.callback(_dismiss, built)
        yield built


def _dismiss(built: Scene) -> None:
    for member in built.members.values():
        member.resume()
        member.kill()


def resolve_jars() -> None:
    """Have Kafka's jars in place."""
    subprocess.run([PROJECT / "scripts" / "kafka-jars"], check=True)
