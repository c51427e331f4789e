"""The values of the reference data: for each file one function, weights and given tensors -> expected tensors.

For comparison only: nothing in the project needs this file to build or to run its tests. Everything in float64 and
without dropout; gradients are those of the file's loss, named "grad." + parameter.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch.nn import functional as F

import models

SMALL = 256  # tensors of more elements are stored as float32
FILES = ("vqgan", "mage", "addp", "sampler", "vit", "adamw", "gan")
torch.set_default_dtype(torch.float64)


@dataclass
class Config:
    img_size: int = 32
    patch_size: int = 4
    embed_dim: int = 32
    depth: int = 2
    num_heads: int = 4
    decoder_depth: int = 2
    decoder_num_heads: int = 4
    vqgan_ch: int = 32
    vqgan_ch_mult: tuple = (1, 1, 2)
    vqgan_num_res_blocks: int = 1
    codebook_size: int = 1024
    codebook_dim: int = 16
    vocab_size: int = 2025
    fake_class_label: int = 1100
    mask_token_label: int = 2024
    batch: int = 2

    @property
    def tokens(self):
        return (self.img_size // self.patch_size) ** 2

    @staticmethod
    def from_metadata(meta):
        values = {f.name: meta[f.name] for f in fields(Config) if f.name in meta}
        values.setdefault("decoder_num_heads", values["num_heads"])
        mult = tuple(map(int, values.pop("vqgan_ch_mult").split(",")))
        return Config(vqgan_ch_mult=mult, **{k: int(v) for k, v in values.items()})

    def metadata(self):
        values = {f.name: getattr(self, f.name) for f in fields(Config)}
        values["vqgan_ch_mult"] = ",".join(map(str, self.vqgan_ch_mult))
        if self.decoder_num_heads == self.num_heads:
            del values["decoder_num_heads"]
        rules = {"layer_norm_eps": "1e-6", "group_norm": "32 groups, eps 1e-6", "label_smoothing": "0.1"}
        return {k: str(v) for k, v in values.items()} | rules


def loaded(model, weights):
    missing, unexpected = model.load_state_dict(weights, strict=False)
    missing = [k for k in missing if "running_" not in k and "num_batches" not in k]
    assert not missing and not unexpected, (missing, unexpected)
    return model


def rounded(x):
    """As it will be read back from a file: what is given to the models must be what the file holds."""
    return x.float().double() if x.numel() > SMALL else x


def one(x):
    return x.detach().reshape(1)


def gradients(model, prefix="grad."):
    return {prefix + name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def vqgan_expected(cfg, weights, given):
    model = loaded(models.VQGAN(cfg), weights["vqgan"])
    x0 = given["x0"].clone().requires_grad_()
    h = model.encoder(x0)
    codes, z_q, codebook_loss = model.quantized(h)
    decoded = model.decoder(z_q)
    target = given["x0"].flip(3)
    loss = ((decoded - target) ** 2).mean() + (decoded - target).abs().mean() + codebook_loss
    loss.backward()
    return {"x0": given["x0"], "h": h, "indices": codes, "z_q": z_q, "decoded": decoded,
            "codebook_loss": one(codebook_loss), "train_loss": one(loss), "grad.x0": x0.grad} | gradients(model)


def smoothed_cross_entropy(logits, target_probs, mask, smoothing=0.1):
    """logits, target_probs [B, L, V]; mean over the places where mask is 1."""
    q = (1 - smoothing) * target_probs + smoothing / logits.shape[-1]
    return (-(q * logits.log_softmax(-1)).sum(-1) * mask).sum() / mask.sum()


def mage_expected(cfg, weights, given):
    model = loaded(models.TokenPredictor(cfg), weights["mage"])
    latent, logits = model(given["indices"], given["mask_all"], given["mask_dropped"])
    target = F.one_hot(given["indices"], cfg.vocab_size).double()
    loss = smoothed_cross_entropy(logits[:, 1:], target, given["mask_all"])
    loss.backward()
    return given | {"latent": latent, "logits": logits, "loss": one(loss)} | gradients(model)


def addp_expected(cfg, weights, given):
    vqgan = loaded(models.VQGAN(cfg), weights["vqgan"])
    predictor = loaded(models.TokenPredictor(cfg), weights["mage"])
    model = loaded(models.Addp(cfg), weights["addp"])
    mask, mask_next = given["mask_t"], given["mask_t_next"]
    with torch.no_grad():
        codes = vqgan.quantized(vqgan.encoder(given["x0"]))[0]
        probs_next = predictor.probabilities(codes, mask_next)
        z_t_pred = vqgan.grid(probs_next @ vqgan.codebook)
        z_t = vqgan.mixture(codes, probs_next, mask)
        x_t = vqgan.decoder(z_t)
        target = predictor.probabilities(codes, mask)
    embedded, encoded = model.encode(x_t)
    logits = model.decode(encoded, codes, mask)
    padded = F.pad(target, (0, cfg.vocab_size - cfg.codebook_size))
    loss = smoothed_cross_entropy(logits[:, 1 : 1 + cfg.tokens], padded, mask)
    loss.backward()
    return given | {"indices": codes, "z_t_pred": z_t_pred, "z_t": z_t, "target_prob": vqgan.grid(target), "x_t": x_t,
                    "encoder_tokens": embedded, "e_t": encoded, "logits": logits,
                    "loss": one(loss)} | gradients(model)


@torch.no_grad()
def sampler_expected(cfg, weights, given):
    vqgan = loaded(models.VQGAN(cfg), weights["vqgan"])
    model = loaded(models.Addp(cfg), weights["addp"])
    steps, temperature, L = given["steps"], given["choice_temperature"], cfg.tokens
    x = given["x0"]
    codes = torch.zeros(len(x), L, dtype=torch.long)
    mask = torch.ones(len(x), L)
    out = {}
    for s in range(steps):
        name, noise = f"step{s}.", {k: given[f"step{s}.{k}"] for k in ("uniform", "gumbel")}
        probs = model.decode(model.encode(x)[1], codes, mask)[:, 1 : 1 + L, : cfg.codebook_size].softmax(-1)
        cumulative = probs.cumsum(-1)
        sampled = (cumulative < noise["uniform"][..., None]).sum(-1).clamp(max=cfg.codebook_size - 1)
        if given.get("centre_uniforms"):  # while making data: mid-interval, so that float32 draws the same code
            noise["uniform"] = rounded((cumulative - probs / 2).gather(-1, sampled[..., None])[..., 0])
        tokens = torch.where(mask == 1, sampled, codes)
        progress = (s + 1) / steps
        length = max(1, math.ceil(L * math.cos(math.pi / 2 * progress)))
        confidence = probs.gather(-1, tokens[..., None])[..., 0].log() + temperature * (1 - progress) * noise["gumbel"]
        confidence = torch.where(mask == 1, confidence, torch.inf)
        mask_out = (confidence.argsort(-1).argsort(-1) < length).double()
        x = vqgan.decoder(vqgan.mixture(tokens, probs, mask_out))
        out |= {name + k: v for k, v in noise.items()}
        out |= {name + "mask_in": mask.float(), name + "tokens": tokens, name + "mask_out": mask_out.float()}
        if s in (0, steps - 1):
            out[name + "x"] = x
        codes, mask = tokens, mask_out
    return out


def vit_expected(cfg, weights, given):
    model = loaded(models.RecognitionViT(cfg, weights["vit"]["head.bias"].numel()), weights["vit"])
    features, logits = model(models.normalised(given["x0"]))
    loss = F.cross_entropy(logits, given["labels"], label_smoothing=0.1)
    loss.backward()
    return {"labels": given["labels"], "features": features, "logits": logits, "loss": one(loss)} | gradients(model)


def warmup_cosine(epoch, peak=1e-3, least=1e-6, warmup=2, epochs=6):
    if epoch < warmup:
        return peak * epoch / warmup
    return least + (peak - least) * 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))


def adamw_expected(cfg, weights, given):
    model = loaded(models.RecognitionViT(cfg, weights["vit"]["head.bias"].numel()), weights["vit"])
    image = models.normalised(given["x0"])
    groups = []
    for name, p in model.named_parameters():
        first = name.startswith(("cls_token", "pos_embed", "patch_embed"))
        layer = 0 if first else int(name.split(".")[1]) + 1 if name.startswith("blocks.") else cfg.depth + 1
        scale = 0.65 ** (cfg.depth + 1 - layer)
        groups.append({"params": [p], "weight_decay": 0.05 if p.ndim > 1 else 0.0, "lr_scale": scale})
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    losses, norms, rates = [], [], []
    for step in range(5):
        rate = warmup_cosine(step + 0.5)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        loss = F.cross_entropy(model(image)[1], given["labels"], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5).item())
        optimizer.step()
        losses.append(loss.item())
        rates.append(rate)
    out = {"losses": torch.tensor(losses), "grad_norms": torch.tensor(norms), "learning_rates": torch.tensor(rates)}
    return out | {"after." + name: p for name, p in model.named_parameters()}


def gan_expected(cfg, weights, given):
    vqgan = loaded(models.VQGAN(cfg), weights["vqgan"])
    D = loaded(models.Discriminator(given["ndf"], given["n_layers"]), weights["discriminator"])
    x = given["x0"]
    _, z_q, codebook_loss = vqgan.quantized(vqgan.encoder(x))
    rec = vqgan.decoder(z_q)
    perceptual = models.LPIPS()(2 * x - 1, 2 * rec - 1)
    nll = ((x - rec).abs() + perceptual[:, None, None, None]).mean()
    logits_fake = D(rec)
    g_loss = -logits_fake.mean()
    last = vqgan.decoder.conv_out.weight
    nll_norm, g_norm = (torch.autograd.grad(v, last, retain_graph=True)[0].norm() for v in (nll, g_loss))
    adaptive = 0.8 * (nll_norm / (g_norm + 1e-4)).clamp(0, 1e4).detach()
    loss = nll + adaptive * g_loss + codebook_loss
    loss.backward()
    kept = {k: v for k, v in gradients(vqgan).items() if v.ndim == 1 or "conv_in" in k or "conv_out" in k}
    D.zero_grad()
    logits_real, logits_rec = D(x), D(rec.detach())
    d_loss = 0.5 * (F.relu(1 - logits_real).mean() + F.relu(1 + logits_rec).mean())
    d_loss.backward()
    statistics = {"after.discriminator." + k: v for k, v in D.named_buffers() if "running_" in k}
    return {"reconstruction": rec, "codebook_loss": one(codebook_loss), "perceptual_loss": perceptual,
            "nll_loss": one(nll), "g_loss": one(g_loss), "adaptive_weight": one(adaptive),
            "generator_loss": one(loss), "logits_fake": logits_fake, "logits_real": logits_real,
            "discriminator_loss": one(d_loss)} | kept | gradients(D, "grad.discriminator.") | statistics


def mask_ratios():
    ratios = torch.tensor(sorted(r for r in (math.cos(math.pi / 2 * i / 100) for i in range(101)) if 0.5 <= r < 1))
    density = torch.exp(-0.5 * ((ratios - 0.55) / 0.25) ** 2)
    return {"ratios": ratios, "probs": density / density.sum()}


def computed_file(name, cfg, weights, given):
    return globals()[name + "_expected"](cfg, weights, given[name])
