package org.example.dstream;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hbase.CompareOperator;
import org.apache.hadoop.hbase.HBaseConfiguration;
import org.apache.hadoop.hbase.TableName;
import org.apache.hadoop.hbase.client.Connection;
import org.apache.hadoop.hbase.client.ConnectionFactory;
import org.apache.hadoop.hbase.client.Put;
import org.apache.hadoop.hbase.client.Result;
import org.apache.hadoop.hbase.client.ResultScanner;
import org.apache.hadoop.hbase.client.Scan;
import org.apache.hadoop.hbase.client.Table;
import org.apache.hadoop.hbase.filter.RegexStringComparator;
import org.apache.hadoop.hbase.filter.RowFilter;
import org.apache.kafka.common.TopicPartition;
import org.apache.spark.streaming.kafka010.OffsetRange;

/**
 * One row for each topic and batch, in the Cloudera row layout. The key is {@code <topic>:<group>:<batch time in ms>}.
 * The family {@code offsets} has one column for each partition, with the offset as text.
 *
 * <p>No row is removed. A job starts at the offsets in the newest row of each topic.
 */
final class HBaseOffsets implements OffsetStore {
    private static final byte[] FAMILY = "offsets".getBytes(UTF_8);

    private final Connection connection;
    private final Table table;
    private final String group;

    HBaseOffsets(String quorum, String table, String group) throws IOException {
        Configuration configuration = HBaseConfiguration.create();
        configuration.set("hbase.zookeeper.quorum", quorum);
        this.connection = ConnectionFactory.createConnection(configuration);
        this.table = connection.getTable(TableName.valueOf(table));
        this.group = group;
    }

    @Override
    public Map<TopicPartition, Long> load(Set<String> topics) throws IOException {
        Map<TopicPartition, Long> offsets = new HashMap<>();
        for (String topic : topics) {
            newestRow(topic).forEach((partition, offset) ->
                    offsets.put(
                            new TopicPartition(topic, Integer.parseInt(new String(partition, UTF_8))),
                            Long.parseLong(new String(offset, UTF_8))));
        }
        return offsets;
    }

    /**
     * Returns the newest row of a topic, by partition; empty if there is no row.
     *
     * <p>The scan has both bounds, and a filter that compares the whole key. Rows of a group "g:1" sort between the
     * rows of the group "g".
     */
    private Map<byte[], byte[]> newestRow(String topic) throws IOException {
        String prefix = topic + ":" + group + ":";
        String key = "^" + Pattern.quote(prefix) + "[0-9]{13}$";
        Scan scan = new Scan()
                .setReversed(true)
                .withStartRow((prefix + "9999999999999").getBytes(UTF_8), true)
                .withStopRow((prefix + "0000000000000").getBytes(UTF_8), true)
                .addFamily(FAMILY)
                .setFilter(new RowFilter(CompareOperator.EQUAL, new RegexStringComparator(key)))
                .setLimit(1);
        try (ResultScanner rows = table.getScanner(scan)) {
            Result newest = rows.next();
            return newest == null ? Map.of() : newest.getFamilyMap(FAMILY);
        }
    }

    @Override
    public void save(OffsetRange[] ranges, long batchTimeMs) throws IOException {
        Map<String, Put> rows = new LinkedHashMap<>();
        for (OffsetRange range : ranges) {
            String key = String.format("%s:%s:%013d", range.topic(), group, batchTimeMs);
            rows.computeIfAbsent(range.topic(), topic -> new Put(key.getBytes(UTF_8)))
                    .addColumn(
                            FAMILY,
                            Integer.toString(range.partition()).getBytes(UTF_8),
                            Long.toString(range.untilOffset()).getBytes(UTF_8));
        }
        table.put(List.copyOf(rows.values()));
    }

    @Override
    public void close() throws IOException {
        table.close();
        connection.close();
    }
}
