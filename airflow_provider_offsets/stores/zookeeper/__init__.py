"""Position store in ZooKeeper."""
