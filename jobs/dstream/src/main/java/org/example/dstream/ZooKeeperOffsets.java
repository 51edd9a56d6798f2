package org.example.dstream;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.curator.RetryLoop;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.retry.ExponentialBackoffRetry;
import org.apache.curator.utils.ZKPaths;
import org.apache.kafka.common.TopicPartition;
import org.apache.spark.streaming.kafka010.OffsetRange;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.ZooDefs;
import org.apache.zookeeper.ZooKeeper;

/**
 * One znode for each partition, {@code /consumers/<group>/offsets/<topic>/<partition>}, with the offset as text. There
 * is no history: a znode holds the newest offset only.
 */
final class ZooKeeperOffsets implements OffsetStore {
    private final CuratorFramework client;
    private final String group;

    ZooKeeperOffsets(String connectString, String group) {
        if (group.contains("/")) {
            throw new IllegalArgumentException(
                    "group " + group + " cannot be the name of a znode, because it contains a /");
        }
        this.client = CuratorFrameworkFactory.newClient(connectString, new ExponentialBackoffRetry(1000, 5));
        this.group = group;
        client.start();
    }

    @Override
    public Map<TopicPartition, Long> load(Set<String> topics) throws Exception {
        Map<TopicPartition, Long> offsets = new HashMap<>();
        for (String topic : topics) {
            if (client.checkExists().forPath(path(topic)) == null) {
                continue;
            }
            for (String partition : client.getChildren().forPath(path(topic))) {
                byte[] offset = client.getData().forPath(path(topic) + "/" + partition);
                offsets.put(
                        new TopicPartition(topic, Integer.parseInt(partition)),
                        Long.parseLong(new String(offset, UTF_8)));
            }
        }
        return offsets;
    }

    /**
     * Stores all partitions of the batch in one transaction, or none of them.
     *
     * <p>The call is retried after a lost connection, and fails if ZooKeeper stays unreachable.
     */
    @Override
    public void save(OffsetRange[] ranges, long batchTimeMs) throws Exception {
        RetryLoop.callWithRetry(client.getZookeeperClient(), () -> {
            ZooKeeper zookeeper = client.getZookeeperClient().getZooKeeper();
            List<Op> moves = new ArrayList<>();
            for (OffsetRange range : ranges) {
                ZKPaths.mkdirs(zookeeper, path(range.topic()));
                moves.add(move(
                        zookeeper,
                        path(range.topic()) + "/" + range.partition(),
                        Long.toString(range.untilOffset()).getBytes(UTF_8)));
            }
            return zookeeper.multi(moves);
        });
    }

    private static Op move(ZooKeeper zookeeper, String path, byte[] offset) throws Exception {
        return zookeeper.exists(path, false) == null
                ? Op.create(path, offset, ZooDefs.Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT)
                : Op.setData(path, offset, -1);
    }

    private String path(String topic) {
        return "/consumers/" + group + "/offsets/" + topic;
    }

    @Override
    public void close() {
        client.close();
    }
}
