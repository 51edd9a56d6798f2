package org.example.dstream;

import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.TopicPartition;
import org.apache.spark.streaming.kafka010.CanCommitOffsets;
import org.apache.spark.streaming.kafka010.OffsetRange;

/**
 * The committed offsets of the consumer group. Spark sends the commit of a batch when it plans the next batch. So the
 * last batch before a stop is not committed, and the next start replays it.
 */
final class KafkaOffsets implements OffsetStore {
    private final Admin admin;
    private final String group;
    private CanCommitOffsets stream;

    KafkaOffsets(Admin admin, String group) {
        this.admin = admin;
        this.group = group;
    }

    @Override
    public void attach(CanCommitOffsets stream) {
        this.stream = stream;
    }

    @Override
    public Map<TopicPartition, Long> load(Set<String> topics) throws Exception {
        Map<TopicPartition, Long> offsets = new HashMap<>();
        admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().forEach((partition, committed) -> {
            if (topics.contains(partition.topic())) {
                offsets.put(partition, committed.offset());
            }
        });
        return offsets;
    }

    @Override
    public void save(OffsetRange[] ranges, long batchTimeMs) {
        stream.commitAsync(ranges);
    }

    @Override
    public void close() {}
}
