#!/bin/sh
# Everything that CI runs: formatting, vet, the house rules, unit tests, the simulator's fixed seeds and
# mutations, the short set of the protocol's models, and the real binary in the lab.
set -eu
cd "$(dirname "$0")/.."
step() { echo "--- $*"; }
step "gofmt, vet"
raw=$(gofmt -l $(git ls-files '*.go'))
[ -z "$raw" ] || { echo "not gofmt-ed: $raw" >&2; exit 1; }
go vet ./...
(cd models/pair-raft && go vet ./...)
step "models of the protocol: the short set"
sh scripts/deps.sh spin:spin
SHORT=1 sh models/run.sh
step "unit tests, simulator, house rules"
sh scripts/deps.sh python3:python3 sysctl:procps
go test $(go list ./... | grep -v internal/trial)
step "planted bugs: each is caught"
go test -tags planted ./internal/sim -run TestMutations
step "simulator: a thousand seeds of the long profile"
go run ./cmd/baton simulate --seeds 1..1000 --profile mix
step "race detector on the core, the simulator and the parts that run goroutines"
go test -race -short ./internal/core/... ./internal/io/resource ./internal/io/link ./internal/io/api ./internal/app
step "the real binary in the lab"
go test -count=1 -timeout 30m ./internal/trial
