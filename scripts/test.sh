#!/usr/bin/env bash
# All tests with the race detector, one kind after the other, since many are about moments: the unit tests; what starts clusters,
# one package at a time, for no two beds may be up at once; and what drives Envoys alone.
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

echo "compiling with the race detector"
go list -race -export -test ./... > /dev/null
go build -race -o bin/isthmus-race ./cmd/isthmus
go -C e2e/sdk test -race -c -o sdk.test .

code=0
run unit -timeout 15m "${units[@]}" || code=1
run clusters -count=1 -p 1 -timeout 40m "${clusters[@]}" || code=1
run envoytest -count=1 -timeout 15m ./e2e/envoytest || code=1
run handshake -count=1 -timeout 15m ./e2e/handshake || code=1

count() { cat "$report"/*.json | grep -c "\"Action\":\"$1\".*\"Test\":" || true; }
printf '\nall tests took %d s\n%d passed, %d failed, %d skipped\n' $((SECONDS - started)) "$(count pass)" "$(count fail)" "$(count skip)"
exit $code
