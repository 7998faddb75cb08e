# What users and developers of baton type. Each target installs what it needs (apt-get, Go modules).
.PHONY: all help build deps install uninstall demo test models sim soak weather bench bench-many idle fuzz generate clean

GO      ?= go
SEEDS   ?= 1..2000
PROFILE ?= mix
PREFIX  ?= /usr/local
BINARY  ?= bin/baton

all: build

help: ## these lines
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do printf 'make %-10s %s\n' "$$name" "$$text"; done

build: deps ## the binary, in bin/baton: static, so it runs on every Linux of this architecture
	CGO_ENABLED=0 $(GO) build -o bin/baton ./cmd/baton

deps: ## what a bare Debian 12 with Go lacks
	@sh scripts/deps.sh

install: ## binary, systemd unit, /etc/default/baton, completion, group: make install PREFIX=/usr DESTDIR=/tmp/package
	@[ -x "$(BINARY)" ] || $(MAKE) build
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" BINARY="$(BINARY)" sh scripts/install.sh install

uninstall: ## stops the agent and takes away what install put there; data, key and cluster file stay
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" sh scripts/install.sh uninstall

demo: build ## a real failover on this machine, with keys to break things; AUTO=1 plays all faults once
	@bin/baton dev $(if $(AUTO),--auto)

test: deps ## everything that CI runs
	@sh scripts/test.sh

models: ## the protocol's models, exhaustively (hours): make models MODELS='lease voters'; SHORT=1: those that CI runs, a few minutes on a busy machine
	@sh scripts/deps.sh spin:spin
	@SHORT=$(SHORT) sh models/run.sh $(MODELS)

sim: ## the simulator: make sim SEEDS=1..100000 PROFILE=mix
	$(GO) run ./cmd/baton simulate --seeds $(SEEDS) --profile $(PROFILE)

soak: build ## random changes of voters and configuration, with power losses, on the real binary: make soak SEEDS=1..100
	$(GO) test -c -o bin/trial.test ./internal/trial
	cd internal/trial && BATON_BINARY=$(CURDIR)/bin/baton SOAK=$(if $(filter file,$(origin SEEDS)),1..100,$(SEEDS)) ../../bin/trial.test -test.run 'TestSoak$$' -test.timeout 10h

weather: build ## hours in which what is around the programs fails and heals at random: make weather SEEDS=1..24
	$(GO) test -c -o bin/trial.test ./internal/trial
	cd internal/trial && BATON_BINARY=$(CURDIR)/bin/baton SOAK_SURROUNDINGS=$(if $(filter file,$(origin SEEDS)),1..24,$(SEEDS)) ../../bin/trial.test -test.run TestSoakSurroundings -test.timeout 10h

bench: build ## outages that clients see, per fault and budget (about 40 minutes)
	@bin/baton bench $(BENCH)

bench-many: build ## 500 groups on 3 and on 7 nodes: takeover, commands, a dead link, idle agents (about 6 minutes)
	@bin/baton bench --many

idle: build ## what an idle agent costs (about 25 minutes)
	@bin/baton bench --idle

fuzz: ## every fuzz target for a minute each
	@sh scripts/fuzz.sh

generate: ## the API's Go code, after a change of api/v1/*.proto (needs npx)
	GOBIN=$(CURDIR)/bin $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go@v1.36.12
	GOBIN=$(CURDIR)/bin $(GO) install connectrpc.com/connect/cmd/protoc-gen-connect-go@v1.21.1
	cd api && PATH=$(CURDIR)/bin:$$PATH npx --yes @bufbuild/buf@1.75.0 generate

clean: ## takes away what make built
	rm -rf bin
