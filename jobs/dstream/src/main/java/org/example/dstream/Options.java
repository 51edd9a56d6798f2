package org.example.dstream;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/**
 * The options of the command line.
 *
 * @param bootstrapServers addresses of Kafka brokers, {@code host:port}, separated by commas
 * @param group id of the consumer group
 * @param strategy {@code subscribe} (topics), {@code assign} (every partition that the topics have at the start) or
 *     {@code subscribe-pattern} (a regular expression)
 * @param topics what the strategy reads: topic names separated by commas, or the expression
 * @param stores {@code hbase}, {@code zookeeper}, {@code kafka}; the job starts from the first one and writes to all
 * @param zookeeper address of ZooKeeper, {@code host:port}; null if no store needs it
 * @param hbaseTable name of the HBase table; null without the store {@code hbase}
 * @param output folder of the output files
 * @param batchMs batch interval, in milliseconds
 */
record Options(
        String bootstrapServers,
        String group,
        String strategy,
        String topics,
        List<String> stores,
        String zookeeper,
        String hbaseTable,
        String output,
        long batchMs) {
    private static final Set<String> STRATEGIES = Set.of("subscribe", "assign", "subscribe-pattern");
    private static final Set<String> STORES = Set.of("hbase", "zookeeper", "kafka");

    static Options parse(String... arguments) {
        Map<String, String> given = new HashMap<>();
        for (int at = 0; at < arguments.length; at += 2) {
            if (!arguments[at].startsWith("--") || at + 1 == arguments.length) {
                throw new IllegalArgumentException("expected --option value, got " + arguments[at]);
            }
            given.put(arguments[at].substring(2), arguments[at + 1]);
        }
        Set<String> strategy = new TreeSet<>(given.keySet());
        strategy.retainAll(STRATEGIES);
        if (strategy.size() != 1) {
            throw new IllegalArgumentException("expected one of " + new TreeSet<>(STRATEGIES) + ", got " + strategy);
        }
        String chosen = strategy.iterator().next();
        Options options = new Options(
                required(given, "bootstrap-servers"),
                required(given, "group"),
                chosen,
                given.remove(chosen),
                List.of(required(given, "offsets").split(",")),
                given.remove("zookeeper"),
                given.remove("hbase-table"),
                required(given, "output"),
                Long.parseLong(given.containsKey("batch-ms") ? given.remove("batch-ms") : "1000"));
        if (!given.isEmpty()) {
            throw new IllegalArgumentException("unknown options " + new TreeSet<>(given.keySet()));
        }
        return options.checked();
    }

    private Options checked() {
        if (!STORES.containsAll(stores)) {
            throw new IllegalArgumentException("--offsets of " + new TreeSet<>(STORES) + ", got " + stores);
        }
        if (zookeeper == null && (stores.contains("hbase") || stores.contains("zookeeper"))) {
            throw new IllegalArgumentException("--zookeeper host:port is missing: " + stores + " need it");
        }
        if (hbaseTable == null && stores.contains("hbase")) {
            throw new IllegalArgumentException("--hbase-table is missing");
        }
        return this;
    }

    private static String required(Map<String, String> given, String name) {
        if (!given.containsKey(name)) {
            throw new IllegalArgumentException("--" + name + " is missing");
        }
        return given.remove(name);
    }
}
