"""Control records on any offset store: pipelines, operations, snapshots, replays and boundaries."""
