"""The peer's side of the benchmark: the same work in PyTorch at its best on a CPU. Models and parameter names are those
of tests/reference/models.py; what differs is speed only: float32, scaled_dot_product_attention, fused AdamW, channels
last where it is faster, and torch.compile where it is asked for. Debian's PyTorch 1.13 runs it without what it lacks.
Protocol: that of main.cc.
"""

import json
import math
import pathlib
import sys
import time

import numpy
import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "reference"))
import models  # noqa: E402

IS_NEW = hasattr(F, "scaled_dot_product_attention")
if IS_NEW:
    import torch._functorch.config

    torch._functorch.config.donated_buffer = False  # the discriminator's weight takes two gradients of one compiled graph

torch.set_default_dtype(torch.float32)


def values(shape, k):
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(0.37 * i + k).float().reshape(shape)


def scaled_dot_product_attention(q, k, v):
    if IS_NEW:
        return F.scaled_dot_product_attention(q, k, v)
    return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) @ v


def attention(self, x):
    B, L, D = x.shape
    q, k, v = self.qkv(x).reshape(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
    return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, L, D))


models.Attention.forward = attention

# ---------------------------------------------------------------- ops: dims -> shapes of the inputs, function


def packed_attention(d):
    def f(x):
        q, k, v = x.reshape(d[0], d[1], 3, d[2], d[3]).permute(2, 0, 3, 1, 4)
        return scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(d[0], d[1], -1)

    return [(d[0], d[1], 3 * d[2] * d[3])], f


OPS = {
    "linear": lambda d: ([(d[0], d[1]), (d[2], d[1]), (d[2],)], F.linear),
    "attention": packed_attention,
    "conv": lambda d: ([(d[0], d[1], d[3], d[3]), (d[2], d[1], d[4], d[4])],
                       lambda x, w: F.conv2d(x, w, stride=d[5], padding=0 if d[4] == 1 else 1)),
    "layer_norm": lambda d: ([(d[0], d[1]), (d[1],), (d[1],)], lambda x, w, b: F.layer_norm(x, d[1:2], w, b, 1e-6)),
    "group_norm_silu": lambda d: ([(d[0], d[1], d[2], d[2]), (d[1],), (d[1],)],
                                  lambda x, w, b: F.silu(F.group_norm(x, 32, w, b, 1e-6))),
    "bias_gelu": lambda d: ([(d[0], d[1]), (d[1],)], lambda x, b: F.gelu(x + b)),
    "softmax": lambda d: ([(d[0], d[1])], lambda x: x.softmax(-1)),
    "upsample": lambda d: ([(d[0], d[1], d[2], d[2])], lambda x: F.interpolate(x, scale_factor=2.0)),
    "avg_pool": lambda d: ([(d[0], d[1], d[2], d[2])], lambda x: F.avg_pool2d(x, 2)),
    "batch_norm": lambda d: ([(d[0], d[1], d[2], d[2]), (d[1],), (d[1],)],
                             lambda x, w, b: F.batch_norm(x, torch.zeros(d[1]), torch.ones(d[1]), w, b, True)),
    "add": lambda d: ([(d[0], d[1]), (d[0], d[1])], torch.add),
}
IMAGE_OPS = ("conv", "group_norm_silu", "upsample", "avg_pool", "batch_norm")


class Op:
    """One of OPS; run() returns what the checksum is taken of."""

    def __init__(self, family, train, dims, channels_last):
        shapes, self.f = OPS[family](dims)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        make = lambda t: t.contiguous(memory_format=layout) if t.ndim == 4 else t
        self.inputs = [make(values(s, k)).requires_grad_(train) for k, s in enumerate(shapes)]
        self.train = train
        if train:
            y = self.f(*self.inputs)
            self.dy = values(tuple(y.shape), 9)
            self.dy = make(self.dy)

    def run(self):
        if self.train:
            return torch.autograd.grad(self.f(*self.inputs), self.inputs, self.dy)
        with torch.no_grad():
            return [self.f(*self.inputs)]


class SoftCrossEntropy:
    def __init__(self, d):
        self.logits = values((d[0], d[1]), 0).requires_grad_()
        target = F.pad(values((d[0], d[2]), 1).softmax(-1), (0, d[1] - d[2]))
        self.target = target * 0.9 + 0.1 / d[1]

    def run(self):
        return torch.autograd.grad(F.cross_entropy(self.logits, self.target), self.logits)


