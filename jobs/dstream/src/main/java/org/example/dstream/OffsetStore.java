package org.example.dstream;

import java.io.Closeable;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.common.TopicPartition;
import org.apache.spark.streaming.kafka010.CanCommitOffsets;
import org.apache.spark.streaming.kafka010.OffsetRange;

/** A store of the offsets of finished batches: for each partition, the offset of the next record to read. */
interface OffsetStore extends Closeable {

    /** Returns every stored offset of these topics; empty if the job never finished a batch. */
    Map<TopicPartition, Long> load(Set<String> topics) throws Exception;

    /**
     * Stores the end offsets of a batch whose output is finished.
     *
     * @param batchTimeMs Spark's time of the batch, in milliseconds since 1970
     */
    void save(OffsetRange[] ranges, long batchTimeMs) throws Exception;

    /** Passes the stream that the batches come from. The job calls this method before the first batch. */
    default void attach(CanCommitOffsets stream) {}
}
