# What emb wants to know about a board before it copies anything there: one `key=value` a line. Changes nothing.
# Read by `sh -s` over ssh, so that it must run on any POSIX shell.
echo "architecture=$(uname -m)"
echo "bits=$(getconf LONG_BIT 2>/dev/null)"
echo "glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d ' ' -f 2)"
echo "clock=$(date +%s)"
echo "home=$HOME"
echo "free_kib=$(df -Pk "$HOME" 2>/dev/null | awk 'NR == 2 { print $4 }')"
echo "model=$(tr -d '\000' 2>/dev/null </proc/device-tree/model)"
seen=
for name in python3 python3.9 python3.10 python3.11 python3.12 python3.13 python3.14; do
  path=$(command -v "$name") || continue
  # python3 is one of the others; each of them takes a second to start on a small board.
  real=$(readlink -f "$path")
  case " $seen " in *" $real "*) continue ;; esac
  seen="$seen $real"
  "$path" -I -c '
import sys
try:
    import ensurepip, venv
    complete = "venv"
except ImportError:
    complete = "no-venv"
bits = 64 if sys.maxsize > 2 ** 32 else 32
print("python=%d.%d.%d %d %s %s" % (*sys.version_info[:3], bits, complete, sys.argv[1]))
' "$path" 2>/dev/null
done
exit 0
