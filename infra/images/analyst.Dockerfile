# The built-in agent alone: `analyst REQUEST.json` over mounted directories, for trying the contract by hand.
# Build from the root: docker build -f infra/images/analyst.Dockerfile -t carrel/analyst .
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked -p carrel-analyst --bin analyst \
    && mkdir /out && cp target/release/analyst /out/

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/analyst /usr/local/bin/analyst
ENTRYPOINT ["/usr/local/bin/analyst"]
