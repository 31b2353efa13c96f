"""The fault harness: a known load on real Kafka and real Redis, faults by the dozen, and the account at the end."""
