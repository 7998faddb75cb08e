#!/bin/sh
# Runs every fuzz target for a while: scripts/fuzz.sh [TIME], a minute by default.
set -eu
cd "$(dirname "$0")/.."
time=${1:-1m}
grep -rn --include='*_test.go' -o 'func Fuzz[A-Za-z]*' internal | while IFS=: read -r file _ func; do
	echo "--- ${func#func } in $(dirname "$file")"
	go test "./$(dirname "$file")" -run '^$' -fuzz "^${func#func }\$" -fuzztime "$time"
done
