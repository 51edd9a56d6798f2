"""What a Kafka cluster knows of a pipeline's topics, read in as few requests as the protocol allows.

Reading here joins no consumer group, commits nothing and creates no topic. ``view`` says what is asked, ``reader``
asks a real cluster through ``calls``, which has its clients; ``airflow_provider_offsets.testing`` has a cluster in
memory.
"""
