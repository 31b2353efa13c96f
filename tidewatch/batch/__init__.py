"""Batch scoring: recordings through the core of the stream without a broker, any amount in bounded memory.

::

    files ──▶ spool: read, sort in runs, cut by device ──▶ shards: merge, window, score ──▶ staged files ──▶ out
              a task for each file                         a task for each shard of devices    once all are done

Each stage keeps what it has finished in the folder of the job, so that a run after a kill does the rest only.
"""
