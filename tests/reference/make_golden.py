"""Reference data by an independent PyTorch implementation: for comparison only, needed neither to build nor to test.

    make_golden.py --check DIR            recompute every *_expected file of DIR from its weights, print worst errors
    make_golden.py --out DIR --image ...  write a folder of another size: same file, tensor and metadata names

The models are in models.py, the values in values.py. All values are computed in float64 from weights stored as float32;
tensors of more than SMALL elements are stored as float32, smaller ones as float64. Needs torch, numpy, safetensors.
"""

import argparse
import math
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import models
from values import FILES, SMALL, Config, computed_file, mask_ratios, rounded

FLOOR = 1e-6  # tensors below it are compared absolutely: some gradients are zero but for round-off


def in_double(tensors):
    return {k: v.double() if v.is_floating_point() else v for k, v in tensors.items()}


def read(path):
    """Tensors, floating point ones as float64, and metadata of a safetensors file."""
    with safe_open(path, "pt") as f:
        meta = f.metadata()
    return in_double(load_file(path)), meta


# ---------------------------------------------------------------- --check


def worst(expected, computed):
    """Largest |difference| over the largest |entry| (at least FLOOR), and its tensor, per class of storage."""
    result = {}
    for name, want in expected.items():
        assert name in computed, f"{name} was not computed"
        got = computed[name].detach()
        assert got.shape == want.shape, (name, got.shape, want.shape)
        kind = {torch.int64: "int", torch.float32: "f32"}.get(want.dtype, "f64")
        error = (got.double() - want.double()).abs().max().item() / max(want.double().abs().max().item(), FLOOR)
        if not error <= result.get(kind, (-1.0, ""))[0]:
            result[kind] = (error, name)
    return result


def inputs_of(folder):
    """What the expected values are computed from: the configuration, all weights, and each file's given tensors."""
    weights, meta = {}, {}
    for name in ("vqgan", "mage", "addp", "vit", "discriminator"):
        weights[name], meta[name] = read(folder / f"{name}_weights.safetensors")
    expected = {name: read(folder / f"{name}_expected.safetensors")[0] for name in FILES}
    x0 = {"x0": expected["vqgan"]["x0"]}
    sampler = read(folder / "sampler_expected.safetensors")[1]
    disc = meta["discriminator"]
    given = {
        "vqgan": x0,
        "mage": {k: expected["mage"][k] for k in ("indices", "mask_dropped", "mask_all")},
        "addp": {k: expected["addp"][k] for k in ("x0", "mask_t", "mask_t_next")},
        "sampler": x0 | {k: v for k, v in expected["sampler"].items() if k.endswith(("uniform", "gumbel"))}
        | {"steps": int(sampler["steps"]), "choice_temperature": float(sampler["choice_temperature"])},
        "vit": x0 | {"labels": expected["vit"]["labels"]},
        "adamw": x0 | {"labels": expected["vit"]["labels"]},
        "gan": x0 | {"ndf": int(disc["ndf"]), "n_layers": int(disc["n_layers"])},
    }
    return Config.from_metadata(meta["vqgan"]), weights, given


def check(folder):
    cfg, weights, given = inputs_of(folder)
    print(f"{folder}: {cfg}")
    limits = {"int": 0.0, "f32": 1e-6, "f64": 1e-9}
    good = True
    for name in (*FILES, "mask_ratios"):
        path = folder / (name + ".safetensors" if name == "mask_ratios" else f"{name}_expected.safetensors")
        values = mask_ratios() if name == "mask_ratios" else computed_file(name, cfg, weights, given)
        errors = worst(load_file(path), values)
        good &= all(error <= limits[kind] for kind, (error, _) in errors.items())
        print(f"{name:12s} " + "   ".join(f"{k} {e:.1e} ({n})" for k, (e, n) in sorted(errors.items())))
    print("all agree" if good else "DIFFERENCES above the limits")
    return good


# ---------------------------------------------------------------- --out


def save(path, tensors, meta):
    """Values: more than SMALL elements as float32, fewer as float64."""
    stored = {k: v.detach().float() if v.dtype == torch.float64 and v.numel() > SMALL else v.detach()
              for k, v in tensors.items()}
    save_file({k: v.contiguous() for k, v in stored.items()}, path, metadata=meta)