class NearestCodes:
    def __init__(self, d):
        self.z, self.codebook = values((d[0], d[2]), 0), values((d[1], d[2]), 1)

    def run(self):
        z, c = self.z, self.codebook
        distance = torch.addmm((c**2).sum(-1) + (z**2).sum(-1, keepdim=True), z, c.T, alpha=-2)
        return [c[distance.argmin(-1)]]


class GatherRows:
    def __init__(self, train, d):
        self.table = values((d[1], d[2]), 0).requires_grad_(train)
        self.index, self.train = torch.arange(d[0]) * 7 % d[1], train
        self.dy = values((d[0], d[2]), 9)

    def run(self):
        y = F.embedding(self.index, self.table)
        return torch.autograd.grad(y, self.table, self.dy) if self.train else [y]


class AdamWStep:
    """With the norm of the gradients, which every training step needs, to clip them or to see that they are finite."""

    def __init__(self, d):
        self.weights = [values((d[0], d[0]), 0).requires_grad_() for _ in range(d[1])]
        self.gradients = [values((d[0], d[0]), 1) for _ in range(d[1])]
        self.optimizer = adamw(self.weights)

    def run(self):
        for w, g in zip(self.weights, self.gradients):
            w.grad = g
        torch.nn.utils.get_total_norm(self.gradients)
        self.optimizer.step()
        return [self.weights[0]]


def make_op(family, train, dims, channels_last):
    if family == "soft_cross_entropy":
        return SoftCrossEntropy(dims)
    if family == "nearest_codes":
        return NearestCodes(dims)
    if family == "gather_rows":
        return GatherRows(train, dims)
    if family == "adamw":
        return AdamWStep(dims)
    return Op(family, train, dims, channels_last)


# ---------------------------------------------------------------- whole steps


def adamw(parameters, rate=1e-3, fused=True):
    decay = [p for p in parameters if p.ndim > 1]
    rest = [p for p in parameters if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    options = {"fused": fused} if IS_NEW else {}
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=rate, betas=(0.9, 0.95), **options)


class Sizes:
    """config.txt under the names that tests/reference/models.py uses."""

    def __init__(self, path):
        c = dict(line.split("#")[0].split("=", 1) for line in path.read_text().splitlines() if "=" in line)
        c = {k.strip(): v.strip() for k, v in c.items()}
        n = lambda name: int(c[name])
        self.img_size, self.patch_size = n("image_size"), n("patch_size")
        self.embed_dim, self.depth, self.num_heads = n("model.width"), n("model.depth"), n("model.heads")
        self.decoder_depth, self.decoder_num_heads = n("model.decoder_depth"), n("model.decoder_heads")
        self.vqgan_ch, self.vqgan_num_res_blocks = n("vqgan.ch"), n("vqgan.num_res_blocks")
        self.vqgan_ch_mult = tuple(map(int, c["vqgan.ch_mult"].split(",")))
        self.codebook_size, self.codebook_dim = n("vqgan.codebook_size"), n("vqgan.codebook_dim")
        self.vocab_size, self.fake_class_label, self.mask_token_label = n("vocabulary"), n("class_id"), n("mask_id")
        self.tokens = (self.img_size // self.patch_size) ** 2
        self.ndf, self.discriminator_layers = n("tokenizer.ndf"), n("tokenizer.discriminator_layers")
        self.sampler_steps, self.temperature = n("sampler.steps"), float(c["sampler.temperature"])
        models.BertEmbeddings.POSITIONS = n("position_rows")


def read(path):
    """A safetensors file of our own side, float32 and int64, mapped into memory. Debian has no package of that name."""
    data = numpy.memmap(path, mode="c")
    begin = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:begin].tobytes())
    header.pop("__metadata__", None)
    types = {"F32": numpy.float32, "I64": numpy.int64}

    def tensor(entry):
        first, last = (begin + offset for offset in entry["data_offsets"])
        return torch.from_numpy(data[first:last].view(types[entry["dtype"]]).reshape(entry["shape"]))

    return {name: tensor(entry) for name, entry in header.items()}


def loaded(model, path):
    """The reference models also hold tensors of the official checkpoints that no forward pass reads."""
    _, unexpected = model.load_state_dict(read(path), strict=False)
    assert not unexpected, unexpected
    return model


