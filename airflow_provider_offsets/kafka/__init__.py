"""Access to a Kafka cluster: topics, offsets and commits, in as few requests as the protocol allows.

Reading joins no consumer group, commits nothing and creates no topic. ``view`` defines the interface. ``reader``
implements it for a real cluster, with the clients of ``calls``. ``airflow_provider_offsets.testing`` has a cluster in
memory.
"""
