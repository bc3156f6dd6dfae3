# Shortline. `make` alone lists what there is. GNU make 3.81 or newer.

GO          ?= go
DATA        ?= shortline-data
ARGS        ?=
FUZZTIME    ?= 1m
TIMEOUT     ?= 20m
DURATION    ?= 10m
SEED        ?=
BENCH       ?= .
BENCHTIME   ?= 1s
BENCH_PKGS  ?= ./geo/... ./replication/... ./edge/...
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# H3 and SQLite are C.
export CGO_ENABLED = 1

.DEFAULT_GOAL := help
.PHONY: help run build console test check chaos bench fuzz clean rules

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: build ## start three regions with demo data on this machine, or one node where PostgreSQL and Redis cannot be had (ONE=1: one node)
	@if [ -z "$(ONE)" ] && scripts/setup redis postgres; then \
		echo "==> bin/shortline planet --simulate $(ARGS)"; \
		exec bin/shortline planet --simulate $(ARGS); \
	fi; \
	[ -n "$(ONE)" ] || echo "==> without PostgreSQL and Redis: one node instead of three regions"; \
	echo "==> bin/shortline serve --demo --simulate --data $(DATA) $(ARGS)"; \
	exec bin/shortline serve --demo --simulate --data "$(DATA)" $(ARGS)

build: ## build bin/shortline
	@scripts/setup go cc
	@echo "==> building bin/shortline $(VERSION)"
	@$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o bin/shortline ./cmd/shortline

console: ## build the map console from edge/console/src into edge/console/dist, which the binary embeds
	@scripts/setup node
	@echo "==> npm ci, npm run check, npm run build in edge/console"
	@cd edge/console && npm ci --silent --no-audit --no-fund && npm run --silent check && npm run --silent build

# Tests that need PostgreSQL, Redis or Chromium skip where these are missing; here they have been installed, so that would be a fault.
test check: export SHORTLINE_REQUIRE_SERVERS = 1

test: ## run all tests
	@scripts/setup go cc redis postgres chromium
	@echo "==> go test ./..."
	@$(GO) test -timeout $(TIMEOUT) ./...

check: ## all that a change must pass: format, vet, staticcheck, go.mod, tests with the race detector
	@scripts/setup go cc redis postgres chromium
	@echo "==> gofmt"
	@files=$$(find . -path './.?*' -prune -o -name '*.go' -print0 | xargs -0 "$$($(GO) env GOROOT)/bin/gofmt" -l) || exit 1; \
	if [ -n "$$files" ]; then echo "not as gofmt writes it (run: gofmt -w FILE):"; echo "$$files"; exit 1; fi
	@echo "==> go vet ./..."
	@$(GO) vet ./...
	@echo "==> staticcheck ./..."
	@$(GO) run $(STATICCHECK) ./...
	@echo "==> go mod tidy -diff"
	@$(GO) mod tidy -diff || { echo "go.mod or go.sum is not tidy (run: go mod tidy)"; exit 1; }
	@if [ -n "$$CI" ] || scripts/setup node 2>/dev/null; then \
		scripts/setup node && echo "==> the built console is what its sources give" && \
		cd edge/console && npm ci --silent --no-audit --no-fund && npm run --silent check && npm run --silent verify; \
	else \
		echo "==> no Node.js: not checked that the built console is what its sources give"; \
	fi
	@$(MAKE) --no-print-directory terraform rules vulnerable
	@echo "==> go test -race ./..."
	@$(GO) test -race -timeout $(TIMEOUT) ./...

terraform: ## check the modules in deploy/terraform with Terraform, without AWS (part of make check)
	@echo "==> deploy/terraform"
	@cd deploy/terraform/internal && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) test -v -count=1 .

chaos: ## break three regions at random under load and hold what they promise, as root (DURATION=10m, SEED= of an earlier run); see docs/testing.md
	@scripts/setup go cc redis postgres
	@SHORTLINE_CHAOS="$(DURATION)" SHORTLINE_CHAOS_SEED="$(SEED)" SHORTLINE_REQUIRE_SERVERS=1 \
		$(GO) test -run '^TestChaos$$' -count=1 -v -timeout 0 ./cmd/shortline

rules: ## check the rules and alerts in deploy/prometheus with promtool (part of make check)
	@if scripts/setup promtool; then \
		echo "==> promtool in deploy/prometheus" && cd deploy/prometheus && \
		promtool check config --syntax-only prometheus.yml >/dev/null && promtool check rules rules.yml alerts.yml && promtool test rules tests.yml; \
	else \
		echo "==> SKIPPED: no promtool: deploy/prometheus is not checked"; [ -z "$$CI" ]; \
	fi

vulnerable: ## look for known faults in what the program uses, where the database can be reached (part of make check)
	@echo "==> govulncheck"
	@scripts/vulnerabilities

ship: ## make in dist/ what is released: program, SBOM, Debian package, sums
	@scripts/setup go cc
	@scripts/ship

reproducible: ## build the program twice, in two folders, and compare; takes minutes
	@scripts/setup go cc
	@echo "==> building twice"
	@scripts/reproducible

bench: ## measure: Go benchmarks, then HTTP, Redis and PostGIS on the same stores (BENCH=regexp, BENCHTIME=, ARGS=)
	@scripts/setup go cc
	@echo "==> go test -bench '$(BENCH)' $(BENCH_PKGS)"
	@$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem -timeout 1h $(BENCH_PKGS)
	@scripts/setup redis postgis wrk
	@echo "==> go run ./bench $(ARGS)"
	@$(GO) run ./bench $(ARGS)

fuzz: ## fuzz each target in turn (FUZZTIME=1m)
	@scripts/setup go cc
	@list=$$($(GO) test -list '^Fuzz' ./...) || { echo "$$list"; exit 1; }; \
	echo "$$list" | awk '/^Fuzz/ { names[++n] = $$1 } $$1 == "ok" { for (i = 1; i <= n; i++) print names[i], $$2; n = 0 }' | \
	while read -r name pkg; do \
		echo "==> $$name in $$pkg for $(FUZZTIME)"; \
		$(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$pkg" </dev/null || exit 1; \
	done

clean: ## remove what make build and make test left (never the data folder)
	@echo "==> removing bin/ and dist/"
	@rm -rf bin dist
	@find . -path './.?*' -prune -o \( -name '*.test' -o -name '*.prof' \) -type f -exec rm -f {} +
