"""A service called as a client would: what to call it with, and whether it answers as it should.

Each call carries a traceparent (W3C Trace Context), by which its lines in the service's log are found.
"""

import json
import math
import secrets
import ssl
import struct
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from scorers.errors import InputError, UnavailableError

TIMEOUT_S = 30
MOST = 100
"""Of a score."""
NOBODY = "no-such-model"
NONE = "there is no"
"""In the index's reason where a model has not been trained yet."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """The content."""
        return json.loads(self.content)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and where."""

    url: str
    key: str | None = field(default=None, repr=False)
    ca: str | None = None

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One call.

        Raises:
            UnavailableError: nobody answers.
        """
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        extra = {"traceparent": trace(), "content-type": "application/json"} | (headers or {})
        if self.key:
            extra["authorization"] = f"Bearer {self.key}"
        if not self.url.startswith(("http://", "https://")):
            raise InputError(f"{self.url} is no address of a service; make it http://HOST:PORT.")
        request = urllib.request.Request(self.url + path, data, extra, method=method)  # noqa: S310 - checked above
        secure = ssl.create_default_context(cafile=self.ca) if self.url.startswith("https") else None
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=secure) as response:  # noqa: S310
                return Answer(response.status, _lower(response.headers.items()), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, _lower(error.headers.items()), error.read())
        except (OSError, urllib.error.URLError) as error:
            reason = getattr(error, "reason", error)
            raise UnavailableError(
                f"{self.url} does not answer ({reason}); start it with `tidewatch serve`."
            ) from error


def _lower(pairs: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in pairs}


def trace() -> str:
    """A traceparent of a trace that begins here, and is sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


@dataclass(slots=True)
class Step:
    """One call, and what was wrong with its answer."""

    what: str
    traceparent: str
    ms: float = 0.0
    fault: str = ""

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "what": self.what,
            "ms": round(self.ms, 3),
            "traceparent": self.traceparent,
            "fault": self.fault or None,
        }


Call = tuple[str, tuple[Any, ...], Callable[[Answer], str]]
"""What it is; method, path, body and headers; what is wrong with an answer."""


def first(caller: Caller) -> str:
    """The first model of a device, or where there is none of a fleet.

    Raises:
        InputError: there is no model.
    """
    answer = caller.ask("POST", "/v2/repository/index", {"ready": True})
    if answer.status != 200:  # noqa: PLR2004 - of HTTP
        raise InputError(f"{caller.url} does not list its models ({answer.status}: {_said(answer)}).")
    names = [row["name"] for row in answer.json]
    if not names:
        raise InputError(f"{caller.url} has no model yet; run `tidewatch train`.")
    return str(names[min(1, len(names) - 1)])


def about(caller: Caller, name: str) -> dict[str, Any]:
    """URL, schema and sample of a model.

    Raises:
        InputError: there is no such model.
    """
    answer = caller.ask("GET", f"/api/v1/service/{urllib.parse.quote(name)}")
    if answer.status != 200:  # noqa: PLR2004 - of HTTP
        raise InputError(f"{caller.url} does not describe {name!r} ({answer.status}: {_said(answer)}).")
    found: dict[str, Any] = answer.json
    return found


