package bench;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/** Of each metric in a window: count, mean, sum of squared deviations, min, max and last. */
final class Statistics {
    private static final int METRIC = Integer.BYTES + 5 * Double.BYTES;
    private static final String[] NONE = {};
    /** The names met last, and their bytes: nearly always those of the next window, too. */
    private static volatile Header known = new Header(NONE, new byte[0]);

    private String[] names;
    private int[] counts;
    private double[] means;
    private double[] squares;
    private double[] lows;
    private double[] highs;
    private double[] lasts;

    /** Of an empty window. */
    Statistics() {
        this(NONE);
    }

    private Statistics(String[] names) {
        this.names = names;
        counts = new int[names.length];
        means = new double[names.length];
        squares = new double[names.length];
        lows = new double[names.length];
        highs = new double[names.length];
        lasts = new double[names.length];
    }

    /** Welford's step for each metric of a reading. */
    Statistics add(Reading reading) {
        for (int index = 0; index < reading.names().length; index++) {
            int at = at(reading.names()[index], index);
            double value = reading.values()[index];
            double apart = value - means[at];
            boolean first = counts[at]++ == 0;
            means[at] += apart / counts[at];
            squares[at] += apart * (value - means[at]);
            lows[at] = first ? value : Math.min(lows[at], value);
            highs[at] = first ? value : Math.max(highs[at], value);
            lasts[at] = value;
        }
        return this;
    }

    int size() {
        return names.length;
    }

    String name(int at) {
        return names[at];
    }

    int count(int at) {
        return counts[at];
    }

    double mean(int at) {
        return means[at];
    }

    /** Of the sample; 0 of a single value. */
    double std(int at) {
        return counts[at] > 1 ? Math.sqrt(squares[at] / (counts[at] - 1)) : 0;
    }

    double min(int at) {
        return lows[at];
    }

    double max(int at) {
        return highs[at];
    }

    double last(int at) {
        return lasts[at];
    }

    /** Where a metric is; a new one is put at the end. */
    private int at(String name, int guess) {
        if (guess < names.length && names[guess].equals(name)) {
            return guess;
        }
        int at = Arrays.asList(names).indexOf(name);
        if (at < 0) {
            at = names.length;
            names = Arrays.copyOf(names, at + 1);
            names[at] = name;
            counts = Arrays.copyOf(counts, at + 1);
            means = Arrays.copyOf(means, at + 1);
            squares = Arrays.copyOf(squares, at + 1);
            lows = Arrays.copyOf(lows, at + 1);
            highs = Arrays.copyOf(highs, at + 1);
            lasts = Arrays.copyOf(lasts, at + 1);
        }
        return at;
    }

    /** As it lies in the store: the names, then the numbers of each metric. */
    byte[] toBytes() {
        byte[] header = Header.of(names).bytes;
        ByteBuffer buffer = ByteBuffer.allocate(Integer.BYTES + header.length + names.length * METRIC);
        buffer.putInt(header.length).put(header);
        for (int at = 0; at < names.length; at++) {
            buffer.putInt(counts[at]).putDouble(means[at]).putDouble(squares[at]);
            buffer.putDouble(lows[at]).putDouble(highs[at]).putDouble(lasts[at]);
        }
        return buffer.array();
    }

    /** What {@link #toBytes} made. */
    static Statistics fromBytes(byte[] bytes) {
        ByteBuffer buffer = ByteBuffer.wrap(bytes);
        int end = Integer.BYTES + buffer.getInt();
        Statistics made = new Statistics(Header.in(bytes, end).names);
        buffer.position(end);
        for (int at = 0; at < made.names.length; at++) {
            made.counts[at] = buffer.getInt();
            made.means[at] = buffer.getDouble();
            made.squares[at] = buffer.getDouble();
            made.lows[at] = buffer.getDouble();
            made.highs[at] = buffer.getDouble();
            made.lasts[at] = buffer.getDouble();
        }
        return made;
    }

    /** Names and their bytes, each with a line feed at its end; neither is ever changed. */
    private record Header(String[] names, byte[] bytes) {
        static Header of(String[] names) {
            Header last = known;
            if (last.names != names && !Arrays.equals(last.names, names)) {
                String text = names.length == 0 ? "" : String.join("\n", names) + "\n";
                known = last = new Header(names, text.getBytes(StandardCharsets.UTF_8));
            }
            return last;
        }

        static Header in(byte[] bytes, int end) {
            Header last = known;
            if (!Arrays.equals(last.bytes, 0, last.bytes.length, bytes, Integer.BYTES, end)) {
                String text = new String(bytes, Integer.BYTES, end - Integer.BYTES, StandardCharsets.UTF_8);
                known = last = new Header(
                        text.isEmpty() ? NONE : text.split("\n"), Arrays.copyOfRange(bytes, Integer.BYTES, end));
            }
            return last;
        }
    }
}
