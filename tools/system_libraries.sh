#!/usr/bin/env bash
# Looks for the system libraries that a Qt window with OpenGL needs and, with the argument "xvfb",
# for a virtual screen.  Installs what is missing where it may (root, apt), else says what to type.
# Exit status 1 only if the virtual screen was asked for and is missing.
set -euo pipefail

[ "$(uname -s)" = Linux ] || exit 0

# library or command : Debian's package
libraries="libEGL.so.1:libegl1 libGL.so.1:libgl1 libOpenGL.so.0:libopengl0 libglib-2.0.so.0:libglib2.0-0
libdbus-1.so.3:libdbus-1-3 libfontconfig.so.1:libfontconfig1 libxkbcommon-x11.so.0:libxkbcommon-x11-0
libxcb-cursor.so.0:libxcb-cursor0 libxcb-icccm.so.4:libxcb-icccm4 libxcb-image.so.0:libxcb-image0
libxcb-keysyms.so.1:libxcb-keysyms1 libxcb-randr.so.0:libxcb-randr0
libxcb-render-util.so.0:libxcb-render-util0 libxcb-shape.so.0:libxcb-shape0
libxcb-xinerama.so.0:libxcb-xinerama0"

known=$(PATH="$PATH:/sbin:/usr/sbin" ldconfig -p)
missing=""
for pair in $libraries; do
    case "$known" in *"${pair%%:*} "*) ;; *) missing="$missing ${pair##*:}" ;; esac
done
if [ "${1:-}" = xvfb ]; then
    command -v xvfb-run >/dev/null || missing="$missing xvfb xauth"
    # Mesa's software renderer, without which a virtual screen has no OpenGL.
    case "$known" in *libGLX_mesa.so.0*) ;; *) missing="$missing libgl1-mesa-dri libglx-mesa0" ;; esac
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing system libraries:$missing"
    # shellcheck disable=SC2086  # one word per package is meant
    if apt-get update -q >/dev/null &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >/dev/null; then
        exit 0
    fi
    echo "apt-get could not install:$missing" >&2
else
    echo "missing system libraries; on Debian or Ubuntu: sudo apt-get install$missing" >&2
fi
if [ "${1:-}" = xvfb ] && ! command -v xvfb-run >/dev/null; then
    exit 1
fi
echo "going on without them: commands work, a napari window may not open" >&2
