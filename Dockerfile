# Token Vault: a small image that runs without root and on a read-only root file system. It writes only to /data.
#
#   docker build -t token-vault .
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges --ulimit core=0 -v token-vault:/data token-vault
#
# Without TLS the vault listens on loopback only: let the callers share the container's network namespace (a sidecar, or
# --network host), or mount certificates and set TOKEN_VAULT__SERVER__LISTEN and TOKEN_VAULT__SERVER__TLS__* (docs/operating.md).
# Every command in the container reads the same environment, and so finds the same data and the same vault.
#
# With --build-arg BINARY=prebuilt the image takes a binary built outside, target/release/token-vault or the one that
# --build-arg PREBUILT names, in place of compiling it.
ARG BINARY=source

FROM docker.io/library/rust:1.95-bookworm AS source
WORKDIR /src
COPY . .
# Build without `demo`, because its sandbox has no place in production.
RUN cargo build --release --locked -p token-vault --bin token-vault --no-default-features \
 && install -D target/release/token-vault /out/token-vault

FROM docker.io/library/debian:bookworm-slim AS prebuilt
ARG PREBUILT=target/release/token-vault
COPY ${PREBUILT} /out/token-vault

FROM ${BINARY} AS built

FROM docker.io/library/debian:bookworm-slim
# The root certificates are for TLS connections to the provider.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin vault \
 && install -d -m 0700 -o 10001 -g 10001 /data
COPY --from=built /out/token-vault /usr/local/bin/token-vault
ENV TOKEN_VAULT__DATA_DIR=/data
USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 7443 7444
# A stop takes 8 s at most, and Docker waits 10 s.
STOPSIGNAL SIGTERM
# Liveness, not readiness: an engine that restarts what is unhealthy would turn a full disk into an outage.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["token-vault", "healthcheck", "--live"]
ENTRYPOINT ["token-vault"]
CMD ["serve"]
