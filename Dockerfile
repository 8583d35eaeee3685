# syntax=docker/dockerfile:1
# The weir image: one static configuration of one binary, run by an unprivileged user.
# scripts/check-containers.sh (part of `make check`) reads this file and runs its build step outside Docker.

FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY Cargo.toml Cargo.lock ./
COPY bench bench
COPY crates crates
COPY migrations migrations
# The cache mounts keep downloaded and compiled dependencies between builds; only what leaves /source/target is in a layer.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/source/target \
    cargo build --locked --profile dist --package weir-cli --bin weir \
    && install -D target/dist/weir /out/weir

FROM debian:bookworm-slim
# Certificates for calls to providers; the fixed user id lets volumes keep their owner across images.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin weir \
    && install --directory --owner=10001 --mode=0700 /data
COPY --from=build /out/weir /usr/local/bin/weir
USER 10001
WORKDIR /data
VOLUME /data
ENV WEIR_DATABASE_URL=sqlite:///data/weir.db \
    WEIR_DATA_FOLDER=/data \
    WEIR_LISTEN=0.0.0.0:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 CMD ["weir", "healthcheck"]
# Longer than weir's own grace period for calls that have left.
STOPSIGNAL SIGTERM
ENTRYPOINT ["weir"]
CMD ["serve"]
