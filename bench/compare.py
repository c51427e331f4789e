#!/usr/bin/env python3
"""The benchmark: our library beside PyTorch on the same work, in one run.

Both sides are processes that prepare a case and then run it on request, turn and turn about, so that noise of the
machine meets both, each after a pause in which the other's threads go to sleep. Before a case is timed, both sides'
results are compared. For each case the peer is measured in every variant that may be its best (channels last or not,
torch.compile or not) and the fastest counts.
    make bench                         all
    make bench BENCH="--only step"     cases whose name holds "step"; also --threads 1,2 --rounds 7 --no-compile --batch 8
    make bench BENCH="--only step --memory"   peak memory of whole steps only, one process at a time
    make bench BENCH="--only linear --versus ADDP_AMX=never"   beside the same program with that in its environment
Columns: our time, the peer's, their ratio (above 1: we are faster); GFLOP/s as a share of the peak that fused
multiply-adds reached in the same run, or, for ops that only stream, GB/s as a share of the copy rate; peak memory of
whole steps. Work is counted from shapes: of products, and each input read and each output written once.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
PAUSE = 0.03  # seconds before a sample: a team of threads that has worked spins for some 7 ms before it sleeps
STEP_BATCH = {"demo": {"vqgan": 32, "vqgan_gan": 32, "predictor": 32, "addp": 32, "sample": 16, "probe": 1},
              "base": {"addp": 2, "sample": 1}}


class Side:
    """One process; ask() raises on an error answer."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        kind, _, rest = self.process.stdout.readline().strip().partition(" ")
        if kind != "ok":
            raise RuntimeError(f"{line}: {kind} {rest}")
        return [float(x) for x in rest.split()]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def op_cases(preset):
    """(family, dims) at the shapes that a training step of the preset meets."""
    B, L, D, heads, K, sides = {
        "demo": (32, 65, 128, 4, 64, ((32, 32), (32, 16), (64, 8))),
        "small": (16, 257, 384, 6, 512, ((64, 64), (128, 32), (256, 16))),
        "base": (4, 257, 768, 12, 1024, ((128, 128), (256, 64), (512, 16))),
    }[preset]
    images = {"demo": 32, "small": 8, "base": 1}[preset]
    N, first, last = B * L, sides[0], sides[-1]
    V = K + 2 if preset != "base" else K + 1001
    yield "linear", (N, D, 3 * D)
    yield "linear", (N, D, 4 * D)
    yield "linear", (N, 4 * D, D)
    yield "linear", (N, D, V)
    yield "attention", (B, L, heads, D // heads)
    for channels, side in sides:
        yield "conv", (images, channels, channels, side, 3, 1)
    yield "conv", (images, last[0], last[0], last[1], 1, 1)
    yield "conv", (images, 3, first[0], first[1], 3, 1)
    yield "conv", (images, first[0], 3, first[1], 3, 1)
    yield "conv", (images, first[0], 2 * first[0], first[1], 4, 2)
    yield "layer_norm", (N, D)
    yield "group_norm_silu", (images, *first)
    yield "batch_norm", (images, *first)
    yield "bias_gelu", (N, 4 * D)
    yield "softmax", (N, K)
    yield "soft_cross_entropy", (N, V, K)
    yield "add", (N, D)
    yield "gather_rows", (N, V, D)
    yield "upsample", (images, last[0], last[1])
    yield "avg_pool", (images, *first)
    yield "nearest_codes", (images * last[1] ** 2, K, {"demo": 8, "small": 64, "base": 256}[preset])
    yield "adamw", (D, 12)


TRAIN_ONLY, FORWARD_ONLY = ("soft_cross_entropy", "adamw"), ("nearest_codes",)
IMAGE_OPS = ("conv", "group_norm_silu", "upsample", "avg_pool", "batch_norm")


def all_cases(args):
    for preset in ("demo", "small", "base"):
        for family, dims in op_cases(preset):
            for mode in ("forward", "train"):
                if (mode == "forward" and family in TRAIN_ONLY) or (mode == "train" and family in FORWARD_ONLY):
                    continue
                text = " ".join(map(str, dims))
                layouts = ("contiguous", "channels_last") if family in IMAGE_OPS else ("contiguous",)
                yield {"name": f"op {family} {mode} {preset} {'x'.join(map(str, dims))}", "kind": "op",
                       "ours": f"op {family} {mode} {text}",
                       "peers": {layout: f"op {family} {mode} {layout} {text}" for layout in layouts}}
    compiled = ("eager", "compiled") if args.compile else ("eager",)
    for preset, steps in STEP_BATCH.items():
        for step, batch in steps.items():
            batch = args.batch or batch
            folder = f"{args.folder}/{step}_{preset}"
            images = ("contiguous", "channels_last") if step != "probe" else ("contiguous",)
            ways = compiled if preset == "demo" and step != "probe" else ("eager",)
            yield {"name": f"step {step} {preset} batch {batch}", "kind": "step", "batch": batch,
                   "ours": f"step {step} {preset} {batch} {folder}",
                   "peers": {f"{layout},{way}": f"step {step} {folder} {layout} {way}"
                             for layout in images for way in ways}}


def runs_for(side, enough):
    """How many runs make a sample of `enough` seconds. The first ones are slower, so short cases are timed again."""
    once = side.ask("run 1")[0]
    if once < 10 * enough:
        once = side.ask("run 1")[0]
    return max(1, min(1000, int(enough / max(once, 1e-7))))


def measure(case, ours, peers, args):
    """-> seconds of ours, {variant: seconds}, flops, bytes."""
    value, flops, moved = ours.ask(case["ours"])
    for variant, side in peers.items():
        other = side.ask(case["peers"][variant])[0]
        tolerance = 1e-3 if case["kind"] == "op" else 1e-2
        if abs(value - other) > tolerance * max(abs(value), abs(other)):
            raise RuntimeError(f"{case['name']}: results differ, ours {value}, PyTorch's {other} ({variant})")
    sides = {"ours": ours, **peers}
    counts = {}
    for name, side in sides.items():
        counts[name] = runs_for(side, args.seconds)
    times = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, side in sides.items():
            time.sleep(PAUSE)
            times[name].append(side.ask(f"run {counts[name]}")[0])
    medians = {name: statistics.median(t) for name, t in times.items()}
    return medians.pop("ours"), medians, flops, moved


def peak_memory(command, request, threads):
    side = Side(command)
    side.ask(f"threads {threads}")
    side.ask(request)
    side.ask("run 1")
    bytes_ = side.ask("memory")[0]
    side.close()
    return bytes_


def report_memory(case, ours_command, peer_command, threads):
    """One process at a time, so that large cases fit; of the peer's variants the one that needs least."""
    mine = peak_memory(ours_command, case["ours"], threads)  # first, for it writes the weights that the peer reads
    others = {v: peak_memory(peer_command, request, threads) for v, request in case["peers"].items()}
    best = min(others, key=others.get)
    print(f"{case['name']:58s} {mine / 2**20:.0f} / {others[best] / 2**20:.0f} MiB = {mine / others[best]:.2f}  {best}",
          flush=True)


def time_text(seconds):
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms" if seconds < 1 else f"{seconds:.2f} s"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/addp_bench")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--threads", default="2", help="e.g. 1,2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.05, help="of one sample, at least")
    parser.add_argument("--memory", action="store_true", help="peak memory of whole steps only, one process at a time")
    parser.add_argument("--batch", type=int, default=0, help="images in a whole step, instead of each step's own number")
    parser.add_argument("--versus", default="", help="instead of PyTorch the same program with this environment variable, "
                        "e.g. ADDP_AMX=never")
    parser.add_argument("--python", default=sys.executable, help="the peer's, e.g. /usr/bin/python3 for that of Debian")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--json", default="", help="also write all figures to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        args.folder = folder
        run(args)


