package bench;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.StreamWriteFeature;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;

/** What is said of a device's window once it is closed. */
record Score(String device, long start, long end, Statistics metrics) {
    private static final JsonFactory JSON =
            JsonFactory.builder().enable(StreamWriteFeature.USE_FAST_DOUBLE_WRITER).build();

    /** As it travels. */
    static byte[] toJson(String topic, Score score) {
        ByteArrayOutputStream out = new ByteArrayOutputStream(1_024);
        try (JsonGenerator json = JSON.createGenerator(out)) {
            json.writeStartObject();
            json.writeStringField("device_id", score.device);
            json.writeNumberField("window_start", score.start);
            json.writeNumberField("window_end", score.end);
            json.writeObjectFieldStart("metrics");
            Statistics metrics = score.metrics;
            for (int at = 0; at < metrics.size(); at++) {
                json.writeObjectFieldStart(metrics.name(at));
                json.writeNumberField("count", metrics.count(at));
                json.writeNumberField("mean", metrics.mean(at));
                json.writeNumberField("std", metrics.std(at));
                json.writeNumberField("min", metrics.min(at));
                json.writeNumberField("max", metrics.max(at));
                json.writeNumberField("last", metrics.last(at));
                json.writeEndObject();
            }
            json.writeEndObject();
            json.writeEndObject();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
        return out.toByteArray();
    }
}
