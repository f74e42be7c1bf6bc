# `make image` builds it. By hand: docker build -t smtp-dedup-relay .
# Podman and Buildah keep the HEALTHCHECK only in Docker's image format: BUILDAH_FORMAT=docker podman build ...
ARG BASE=debian:trixie-slim

# hadolint global ignore=DL3008
# No versions of Debian packages: a rebuild takes the release's security updates.
FROM ${BASE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv
WORKDIR /src
# Two environments: /build has pip and the build tools, the other one is what the image gets.
RUN python3 -m venv /build && python3 -m venv --without-pip /opt/smtp-dedup-relay
COPY requirements/run.txt requirements/build.txt requirements/
RUN /build/bin/pip install --no-cache-dir --require-hashes -r requirements/build.txt \
    && /build/bin/pip --python /opt/smtp-dedup-relay/bin/python install --no-cache-dir --require-hashes -r requirements/run.txt
COPY pyproject.toml README.md LICENSE ./
COPY relay relay
RUN /build/bin/python -m hatchling build -t wheel -d /wheel \
    && /build/bin/pip --python /opt/smtp-dedup-relay/bin/python install --no-cache-dir --no-index --no-deps /wheel/*.whl

FROM ${BASE}
ARG VERSION=unknown
LABEL org.opencontainers.image.title="smtp-dedup-relay" \
      org.opencontainers.image.description="SMTP proxy that suppresses repeated mail without losing any" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 12525 --user-group --no-create-home --home-dir /var/lib/smtp-dedup-relay \
        --shell /usr/sbin/nologin smtp-dedup-relay \
    && install -d -o 12525 -g 12525 -m 700 /var/lib/smtp-dedup-relay
COPY --from=build /opt/smtp-dedup-relay /opt/smtp-dedup-relay
COPY packaging/container.toml /etc/smtp-dedup-relay/relay.toml
# The addresses are variables, so that a settings file of the operator need not name them.
ENV PATH=/opt/smtp-dedup-relay/bin:$PATH \
    STATE_DIRECTORY=/var/lib/smtp-dedup-relay \
    RELAY_LISTEN__ADDRESS=0.0.0.0:2525 \
    RELAY_HTTP__ADDRESS=0.0.0.0:9625 \
    RELAY_ADMIN__SOCKET=/tmp/admin.sock
# A number, with which Kubernetes' runAsNonRoot can see that it is not root.
USER 12525:12525
VOLUME /var/lib/smtp-dedup-relay
EXPOSE 2525 9625
# Give it more than limits.drain (25 s) to end: --stop-timeout 35, or stop_grace_period in a compose file.
STOPSIGNAL SIGTERM
# A relay without its store or upstream is alive: a restart would repair neither.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9625/livez', timeout=2)"]
ENTRYPOINT ["relay"]
CMD ["serve"]