def run(args):
    ours_command, peer_command = [args.program], [args.python, str(HERE / "peer.py")]
    if args.versus:
        peer_command = ["env", args.versus, args.program]
    version = subprocess.run([args.python, "-c", "import torch, numpy; print(torch.__version__)"],
                             capture_output=True, text=True)
    if version.returncode != 0:
        sys.exit(f"bench: Python lacks a package ({version.stderr.strip().splitlines()[-1]}); "
                 "please run:  pip install torch numpy")
    if not pathlib.Path(args.program).exists():
        sys.exit(f"bench: {args.program} is not built; please run:  make bench")
    print("PyTorch", version.stdout.strip())
    rows, failed = [], 0
    for threads in map(int, args.threads.split(",")):
        ours = Side(ours_command)
        ours.ask(f"threads {threads}")
        peak, copy = ours.ask("peak")
        print(f"\n{threads} threads; fused multiply-adds {peak / 1e9:.0f} GFLOP/s, copying {copy / 1e9:.1f} GB/s", flush=True)
        print(f"{'case':58s} {'ours':>10s} {'versus' if args.versus else 'PyTorch':>10s} {'ratio':>6s} {'rate':>14s} {'share':>6s}  best variant of the peer")
        peers = {}
        for case in all_cases(args):
            if args.only not in case["name"]:
                continue
            if args.versus:
                case["peers"] = {args.versus: case["ours"]}
            if args.memory:
                if case["kind"] == "step":
                    report_memory(case, ours_command, peer_command, threads)
                continue
            for variant in case["peers"]:
                if variant not in peers:
                    peers[variant] = Side(peer_command)
                    peers[variant].ask(f"threads {threads}")
            began = time.time()
            try:
                mine, others, flops, moved = measure(case, ours, {v: peers[v] for v in case["peers"]}, args)
            except RuntimeError as e:
                print(f"{case['name']}: FAILED {e}", flush=True)
                failed += 1
                continue
            best = min(others, key=others.get)
            row = {"case": case["name"], "threads": threads, "ours": mine, "peer": others[best], "variant": best,
                   "ratio": others[best] / mine, "flops": flops, "bytes": moved, "peak": peak, "copy": copy, "all": others}
            rate = (f"{flops / mine / 1e9:6.0f} GFLOP/s {flops / mine / peak:6.0%}" if flops else
                    f"{moved / mine / 1e9:6.1f} GB/s    {moved / mine / copy:6.0%}" if moved else " " * 21)
            print(f"{case['name']:58s} {time_text(mine):>10s} {time_text(others[best]):>10s} {row['ratio']:6.2f}  {rate}  {best}",
                  end="", flush=True)
            if case["kind"] == "step":
                row["memory"] = peak_memory(ours_command, case["ours"], threads)
                row["peer_memory"] = peak_memory(peer_command, case["peers"][best], threads)
                print(f"  memory {row['memory'] / 2**20:.0f} / {row['peer_memory'] / 2**20:.0f} MiB = "
                      f"{row['memory'] / row['peer_memory']:.2f}  {case['batch'] / mine:.1f} images/s", end="")
            print(flush=True)
            rows.append(row)
        for side in [ours, *peers.values()]:
            side.close()
    slower = [r for r in rows if r["ratio"] < 1]
    print(f"\n{len(rows)} cases, {len(slower)} slower than the peer, {failed} failed")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=1))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
