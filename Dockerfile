FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/smtp-dedup-relay
COPY requirements/run.txt requirements/
RUN /opt/smtp-dedup-relay/bin/pip install --no-cache-dir --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY relay relay
RUN /opt/smtp-dedup-relay/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.12-slim
RUN useradd --system --create-home --home-dir /var/lib/smtp-dedup-relay smtp-dedup-relay
COPY --from=build /opt/smtp-dedup-relay /opt/smtp-dedup-relay
ENV PATH=/opt/smtp-dedup-relay/bin:$PATH \
    STATE_DIRECTORY=/var/lib/smtp-dedup-relay \
    PYTHONUNBUFFERED=1
USER smtp-dedup-relay
VOLUME /var/lib/smtp-dedup-relay
EXPOSE 2525 9625
STOPSIGNAL SIGTERM
# A relay without its store or upstream is alive: a restart would mend neither.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9625/livez', timeout=2)"]
ENTRYPOINT ["relay"]
# In a container no client is on loopback: name the networks that may send, as in -e RELAY_LISTEN__NETWORKS=172.16.0.0/12
CMD ["serve", "--listen", "0.0.0.0:2525", "--http", "0.0.0.0:9625"]
