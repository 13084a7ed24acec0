#!/usr/bin/env bash
# All tests with the race detector: the unit tests; then, on clusters of their own, the scripts that run beside each other, and
# meanwhile those that run alone, and after them the outages; then what is left, one kind after the other, since many are
# about moments.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
sum=.tools/bin/gotestsum report=.tools/report
# Tests of clients run those that the testbed has, and fail where one is missing.
for dir in "${XDG_CACHE_HOME:-$HOME/.cache}"/isthmus/testbed/{kubernetes,helm}-*/; do PATH="$dir:$PATH"; done
export PATH CI=1
rm -rf "$report" && mkdir -p "$report"
mapfile -t units < <(go list ./... | grep -v /e2e)
mapfile -t rest < <(go list ./e2e/... | grep -v -E '/e2e(/envoytest|/handshake|/outage)?$')

run() { # name arguments...
	"$sum" --format pkgname-and-test-fails --jsonfile "$report/$1.json" -- -race "${@:2}"
}

# A test of two kinds is counted once.
count() { cat "$report"/*.json | grep -o "\"Action\":\"$1\",\"Package\":\"[^\"]*\",\"Test\":\"[^\"]*\"" | sort -u | wc -l; }
totals() { printf '%d passed, %d failed, %d skipped' "$(count pass)" "$(count fail)" "$(count skip)"; }

echo "compiling with the race detector"
go list -race -export -test ./... > /dev/null
go build -race -o bin/isthmus-race ./cmd/isthmus
go -C e2e/sdk test -race -c -o sdk.test .

while sleep 60 > /dev/null 2>&1; do printf -- '--- after %d s: %s\n' $((SECONDS - started)) "$(totals)"; done &
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT

code=0
run unit -timeout 15m "${units[@]}" || code=1
run crowd -count=1 -timeout 40m -skip '/^alone_' ./e2e & crowd=$!
run alone -count=1 -timeout 40m -run '/^alone_' ./e2e || code=1
run outage -count=1 -timeout 40m ./e2e/outage || code=1
wait "$crowd" || code=1
run rest -count=1 -p 1 -timeout 15m "${rest[@]}" || code=1
run envoytest -count=1 -timeout 15m ./e2e/envoytest || code=1
run handshake -count=1 -timeout 15m ./e2e/handshake || code=1

printf '\nall tests took %d s\n%s\n' $((SECONDS - started)) "$(totals)"
exit $code
