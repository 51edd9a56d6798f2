"""What a Kafka cluster knows of a pipeline's topics, read in as few requests as the protocol allows.

Reading here joins no consumer group, commits nothing and creates no topic. ``view`` says what is asked, ``reader``
asks a real cluster (and is the only module that imports confluent_kafka), ``airflow_provider_offsets.testing`` has
one in memory.
"""