class Step:
    def __init__(self, name, folder, channels_last, compiled):
        folder = pathlib.Path(folder)
        self.cfg = Sizes(folder / "config.txt")
        self.inputs = read(folder / "inputs.safetensors")
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.image = self.inputs["image"].contiguous(memory_format=self.layout)
        self.wrap = torch.compile if compiled else lambda f: f
        getattr(self, "make_" + name)(folder)

    def vqgan_model(self, folder, trained):
        self.vqgan = loaded(models.VQGAN(self.cfg), folder / "vqgan.safetensors").to(memory_format=self.layout)
        self.vqgan.requires_grad_(trained)
        self.encoder, self.vq_decoder = self.wrap(self.vqgan.encoder), self.wrap(self.vqgan.decoder)

    def model(self, cls, file, trained):
        return loaded(cls(self.cfg), file).requires_grad_(trained)

    def update(self, loss, module, optimizer):
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        used = [p for p in module.parameters() if p.grad is not None]
        torch.nn.utils.clip_grad_norm_(used, 3.0)
        optimizer.step()

    # ---- VQGAN
    def make_vqgan(self, folder, gan=False):
        self.vqgan_model(folder, True)
        self.optimizer = adamw(list(self.vqgan.parameters()), 1e-4)
        if gan:
            critic = models.Discriminator(self.cfg.ndf, self.cfg.discriminator_layers)
            self.critic = loaded(critic, folder / "discriminator.safetensors").to(memory_format=self.layout)
            self.critic_optimizer = adamw(list(self.critic.parameters()), 1e-4)
        self.run = lambda: self.vqgan_step(gan)

    def make_vqgan_gan(self, folder):
        self.make_vqgan(folder, True)

    def vqgan_step(self, gan):
        h = self.encoder(self.image)
        with torch.no_grad():
            codes = self.vqgan.distances(h).argmin(-1)
        e = self.vqgan.grid(self.vqgan.codebook[codes])
        codebook_loss = ((e - h.detach()) ** 2).mean() + 0.25 * ((e.detach() - h) ** 2).mean()
        rec = self.vq_decoder(h + (e - h).detach())
        nll = (rec - self.image).abs().mean()
        loss = nll + codebook_loss
        if gan:
            self.critic.requires_grad_(False)
            g_loss = -self.critic(rec).mean()
            last = self.vqgan.decoder.conv_out.weight
            a, b = (torch.autograd.grad(v, last, retain_graph=True)[0].norm() for v in (nll, g_loss))
            loss = loss + 0.8 * (a / (b + 1e-4)).clamp(0, 1e4).detach() * g_loss
        value = loss.item()
        self.update(loss, self.vqgan, self.optimizer)
        if gan:
            self.critic.requires_grad_(True)
            real, fake = self.critic(self.image), self.critic(rec.detach())
            d_loss = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())
            self.update(d_loss, self.critic, self.critic_optimizer)
        return value

    def codes(self):
        with torch.no_grad():
            return self.vqgan.distances(self.encoder(self.image)).argmin(-1)

    # ---- token predictor
    def make_predictor(self, folder):
        self.vqgan_model(folder, False)
        self.predictor = self.model(models.TokenPredictor, folder / "predictor.safetensors", True)
        self.forward = self.wrap(self.predictor)
        self.optimizer = adamw(list(self.predictor.parameters()), 1e-4)
        self.run = self.predictor_step

    def predictor_step(self):
        codes, mask = self.codes(), self.inputs["mask_all"]
        logits = self.forward(codes, mask, self.inputs["mask_dropped"])[1][:, 1:]
        nll = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), label_smoothing=0.1, reduction="none")
        loss = (nll * mask.flatten()).sum() / mask.sum()
        value = loss.item()
        self.update(loss, self.predictor, self.optimizer)
        return value

    # ---- ADDP
    def make_addp(self, folder):
        self.vqgan_model(folder, False)
        predictor = self.model(models.TokenPredictor, folder / "predictor.safetensors", False)
        self.probabilities = self.wrap(predictor.probabilities)
        self.addp = self.model(models.Addp, folder / "addp.safetensors", True)
        self.encode, self.decode = self.wrap(self.addp.encode), self.wrap(self.addp.decode)
        self.optimizer = adamw(list(self.addp.parameters()), 1e-4)
        self.run = self.addp_step

    def addp_step(self):
        cfg, mask = self.cfg, self.inputs["mask_t"]
        codes = self.codes()
        with torch.no_grad():
            z = self.vqgan.mixture(codes, self.probabilities(codes, self.inputs["mask_t_next"]), mask)
            x = self.vq_decoder(z.contiguous(memory_format=self.layout))
            target = self.probabilities(codes, mask)
        logits = self.decode(self.encode(x)[1], codes, mask)[:, 1 : 1 + cfg.tokens]
        q = 0.9 * F.pad(target, (0, cfg.vocab_size - cfg.codebook_size)) + 0.1 / cfg.vocab_size
        nll = F.cross_entropy(logits.flatten(0, 1), q.flatten(0, 1), reduction="none")
        loss = (nll * mask.flatten()).sum() / mask.sum()
        value = loss.item()
        self.update(loss, self.addp, self.optimizer)
        return value

    # ---- sampling
    def make_sample(self, folder):
        self.vqgan_model(folder, False)
        self.addp = self.model(models.Addp, folder / "addp.safetensors", False)
        self.encode, self.decode = self.wrap(self.addp.encode), self.wrap(self.addp.decode)
        self.run = self.sample_step

    @torch.no_grad()
    def sample_step(self):
        cfg, N, L = self.cfg, self.cfg.sampler_steps, self.cfg.tokens
        B, D = len(self.image), cfg.embed_dim
        codes, mask = torch.zeros(B, L, dtype=torch.long), torch.ones(B, L)
        for s in range(N):
            encoded = torch.zeros(B, 1 + L, D) if s == 0 else self.encode(x)[1]
            probs = self.decode(encoded, codes, mask)[:, 1 : 1 + L, : cfg.codebook_size].softmax(-1)
            drawn = (probs.cumsum(-1) < self.inputs[f"uniform{s}"][..., None]).sum(-1).clamp(max=cfg.codebook_size - 1)
            codes = torch.where(mask == 1, drawn, codes)
            done = (s + 1) / N
            confidence = probs.gather(-1, codes[..., None])[..., 0].log()
            confidence = confidence + self.cfg.temperature * (1 - done) * self.inputs[f"gumbel{s}"]
            confidence = torch.where(mask == 1, confidence, torch.inf)
            count = max(1, math.ceil(L * math.cos(math.pi / 2 * done)))
            mask = torch.zeros(B, L).scatter_(1, confidence.topk(count, 1, largest=False)[1], 1.0)
            z = self.vqgan.mixture(codes, probs, mask)
            x = self.vq_decoder(z.contiguous(memory_format=self.layout))
        z = self.vqgan.grid(self.vqgan.codebook[codes])
        return self.vq_decoder(z.contiguous(memory_format=self.layout)).mean().item()

    # ---- linear probe: 100 steps of BatchNorm and Linear with LARS
    def make_probe(self, folder):
        width = 16 * self.cfg.embed_dim
        self.features, self.labels = values((10000, width), 1), torch.arange(10000) % 10
        self.norm, self.head = nn.BatchNorm1d(width, affine=False, eps=1e-6), nn.Linear(width, 10)
        self.momenta = [torch.zeros_like(p) for p in self.head.parameters()]
        self.run = self.probe_epoch

    def probe_epoch(self):
        for _ in range(100):
            index = torch.randint(10000, (256,))
            loss = F.cross_entropy(self.head(self.norm(self.features[index])), self.labels[index])
            gradients = torch.autograd.grad(loss, list(self.head.parameters()))
            with torch.no_grad():
                for p, g, mu in zip(self.head.parameters(), gradients, self.momenta):
                    scale = 0.001 * p.norm() / g.norm() if p.ndim > 1 else 1.0
                    mu.mul_(0.9).add_(g * scale)
                    p.sub_(mu)
        return 0.0


