# All images of docker-compose.yml, one target each. No BuildKit-only syntax.
FROM rust:1.95-bookworm AS build
WORKDIR /larder
COPY .env.example rust-toolchain.toml Cargo.toml Cargo.lock rustfmt.toml clippy.toml ./
COPY contract contract
COPY cache-core cache-core
COPY filter filter
COPY sidecar sidecar
COPY mock-origin mock-origin
COPY project project
COPY stack stack
COPY cli cli
COPY bench bench
COPY attack attack
COPY envoy envoy
COPY scripts/link-exports scripts/link-exports
RUN rustup target add wasm32-wasip1
RUN cargo build --locked --release -p larder-cli -p larder-sidecar -p larder-mock-origin
RUN cargo build --locked -p larder-filter --target wasm32-wasip1 --profile wasm && \
    python3 scripts/link-exports target/wasm32-wasip1/wasm/larder_filter.wasm
RUN mkdir -p /out/run && target/release/larder render --bind 0.0.0.0 --port 10000 --metrics-port 9902 \
      --origins origin-1:9000,origin-2:9000 --sidecar sidecar:7480 --run-dir /etc/larder/run --wasm /etc/larder/larder_filter.wasm --out /out/run

FROM debian:bookworm-slim AS sidecar
# The roots that rediss://… is checked against.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /larder/target/release/larder-sidecar /larder/target/release/larder /usr/local/bin/
EXPOSE 7480
CMD ["larder-sidecar", "--listen", "0.0.0.0:7480"]

FROM debian:bookworm-slim AS mock-origin
COPY --from=build /larder/target/release/larder-mock-origin /usr/local/bin/
EXPOSE 9000
CMD ["larder-mock-origin", "--listen", "0.0.0.0:9000"]

FROM envoyproxy/envoy:v1.40.0 AS envoy
COPY --from=build /larder/target/wasm32-wasip1/wasm/larder_filter.wasm /etc/larder/larder_filter.wasm
COPY --from=build /out/run /etc/larder/run
RUN chmod -R a+rX /etc/larder
# 9902: GET /stats/prometheus. The admin interface stays inside the container.
EXPOSE 10000 9902
# The filter reads its token from Envoy's environment; of two in the file it presents the first.
CMD ["sh", "-c", "[ -z \"$LARDER_TOKEN_FILE\" ] || export LARDER_TOKEN=\"$(head -n1 \"$LARDER_TOKEN_FILE\" | cut -d, -f1)\"; \
  start=/docker-entrypoint.sh; [ -x $start ] || start=; exec $start envoy -c /etc/larder/run/envoy.yaml --concurrency 2"]
