#!/bin/sh
# make gpu-check: everything that wants a real GPU, after `make cuda`, into one text file to send back.
# Usage: cuda/gpu_check.sh BUILD_FOLDER REPORT [DEVICE]
# DEVICE emulated tries the script itself on an ordinary build, without GPU: no suite, no times that mean anything.
build=$1
report=$2
device=${3:-cuda}
failed=0
section() { printf '\n==== %s\n' "$1" | tee -a "$report"; }
# run NAME COMMAND...: output and exit code go into the report; the first failure decides the outcome.
run() {
  section "$1"
  shift
  "$@" > "$report.part" 2>&1
  code=$?
  tail -n 200 "$report.part" >> "$report"
  rm -f "$report.part"
  echo "exit code $code" | tee -a "$report"
  [ $code = 0 ] || failed=1
}

date -u > "$report"
git log -1 --format='commit %H' >> "$report" 2>/dev/null
if [ "$device" = emulated ]; then
  section "NOT A GPU: the emulator ran this; no time in here means anything"
else
  run "machine" nvidia-smi
  [ $failed = 0 ] || { echo "No NVIDIA GPU can be used here; see $report."; exit 1; }
fi
run "build, and kernels against the roofline" "$build/addp" doctor --roofline
[ "$device" = emulated ] || run "tests" "$build/addp_tests"
run "parity on the device" "$build/addp" parity tests/golden --device "$device"
if [ "$device" = emulated ]; then
  section "compute-sanitizer: for GPUs only"
elif command -v compute-sanitizer > /dev/null; then
  for tool in memcheck racecheck synccheck initcheck; do
    run "compute-sanitizer $tool over the op tests" \
      compute-sanitizer --tool $tool --error-exitcode 9 "$build/addp_tests" "--source-file=*test_ops*,*test_cuda_kernels*"
  done
else
  section "compute-sanitizer: not installed"
fi
presets="tiny demo"
steps=20
[ "$device" = cuda ] || { presets=tiny; steps=2; }
for preset in $presets; do
  for on in cpu "$device"; do
    folder=$(mktemp -d)
    run "$steps steps of train vqgan, preset $preset, on $on" \
      "$build/addp" train vqgan --preset $preset --data shapes --steps $steps --device "$on" --run "$folder/vqgan"
    rm -rf "$folder"
  done
done
echo
echo "Written: $report"
exit $failed