# ---------------------------------------------------------------- protocol


def memory(name):
    for line in open("/proc/self/status"):
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    return 0


class Server:
    def __init__(self):
        self.start_bytes = memory("VmRSS")
        self.case = None

    def answer(self, line):
        word, *rest = line.split()
        if word == "op":
            family, mode, channels_last, *dims = rest
            self.case = make_op(family, mode == "train", tuple(map(int, dims)), channels_last == "channels_last")
            return sum(t.detach().double().abs().sum().item() for t in self.case.run())
        if word == "step":
            name, folder, channels_last, compiled = rest
            self.case = None
            self.case = Step(name, folder, channels_last == "channels_last", compiled == "compiled")
            return self.case.run()
        if word == "run":
            count = int(rest[0])
            begin = time.perf_counter()
            for _ in range(count):
                self.case.run()
            return (time.perf_counter() - begin) / count
        if word == "threads":
            torch.set_num_threads(int(rest[0]))
            return ""
        if word == "memory":
            return memory("VmHWM") - self.start_bytes
        raise ValueError(f"unknown request {line!r}")


if __name__ == "__main__":
    server = Server()
    for request in iter(sys.stdin.readline, ""):
        try:
            print("ok", server.answer(request), flush=True)
        except Exception as e:  # noqa: BLE001 - whatever it is, the driver prints it
            print("error", repr(e).replace("\n", " "), flush=True)
