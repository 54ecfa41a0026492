# The loopback cloud, for one machine. It starts the workers itself, so they and the analyst are in it.
# Build from the root: docker build -f infra/images/cloud.Dockerfile -t carrel/cloud .
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin carrel -p carrel -p carrel-worker --bin worker -p carrel-analyst --bin analyst \
    && mkdir /out && cp target/release/carrel target/release/worker target/release/analyst /out/

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 65532 --create-home --shell /usr/sbin/nologin carrel \
    && install -d -o carrel -g carrel /var/lib/carrel
COPY --from=build /out/carrel /out/worker /out/analyst /usr/local/bin/
# One file of authorities: else every start reads a directory of hundreds.
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
VOLUME /var/lib/carrel
ENTRYPOINT ["/usr/local/bin/carrel"]
