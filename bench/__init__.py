"""Our stream and what others would take instead, measured side by side on real Apache Kafka."""
