package bench;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.StreamReadFeature;
import java.io.IOException;
import java.time.Instant;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.Deserializer;

/** What a device measured at a moment: the values in the order of their names. */
record Reading(long ts, String[] names, double[] values) {
    private static final JsonFactory JSON =
            JsonFactory.builder().enable(StreamReadFeature.USE_FAST_DOUBLE_PARSER).build();

    /** What reads sessions with these loads as readings. */
    static Deserializer<Reading> sessions(String[] loads) {
        Map<String, Integer> places = new HashMap<>();
        for (int place = 0; place < loads.length; place++) {
            places.put(loads[place], place);
        }
        return (topic, bytes) -> bytes == null ? null : session(topic, bytes, loads, places);
    }

    private static Reading session(String topic, byte[] bytes, String[] loads, Map<String, Integer> places) {
        try (JsonParser parser = JSON.createParser(bytes)) {
            long ts = 0;
            double[] values = new double[loads.length];
            parser.nextToken();
            for (String field = parser.nextFieldName(); field != null; field = parser.nextFieldName()) {
                parser.nextToken();
                Integer place = places.get(field);
                if (place != null) {
                    values[place] = parser.getDoubleValue();
                } else if (field.equals("SessionStart")) {
                    ts = Instant.parse(parser.getText()).toEpochMilli();
                }
            }
            return new Reading(ts, loads, values);
        } catch (IOException error) {
            throw new SerializationException("no session in " + topic, error);
        }
    }

    /** A record's value as it travels; its device is the record's key. */
    static Reading parse(String topic, byte[] bytes) {
        if (bytes == null) {
            return null;
        }
        try (JsonParser parser = JSON.createParser(bytes)) {
            long ts = 0;
            String[] names = new String[8];
            double[] values = new double[8];
            int size = 0;
            parser.nextToken();
            for (String field = parser.nextFieldName(); field != null; field = parser.nextFieldName()) {
                if (field.equals("ts")) {
                    ts = parser.nextLongValue(0);
                } else if (field.equals("values")) {
                    parser.nextToken();
                    for (String name = parser.nextFieldName(); name != null; name = parser.nextFieldName()) {
                        if (size == names.length) {
                            names = Arrays.copyOf(names, 2 * size);
                            values = Arrays.copyOf(values, 2 * size);
                        }
                        parser.nextToken();
                        names[size] = name;
                        values[size++] = parser.getDoubleValue();
                    }
                } else {
                    parser.nextToken();
                    parser.skipChildren();
                }
            }
            return new Reading(ts, Arrays.copyOf(names, size), Arrays.copyOf(values, size));
        } catch (IOException error) {
            throw new SerializationException("no reading in " + topic, error);
        }
    }
}
