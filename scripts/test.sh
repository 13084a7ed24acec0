#!/usr/bin/env bash
# All tests with the race detector: what starts clusters, which waits much of the time, one package at a time, since no two
# beds may be up at once; beside it the unit tests, which may not take the processors from it; and then what drives Envoys
# alone, which is about moments and has the machine to itself.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
sum=.tools/bin/gotestsum report=.tools/report
# Tests of clients run those that the testbed has, and fail where one is missing.
for dir in "${XDG_CACHE_HOME:-$HOME/.cache}"/isthmus/testbed/{kubernetes,helm}-*/; do PATH="$dir:$PATH"; done
export PATH CI=1
rm -rf "$report" && mkdir -p "$report"
mapfile -t units < <(go list ./... | grep -v /e2e)
mapfile -t clusters < <(go list ./e2e/... | grep -v -e '/e2e/envoytest$' -e '/e2e/handshake$')

run() { # name arguments...
	"$sum" --format pkgname-and-test-fails --jsonfile "$report/$1.json" -- -race "${@:2}"
}
beside() {
	renice -n 10 "$BASHPID" > /dev/null
	run unit -timeout 15m "${units[@]}"
}

echo "compiling with the race detector"
go list -race -export -test ./... > /dev/null
go build -race -o bin/isthmus-race ./cmd/isthmus
go -C e2e/sdk test -race -c -o sdk.test .

set -m # a group of its own, so that what it started ends with this script
beside > "$report/beside.log" 2>&1 &
beside=$!
set +m
trap 'kill -- "-$beside" 2> /dev/null || true' EXIT
code=0
run clusters -count=1 -p 1 -timeout 30m "${clusters[@]}" || code=1
wait "$beside" || code=1
cat "$report/beside.log"
run envoytest -count=1 -timeout 15m ./e2e/envoytest || code=1
run handshake -count=1 -timeout 15m ./e2e/handshake || code=1

count() { cat "$report"/*.json | grep -c "\"Action\":\"$1\".*\"Test\":" || true; }
printf '\nall tests took %d s\n%d passed, %d failed, %d skipped\n' $((SECONDS - started)) "$(count pass)" "$(count fail)" "$(count skip)"
exit $code
