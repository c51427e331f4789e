#!/bin/sh
# After `make cuda`: every kernel's registers times its launch bound must fit a block's 65,536 registers, on every
# architecture. Reads what ptxas -v said (*.ptxas) and the launch bounds in the PTX (keep/*.ptx) below a folder.
set -e
find "$1" -name "*.ptx" > "$1/order" && find "$1" -name "*.ptxas" >> "$1/order"
xargs awk '
  FILENAME ~ /\.ptx$/ && /\.entry/ { name = $0; sub(/.*\.entry /, "", name); sub(/\(.*/, "", name) }
  FILENAME ~ /\.ptx$/ && /\.maxntid/ { gsub(/,/, " "); threads[name] = $2 * ($3 ? $3 : 1) * ($4 ? $4 : 1) }
  /Compiling entry function/ { split($0, part, "\047"); name = part[2]; sm = part[4] }
  /Used [0-9]+ registers/ {
    match($0, /Used [0-9]+/); used = substr($0, RSTART + 5, RLENGTH - 5)
    kernels++
    if (!(name in threads)) { print "no launch bound: " name; bad++ }
    total = used * threads[name]
    if (total > most) { most = total; which = name " on " sm ": " used " registers x " threads[name] " threads" }
    if (total > 65536) { print "too many registers: " name " on " sm ": " used " x " threads[name]; bad++ }
  }
  END {
    if (!kernels) { print "check_registers: found no kernels"; exit 1 }
    print "registers: " kernels " kernels checked, most used by " which
    exit bad > 0
  }' < "$1/order"
