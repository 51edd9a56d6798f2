package org.example.dstream;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.util.ShutdownHookManager;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.spark.SparkConf;
import org.apache.spark.api.java.JavaRDD;
import org.apache.spark.streaming.Durations;
import org.apache.spark.streaming.Time;
import org.apache.spark.streaming.api.java.JavaInputDStream;
import org.apache.spark.streaming.api.java.JavaStreamingContext;
import org.apache.spark.streaming.kafka010.CanCommitOffsets;
import org.apache.spark.streaming.kafka010.HasOffsetRanges;
import org.apache.spark.streaming.kafka010.KafkaUtils;
import org.apache.spark.streaming.kafka010.LocationStrategies;
import org.apache.spark.streaming.kafka010.OffsetRange;

/**
 * Reads Kafka's direct stream, and writes a line for each record: topic, partition, offset and batch time.
 *
 * <p>The job writes the output of a batch first, and stores the offsets of the batch second. If the job dies in
 * between, the next start replays the batch. No batch is skipped.
 */
public final class Job {
    private final Path output;
    private final List<OffsetStore> stores;
    private IllegalStateException failure;

    private Job(Path output, List<OffsetStore> stores) {
        this.output = output;
        this.stores = stores;
    }

    public static void main(String[] arguments) throws Exception {
        Options options = Options.parse(arguments);
        SparkConf conf = new SparkConf()
                .setIfMissing("spark.streaming.stopGracefullyOnShutdown", "true")
                .setIfMissing("spark.streaming.kafka.maxRatePerPartition", "10000");
        List<OffsetStore> stores = new ArrayList<>();
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", options.bootstrapServers()));
                var context = new JavaStreamingContext(conf, Durations.milliseconds(options.batchMs()))) {
            for (String name : options.stores()) {
                stores.add(open(name, options, admin));
            }
            Start start = Start.of(options, admin, stores.get(0));
            JavaInputDStream<ConsumerRecord<byte[], byte[]>> stream = KafkaUtils.createDirectStream(
                    context, LocationStrategies.PreferConsistent(), start.strategy(options, consumer(options)));
            stores.forEach(store -> store.attach((CanCommitOffsets) stream.inputDStream()));
            stream.foreachRDD(new Job(Files.createDirectories(Path.of(options.output())), stores)::process);
            stopOnShutdown(context, conf.getBoolean("spark.streaming.stopGracefullyOnShutdown", true));
            context.start();
            context.awaitTermination();
        } finally {
            for (OffsetStore store : stores) {
                store.close();
            }
        }
    }

    /**
     * Stops the context in a shutdown hook that runs before all hooks of Spark, and has an hour.
     *
     * <p>Spark's own hook does not finish the batches with a local master: it waits for tasks, and another hook of
     * Spark has already stopped the executor (seen in 3.5.1). With any master, Hadoop ends that hook after 30 s.
     */
    private static void stopOnShutdown(JavaStreamingContext context, boolean gracefully) {
        int beforeSpark = FileSystem.SHUTDOWN_HOOK_PRIORITY + 40;
        ShutdownHookManager.get().addShutdownHook(() -> context.stop(true, gracefully), beforeSpark, 1, TimeUnit.HOURS);
    }

    /**
     * Writes one batch and stores its offsets, unless an earlier batch failed.
     *
     * <p>A batch after a failed one would store offsets beyond records that were not written. Spark itself continues:
     * with the waiting batches after an exception, and with all later batches after an {@link Error}.
     */
    private void process(JavaRDD<ConsumerRecord<byte[], byte[]>> records, Time time) {
        if (failure != null) {
            throw failure;
        }
        try {
            OffsetRange[] ranges = ((HasOffsetRanges) records.rdd()).offsetRanges();
            write(records, time.milliseconds());
            for (OffsetStore store : stores) {
                store.save(ranges, time.milliseconds());
            }
        } catch (Exception | Error problem) {
            String message = "batch " + time.milliseconds() + " failed, so no later batch runs";
            failure = new IllegalStateException(message, problem);
            throw failure;
        }
    }

    /** Writes one file per batch. A file gets its final name when it is complete. */
    private void write(JavaRDD<ConsumerRecord<byte[], byte[]>> records, long batchTimeMs) throws IOException {
        List<String> lines = records.map(record -> String.join(
                        "\t",
                        record.topic(),
                        Integer.toString(record.partition()),
                        Long.toString(record.offset()),
                        Long.toString(batchTimeMs)))
                .collect();
        if (!lines.isEmpty()) {
            Path draft = Files.write(output.resolve(batchTimeMs + ".partial"), lines);
            Files.move(draft, output.resolve(batchTimeMs + ".tsv"), StandardCopyOption.ATOMIC_MOVE);
        }
    }

    private static OffsetStore open(String name, Options options, Admin admin) throws Exception {
        return switch (name) {
            case "hbase" -> new HBaseOffsets(options.zookeeper(), options.hbaseTable(), options.group());
            case "zookeeper" -> new ZooKeeperOffsets(options.zookeeper(), options.group());
            default -> new KafkaOffsets(admin, options.group());
        };
    }

    private static Map<String, Object> consumer(Options options) {
        return Map.of(
                "bootstrap.servers", options.bootstrapServers(),
                "group.id", options.group(),
                "key.deserializer", ByteArrayDeserializer.class,
                "value.deserializer", ByteArrayDeserializer.class,
                "auto.offset.reset", "earliest",
                "enable.auto.commit", false);
    }
}
