"""Every way out: Parquet and Redis, each reading topics at its own pace."""