def random_weights(model, rng):
    """As float32, all non-trivial: norms around 1, biases, embeddings 0.1, matrices 1/sqrt(fan in), codebook 1."""
    weights = {}
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=rng)
        scale = 0.1
        if name == "quantize.embedding.weight":
            scale = 1.0
        elif p.ndim in (2, 4) and "emb" not in name:
            scale = p[0].numel() ** -0.5
        elif p.ndim == 1 and name.endswith("weight"):
            noise, scale = noise + 10, 0.1
        weights[name] = (scale * noise).float()
    return weights | {k: v for k, v in model.named_buffers() if "position_ids" in k}


def smallest(noise, count):
    return (noise.argsort(-1).argsort(-1) < count).double()


def random_masks(cfg, rng):
    """Nested pairs as in a training step (ratios 17 and 22 of the table) and as in MAGE's own training."""
    L = cfg.tokens
    ratios = mask_ratios()["ratios"]
    count, count_next = (math.ceil(L * ratios[i]) for i in (17, 22))
    noise, other = torch.rand(cfg.batch, L, generator=rng), torch.rand(cfg.batch, L, generator=rng)
    return {"mask_t": smallest(noise, count), "mask_t_next": smallest(noise, count_next),
            "mask_dropped": smallest(other, math.ceil(L / 2)), "mask_all": smallest(other, count)}


def make(folder, cfg, args):
    rng = torch.Generator().manual_seed(args.seed)
    folder.mkdir(parents=True, exist_ok=True)
    made = {"vqgan": models.VQGAN(cfg), "mage": models.TokenPredictor(cfg), "addp": models.Addp(cfg),
            "vit": models.RecognitionViT(cfg, args.classes),
            "discriminator": models.Discriminator(args.ndf, args.disc_layers)}
    meta = {"source": "independent PyTorch models, float64, eval mode (no dropout)"} | cfg.metadata()
    extra = {"addp": {"unused_in_forward": UNUSED_IN_ADDP}}
    disc_meta = {"ndf": str(args.ndf), "n_layers": str(args.disc_layers), "source": meta["source"],
                 "norm": "BatchNorm2d eps 1e-5 momentum 0.1, training mode"}
    weights = {name: random_weights(model, rng) for name, model in made.items()}
    for name, tensors in weights.items():
        save_file(tensors, folder / f"{name}_weights.safetensors",
                  metadata=disc_meta if name == "discriminator" else meta | extra.get(name, {}))
    weights = {name: in_double(tensors) for name, tensors in weights.items()}

    shape = (cfg.batch, cfg.tokens)
    pixels = torch.randn(cfg.batch, 3, cfg.img_size, cfg.img_size, generator=rng)
    x0 = {"x0": rounded((0.5 + 0.35 * pixels).clamp(0, 1))}
    masks = random_masks(cfg, rng)
    labels = torch.randint(args.classes, (cfg.batch,), generator=rng)
    noise = {}
    for s in range(args.steps):
        noise[f"step{s}.uniform"] = rounded(torch.rand(shape, generator=rng))
        noise[f"step{s}.gumbel"] = rounded(-torch.log(torch.empty(shape).exponential_(generator=rng)))
    given = {"vqgan": x0, "vit": x0 | {"labels": labels}, "adamw": x0 | {"labels": labels},
             "addp": x0 | {k: masks[k] for k in ("mask_t", "mask_t_next")},
             "sampler": x0 | noise | {"steps": args.steps, "choice_temperature": 6.0, "centre_uniforms": True},
             "gan": x0 | {"ndf": args.ndf, "n_layers": args.disc_layers}}
    rules = rules_in_metadata(args.steps)
    for name in FILES:
        if name == "mage":
            given["mage"] = {"indices": codes} | {k: masks[k] for k in ("mask_dropped", "mask_all")}
        values = computed_file(name, cfg, weights, given)
        codes = values["indices"] if name == "vqgan" else codes
        save(folder / f"{name}_expected.safetensors", values, meta | rules.get(name, {}))
    save(folder / "mask_ratios.safetensors", mask_ratios(),
         {"source": "mask_ratio_min 0.5, max 1.0, mu 0.55, std 0.25, 100 cosine steps"})
    print(f"{folder}: {cfg}")


