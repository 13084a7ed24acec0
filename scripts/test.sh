#!/usr/bin/env bash
# All tests with the race detector: first those that start no cluster, then those that do, one package at a time.
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS
sum=.tools/bin/gotestsum
# Tests of clients run those that the testbed has, and fail where one is missing.
for dir in "${XDG_CACHE_HOME:-$HOME/.cache}"/isthmus/testbed/kubernetes-*/; do PATH="$dir:$PATH"; done
export PATH CI=1
mkdir -p .tools/report
echo "building isthmus with the race detector"
go build -race -o bin/isthmus-race ./cmd/isthmus
# shellcheck disable=SC2046
"$sum" --format pkgname-and-test-fails --jsonfile .tools/report/unit.json -- -race -timeout 15m $(go list ./... | grep -v '/e2e')
"$sum" --format pkgname-and-test-fails --jsonfile .tools/report/e2e.json -- -race -count=1 -p 1 -timeout 30m ./e2e/...
count() { cat .tools/report/*.json | grep -c "\"Action\":\"$1\".*\"Test\":" || true; }
printf '\nall tests took %d s\n%d passed, %d failed, %d skipped\n' $((SECONDS - started)) "$(count pass)" "$(count fail)" "$(count skip)"
