#!/usr/bin/env bash
# Every link in README.md, CONTRIBUTING.md and docs/ leads to something that is there, and docs/README.md lists every page of docs/.
#   tests/docs.sh [TREE]
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"
status=0
for page in *.md docs/*.md lib/README.md; do
  while read -r link; do
    [[ -e $(dirname "$page")/$link ]] || { echo "$page: the link to $link leads nowhere"; status=1; }
  done < <(grep -o '](\([^)#]*\)' "$page" | sed 's/^](//' | grep -v '^https\?:' | sort -u)
done
for page in docs/*.md; do
  name=$(basename "$page")
  [[ $name == README.md ]] || grep -q "]($name)" docs/README.md || { echo "docs/README.md: $name is not listed"; status=1; }
done
exit $status