UNUSED_IN_ADDP = "decoder_pos_embed,pos_token_embed,pos_mask_embed,decoder_pred.weight,decoder_pred.bias"


def rules_in_metadata(steps):
    return {
        "vqgan": {"train_loss": "mean((rec-t)^2)+mean|rec-t|+codebook_loss with t = x0 mirrored left-right; "
                  "codebook_loss = mean((sg[e]-z)^2)+0.25*mean((e-sg[z])^2); straight-through z_q"},
        "mage": {"loss": "MAGE pre-training loss: label smoothing 0.1 over the whole vocabulary, mean over masked "
                 "tokens; mask_dropped tokens do not enter the encoder"},
        "addp": {"loss": "soft cross entropy against target_prob (zero-padded to vocab_size) with label smoothing 0.1, "
                 "mean over masked tokens"},
        "sampler": {"steps": str(steps), "choice_temperature": "6.0",
                    "schedule": "cosine; temperature annealed by (1-(step+1)/T)",
                    "token_sampling": "inverse CDF: number of cumulative probabilities < uniform",
                    "start": "all tokens masked, image x0 given as the first xt (its tokens are all masked)"},
        "adamw": {"optimizer": "AdamW betas 0.9,0.95 eps 1e-8 weight decay 0.05 (0 for 1-D parameters), layer decay "
                  "0.65, clip norm 0.5, lr 1e-3 min 1e-6 warm-up 2 of 6 epochs evaluated at epoch 0.5,1.5,2.5,3.5,4.5; "
                  "starts from vit_weights"},
        "gan": {"model": "vqgan_weights, image vqgan_expected:x0", "nll": "mean(|x-rec| + LPIPS(2x-1, 2rec-1))",
                "adaptive": "0.8*clamp(norm(dnll/dlast)/(norm(dg/dlast)+1e-4),0,1e4), last = decoder.conv_out.weight",
                "generator": "nll + adaptive*g_loss + codebook_loss",
                "discriminator": "hinge, D(x) first, then D(rec), one backward of the sum; the generator pass "
                "before it also went through D in training mode (running statistics see rec, x, rec)",
                "lpips": "VGG16 features + 1x1 heads; weights by formula in parameter order k: conv weight "
                "sin(12.9898*i+78.233*k)*sqrt(2)*sqrt(2/fan_in), bias 0.1*sin(1.3*i+k), head "
                "0.5+0.5*sin(0.7*i+k), i = flat index", "lpips_parameters": models.LPIPS.parameter_order()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--check", type=Path, metavar="DIR")
    mode.add_argument("--out", type=Path, metavar="DIR")
    parser.add_argument("--image", type=int, default=32, help="side, a multiple of --patch")
    parser.add_argument("--patch", type=int, default=4, help="must be 2^(levels - 1), so that both grids match")
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--decoder-depth", type=int, default=2)
    parser.add_argument("--decoder-heads", type=int, help="default: --heads; in the metadata where it differs")
    parser.add_argument("--vqgan-ch", type=int, default=32, help="a multiple of 32")
    parser.add_argument("--ch-mult", default="1,1,2")
    parser.add_argument("--res-blocks", type=int, default=1)
    parser.add_argument("--codebook", type=int, default=1024)
    parser.add_argument("--codebook-dim", type=int, default=16)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--ndf", type=int, default=8)
    parser.add_argument("--disc-layers", type=int, default=2)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--steps", type=int, default=4, help="sampling steps")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.check:
        return 0 if check(args.check) else 1
    mult = tuple(map(int, args.ch_mult.split(",")))
    if args.patch != 2 ** (len(mult) - 1) or args.image % args.patch:
        parser.error("--patch must be 2^(levels - 1) of --ch-mult, and --image a multiple of it")
    K = args.codebook
    cfg = Config(args.image, args.patch, args.dim, args.depth, args.heads, args.decoder_depth,
                 args.decoder_heads or args.heads, args.vqgan_ch, mult, args.res_blocks, K, args.codebook_dim,
                 vocab_size=K + 1001, fake_class_label=K + 76, mask_token_label=K + 1000, batch=args.batch)
    if cfg.tokens + 1 > models.BertEmbeddings.POSITIONS:
        parser.error("at most 256 tokens")
    make(args.out, cfg, args)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
