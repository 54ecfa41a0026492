# The dispatcher: no shell, no package manager, nobody's uid.
# Build from the root: docker build -f infra/images/dispatcher.Dockerfile -t carrel/dispatcher .
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked -p carrel-dispatcher --bin dispatcher \
    && mkdir /out && cp target/release/dispatcher /out/

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/dispatcher /usr/local/bin/dispatcher
ENTRYPOINT ["/usr/local/bin/dispatcher"]
