"""Settings to the specs of the stream."""

from scorers.follow import FollowSpec
from stream.alert import AlertSpec
from stream.decode import Limits
from stream.partition import StreamSpec
from stream.window import WindowSpec
from tidewatch.groups import Settings


def stream_spec(settings: Settings) -> StreamSpec:
    """How the stream windows, believes and alerts."""
    window, alerting, following, worker = settings.window, settings.alerting, settings.following, settings.worker
    windows = WindowSpec(window.size_ms, window.hop_ms, window.grace_ms, window.idle_ms)
    return StreamSpec(
        window=windows,
        alert=AlertSpec(alerting.k, alerting.n, alerting.clear),
        follow=FollowSpec(
            following.deviations,
            following.memory,
            following.warmup,
            following.least,
            alerting.n,
            following.patience,
            windows.overlap,
        ),
        limits=Limits(max_bytes=worker.max_bytes, max_metrics=worker.max_metrics, max_ahead_ms=worker.max_ahead_ms),
        max_jump_ms=worker.max_jump_ms,
        dedupe=worker.dedupe,
        app=worker.app,
    )
