#!/bin/sh
# The browser of the browser tests: Debian's Chromium, unless one is there (or HAPLO_CHROMIUM names one).
set -e
if [ -n "$HAPLO_CHROMIUM" ] || command -v chromium >/dev/null 2>&1; then exit 0; fi
if ! command -v apt-get >/dev/null 2>&1; then
  echo "The browser tests need Chromium: install it and put its path into HAPLO_CHROMIUM." >&2
  exit 1
fi
root=""
if [ "$(id -u)" != 0 ]; then root="sudo"; fi
$root apt-get update -qq
DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
