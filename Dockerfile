# Token Vault: a small image that runs without root and on a read-only root file system. It writes only to /data.
#
#   docker build -t token-vault .
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges --ulimit core=0 -v token-vault:/data token-vault
#
# Without TLS the vault listens on loopback only: let the callers share the container's network namespace (a sidecar, or
# --network host), or mount certificates and set TOKEN_VAULT__SERVER__LISTEN and TOKEN_VAULT__SERVER__TLS__* (docs/operating.md); the
# health check then needs TOKEN_VAULT_ENDPOINT=https://… and TOKEN_VAULT_CA_FILE.
#
# With --build-arg BINARY=prebuilt the image takes target/release/token-vault, built outside, in place of compiling it.
ARG BINARY=source

FROM docker.io/library/rust:1.95-bookworm AS source
WORKDIR /src
COPY . .
# Build without `demo`, because its sandbox has no place in production.
RUN cargo build --release --locked -p token-vault --bin token-vault --no-default-features \
 && install -D target/release/token-vault /out/token-vault \
 && install -d -m 0700 /out/data

FROM docker.io/library/debian:bookworm-slim AS prebuilt
COPY target/release/token-vault /out/token-vault
RUN install -d -m 0700 /out/data

FROM ${BINARY} AS built

FROM docker.io/library/debian:bookworm-slim
# The root certificates are for TLS connections to the provider.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin vault
COPY --from=built /out/token-vault /usr/local/bin/token-vault
COPY --from=built --chown=10001:10001 /out/data /data
USER 10001:10001
WORKDIR /data
VOLUME ["/data"]
EXPOSE 7443 7444
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["token-vault", "healthcheck"]
ENTRYPOINT ["token-vault"]
CMD ["serve", "--data-dir", "/data"]
