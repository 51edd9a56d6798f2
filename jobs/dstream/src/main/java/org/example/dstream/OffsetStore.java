package org.example.dstream;

import java.io.Closeable;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.common.TopicPartition;
import org.apache.spark.streaming.kafka010.CanCommitOffsets;
import org.apache.spark.streaming.kafka010.OffsetRange;

/** Where the offsets of finished batches are kept: for each partition, the next record to read. */
interface OffsetStore extends Closeable {

    /** Every stored offset of these topics; empty if the job never finished a batch. */
    Map<TopicPartition, Long> load(Set<String> topics) throws Exception;

    /** Keeps the ends of a batch whose output is finished. */
    void save(OffsetRange[] ranges, long batchTimeMs) throws Exception;

    /** Gives the stream that the batches come from, before the first of them. */
    default void attach(CanCommitOffsets stream) {}
}
