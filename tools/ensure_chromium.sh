#!/bin/sh
# Makes sure that the App tests find a browser, or says what to do.
for name in "${DIFFPATH_CHROMIUM:-}" chromium chromium-browser google-chrome; do
    if [ -n "$name" ] && command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium fonts-dejavu-core >/dev/null
    command -v chromium >/dev/null && exit 0
fi
echo "The App tests need a browser: install Chromium, or set DIFFPATH_CHROMIUM to the path of one." >&2
exit 1
