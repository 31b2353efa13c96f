package bench;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.Suppressed.BufferConfig;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Window;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.processor.api.ContextualProcessor;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.WindowStore;

/** Kafka Streams: tumbling windows of event time, exactly once, by one thread. */
public final class Windows {
    /** How long a window waits for stragglers, by the readings' own time. */
    private static final Duration GRACE = Duration.ofSeconds(2);

    private static final Duration GOODBYE = Duration.ofSeconds(10);

    private Windows() {}

    /** Runs until it is told to end; the argument is the job, as JSON. */
    public static void main(String[] arguments) throws IOException {
        Map<String, String> job = parse(arguments[0]);
        KafkaStreams streams = new KafkaStreams(topology(job), properties(job));
        streams.setStateListener((state, before) -> {
            if (state == KafkaStreams.State.RUNNING) {
                System.out.println("reading begins");
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(GOODBYE)));
        streams.start();
    }

    private static Topology topology(Map<String, String> job) {
        String loads = job.get("loads");
        Serde<Reading> readings = Serdes.serdeFrom(
                (topic, reading) -> null, loads.isEmpty() ? Reading::parse : Reading.sessions(loads.split(",")));
        Serde<Statistics> statistics = Serdes.serdeFrom(
                (topic, made) -> made == null ? null : made.toBytes(),
                (topic, bytes) -> bytes == null ? null : Statistics.fromBytes(bytes));
        Serde<Score> scores = Serdes.serdeFrom(Score::toJson, (topic, bytes) -> null);
        Duration size = Duration.ofMillis(Long.parseLong(job.get("window_ms")));
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(
                        job.get("readings"),
                        Consumed.with(Serdes.String(), readings)
                                .withTimestampExtractor((record, before) -> ((Reading) record.value()).ts()))
                .groupByKey()
                .windowedBy(TimeWindows.ofSizeAndGrace(size, GRACE))
                .aggregate(
                        Statistics::new,
                        (device, reading, made) -> made.add(reading),
                        // a changelog of its own stands behind it; the cache spares that most of the updates
                        Materialized.<String, Statistics, WindowStore<Bytes, byte[]>>with(Serdes.String(), statistics)
                                .withStoreType(Materialized.StoreType.IN_MEMORY))
                // EmitStrategy.onWindowClose looks for closed windows once a second, and only while readings come
                .suppress(Suppressed.untilWindowCloses(BufferConfig.unbounded()))
                .toStream()
                .process(Scores::new)
                .to(job.get("scores"), Produced.with(Serdes.String(), scores));
        return builder.build();
    }

    private static Properties properties(Map<String, String> job) {
        Properties properties = new Properties();
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, job.get("bootstrap"));
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, job.get("name"));
        properties.put(StreamsConfig.STATE_DIR_CONFIG, Path.of(job.get("folder"), job.get("name")).toString());
        properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        // ten times the default of exactly once, and as long as Tidewatch's
        properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1_000);
        // more than changes from one commit to the next
        properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
        properties.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 10_000);
        properties.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 10_000);
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        return properties;
    }

    private static Map<String, String> parse(String json) throws IOException {
        Map<String, String> job = new HashMap<>();
        try (JsonParser parser = new JsonFactory().createParser(json)) {
            while (parser.nextToken() != null) {
                if (parser.currentToken() == JsonToken.FIELD_NAME) {
                    String name = parser.currentName();
                    parser.nextToken();
                    job.put(name, parser.getText());
                }
            }
        }
        return job;
    }

    /** What is said of a window, at the time it is said: by the window's own, the topic's retention would take it. */
    private static final class Scores extends ContextualProcessor<Windowed<String>, Statistics, String, Score> {
        @Override
        public void process(Record<Windowed<String>, Statistics> closed) {
            String device = closed.key().key();
            Window window = closed.key().window();
            Score score = new Score(device, window.start(), window.end(), closed.value());
            context().forward(new Record<>(device, score, context().currentSystemTimeMs()));
        }
    }
}
