package org.example.dstream;

import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.TopicPartition;
import org.apache.spark.streaming.kafka010.ConsumerStrategies;
import org.apache.spark.streaming.kafka010.ConsumerStrategy;

/**
 * The start of the stream.
 *
 * @param partitions every partition of the topics
 * @param offsets the offset to start at, for each partition; empty at the first start
 */
record Start(Set<TopicPartition> partitions, Map<TopicPartition, Long> offsets) {

    static Start of(Options options, Admin admin, OffsetStore store) throws Exception {
        Set<TopicPartition> partitions = partitions(topics(options, admin), admin);
        Set<String> topics = partitions.stream().map(TopicPartition::topic).collect(Collectors.toSet());
        return new Start(partitions, offsets(partitions, store.load(topics)));
    }

    /**
     * Returns the offset to start at, for each partition.
     *
     * <ol>
     *   <li>First start: nothing is stored, so the result is empty, and {@code auto.offset.reset} decides.
     *   <li>Same partitions: the stored offsets.
     *   <li>More partitions: new partitions start at 0, so records that were written before this start are not skipped.
     * </ol>
     *
     * @throws IllegalStateException a stored partition does not exist, so the topic was recreated
     */
    static Map<TopicPartition, Long> offsets(Set<TopicPartition> partitions, Map<TopicPartition, Long> stored) {
        if (!partitions.containsAll(stored.keySet())) {
            Set<TopicPartition> gone = new HashSet<>(stored.keySet());
            gone.removeAll(partitions);
            throw new IllegalStateException(
                    "offsets are stored for " + gone + ", which Kafka does not have: was the topic recreated?");
        }
        Map<TopicPartition, Long> offsets = new HashMap<>();
        if (!stored.isEmpty()) {
            partitions.forEach(partition -> offsets.put(partition, stored.getOrDefault(partition, 0L)));
        }
        return offsets;
    }

    ConsumerStrategy<byte[], byte[]> strategy(Options options, Map<String, Object> consumer) {
        return switch (options.strategy()) {
            case "subscribe" -> ConsumerStrategies.Subscribe(names(options), consumer, offsets);
            case "assign" -> ConsumerStrategies.Assign(partitions, consumer, offsets);
            default -> ConsumerStrategies.SubscribePattern(Pattern.compile(options.topics()), consumer, offsets);
        };
    }

    private static Collection<String> topics(Options options, Admin admin)
            throws ExecutionException, InterruptedException {
        if (!options.strategy().equals("subscribe-pattern")) {
            return names(options);
        }
        var pattern = Pattern.compile(options.topics()).asMatchPredicate();
        return admin.listTopics().names().get().stream().filter(pattern).toList();
    }

    private static Set<TopicPartition> partitions(Collection<String> topics, Admin admin)
            throws ExecutionException, InterruptedException {
        Set<TopicPartition> partitions = new HashSet<>();
        admin.describeTopics(topics).allTopicNames().get().forEach((topic, description) -> description
                .partitions()
                .forEach(partition -> partitions.add(new TopicPartition(topic, partition.partition()))));
        return partitions;
    }

    private static List<String> names(Options options) {
        return List.of(options.topics().split(","));
    }
}