def call(about: dict[str, Any], *, keyed: bool) -> str:
    """A sample call, for a shell."""
    key = "  -H 'Authorization: Bearer '\"$TIDEWATCH_KEY\" \\\n" if keyed else ""
    return (
        f"curl -s {_quoted(about['score_url'])} \\\n{key}  -H 'Content-Type: application/json' \\\n"
        f"  -d {_quoted(json.dumps(about['sample'], ensure_ascii=False))}"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def steps(caller: Caller, name: str | None = None, forecaster: str = "") -> Iterator[Step]:
    """Every call in turn; one that is answered otherwise than it should be says so.

    Args:
        caller: who calls.
        name: the model asked for; by default the main fleet's first device.
        forecaster: what the load forecaster is called; it is asked too, if it is one of the service's models.

    Raises:
        UnavailableError: nobody answers at all.
        InputError: there is no model to ask for.
    """
    caller.ask("GET", "/v2/health/live")
    model = name or first(caller)
    told = about(caller, model)
    path = urllib.parse.quote(model)
    tensors = told["sample_v2"]
    rows = tensors["inputs"][0]["shape"][0]
    wide = {"data": [[1.0] * 99_999]}
    calls: list[Call] = [
        ("live", ("GET", "/v2/health/live"), _is(200)),
        ("ready", ("GET", "/v2/health/ready"), _is(200)),
        ("server metadata", ("GET", "/v2"), _has("name", "version", "extensions")),
        ("index", ("POST", "/v2/repository/index", b""), _is(200)),
        *_asked(model, told),
        ("score", ("POST", "/score", {"model_name": model, **told["sample"]}), _scored(rows)),
        ("unknown model", ("POST", f"/v2/models/{NOBODY}/infer", tensors), _refused(404)),
        ("wrong width", ("POST", f"/api/v1/service/{path}/score", wide), _refused(400)),
        ("no JSON", ("POST", "/score", b"{"), _refused(400)),
    ]
    if forecaster not in {"", model}:
        calls += [(f"forecaster, {what}", given, judge) for what, given, judge in _further(caller, forecaster)]
    for what, given, judge in calls:
        yield _step(caller, what, given, judge)


def _asked(name: str, told: dict[str, Any]) -> list[Call]:
    """What any model is asked."""
    path, tensors = urllib.parse.quote(name), told["sample_v2"]
    rows = tensors["inputs"][0]["shape"][0]
    return [
        ("model ready", ("GET", f"/v2/models/{path}/ready"), _is(200)),
        ("model metadata", ("GET", f"/v2/models/{path}"), _has("versions", "platform", "inputs", "outputs")),
        ("infer, JSON", ("POST", f"/v2/models/{path}/infer", tensors), _inferred(rows)),
        ("infer, binary", ("POST", f"/v2/models/{path}/infer", *binary(tensors)), _binary(rows)),
        ("service score", ("POST", f"/api/v1/service/{path}/score", told["sample"]), _scored(rows)),
    ]


def _further(caller: Caller, name: str) -> list[Call]:
    """What a model is asked if it is one of the service's; only whether it is ready, where it is not in memory."""
    answer = caller.ask("POST", "/v2/repository/index", b"")
    rows = answer.json if answer.status == 200 else []  # noqa: PLR2004 - of HTTP; the index has a step of its own
    row = next((row for row in rows if row["name"] == name), None)
    if row is None or NONE in row["reason"]:
        return []
    if row["state"] == "READY":
        return _asked(name, about(caller, name))
    return [("model ready", ("GET", f"/v2/models/{urllib.parse.quote(name)}/ready"), _is(200))]


def _step(caller: Caller, what: str, given: tuple[Any, ...], judge: Callable[[Answer], str]) -> Step:
    step = Step(what, trace())
    begun = time.perf_counter()
    try:
        method, path, body, headers = (*given, None, None)[:4]
        answer = caller.ask(method, path, body, {"traceparent": step.traceparent} | (headers or {}))
        step.fault = judge(answer)
    except UnavailableError as error:
        step.fault = str(error)
    except (KeyError, TypeError, ValueError, struct.error) as error:
        step.fault = f"the answer is not what the protocol says ({type(error).__name__}: {error})"
    step.ms = 1000 * (time.perf_counter() - begun)
    return step


def binary(request: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """An inference request with binary tensors, in and out, and its header."""
    inputs, tail = [], b""
    for one in request["inputs"]:
        if one["datatype"] == "BYTES":
            data = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in one["data"])
        else:
            kind = {"INT64": "q", "FP64": "d"}[one["datatype"]]
            data = struct.pack(
                f"<{len(one['data'])}{kind}", *(math.nan if value is None else value for value in one["data"])
            )
        about = {name: one[name] for name in ("name", "datatype", "shape")}
        inputs.append(about | {"parameters": {"binary_data_size": len(data)}})
        tail += data
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head)), "content-type": "application/octet-stream"}
    return head + tail, headers


def _is(status: int) -> Callable[[Answer], str]:
    return lambda answer: "" if answer.status == status else f"{answer.status} in place of {status}: {_said(answer)}"


def _has(*names: str) -> Callable[[Answer], str]:
    def judge(answer: Answer) -> str:
        missing = [name for name in names if name not in answer.json]
        return _is(200)(answer) or (f"no {', '.join(missing)}" if missing else "")

    return judge


def _inferred(rows: int) -> Callable[[Answer], str]:
    def judge(answer: Answer) -> str:
        if wrong := _is(200)(answer):
            return wrong
        return _many(answer.json["outputs"], rows)

    return judge


def _binary(rows: int) -> Callable[[Answer], str]:
    def judge(answer: Answer) -> str:
        if wrong := _is(200)(answer):
            return wrong
        size = int(answer.headers["inference-header-content-length"])
        outputs = json.loads(answer.content[:size])["outputs"]
        told = sum(one["parameters"]["binary_data_size"] for one in outputs)
        if told != len(answer.content) - size:
            return f"{len(answer.content) - size} bytes of tensors where {told} are announced"
        return _many(outputs, rows)

    return judge


def _many(outputs: list[dict[str, Any]], rows: int) -> str:
    wrong = [one for one in outputs if one["shape"][0] != rows]
    return f"{wrong[0]['shape'][0]} of {wrong[0]['name']} for {rows} rows" if wrong else ""


def _scored(rows: int) -> Callable[[Answer], str]:
    def judge(answer: Answer) -> str:
        if wrong := _is(200)(answer):
            return wrong
        results = answer.json["results"]
        if len(results) != rows:
            return f"{len(results)} results for {rows} rows"
        beyond = [one["score"] for one in results if one.get("state") == "scored" and not 0 <= one["score"] <= MOST]
        return f"a score of {beyond[0]}, beyond 0 to {MOST}" if beyond else ""

    return judge


def _refused(status: int) -> Callable[[Answer], str]:
    return lambda answer: _is(status)(answer) or ("" if answer.json.get("error") else "no error in the answer")


def _said(answer: Answer) -> str:
    return answer.content.decode(errors="replace")[:300]
