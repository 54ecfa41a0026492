# The worker with the built-in agent: one task reviews one pack. A userland is there for the code that an agent runs.
# Build from the root: docker build -f infra/images/worker.Dockerfile -t carrel/worker .
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked -p carrel-worker --bin worker -p carrel-analyst --bin analyst \
    && mkdir /out && cp target/release/worker target/release/analyst /out/

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 65532 --create-home --shell /usr/sbin/nologin carrel
COPY --from=build /out/worker /out/analyst /usr/local/bin/
# One file of authorities: else every start reads a directory of hundreds.
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENV CARREL_AGENT='["/usr/local/bin/analyst"]'
ENTRYPOINT ["/usr/local/bin/worker"]
