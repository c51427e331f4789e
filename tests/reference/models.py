"""The models of ADDP in plain PyTorch, written for comparison only: nothing in the project needs this file to build
or to run its tests. Parameter names are those of the reference data, so its weights load with strict=True. Everything
runs in float64 and in evaluation mode (no dropout); each model is written as directly as the method allows.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

NORM_EPS = 1e-6  # LayerNorm and GroupNorm everywhere, except the head's LayerNorm and BatchNorm (1e-5)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalised(image):
    mean, std = (image.new_tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (image - mean) / std


def parameter(*shape):
    return nn.Parameter(torch.zeros(*shape))


# ---------------------------------------------------------------- VQGAN tokenizer


def group_norm(channels):
    return nn.GroupNorm(32, channels, eps=NORM_EPS)


class ResnetBlock(nn.Module):
    """Where channels change the skip is nin_shortcut(h) + h: the shortcut reads the branch, the input is not added."""

    def __init__(self, cin, cout):
        super().__init__()
        self.norm1 = group_norm(cin)
        self.conv1 = nn.Conv2d(cin, cout, 3, padding=1, bias=False)
        self.norm2 = group_norm(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1, bias=False)
        if cin != cout:
            self.nin_shortcut = nn.Conv2d(cout, cout, 1, bias=False)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.nin_shortcut(h) + h if hasattr(self, "nin_shortcut") else x + h


def middle(channels):
    return nn.ModuleDict({"block_1": ResnetBlock(channels, channels), "block_2": ResnetBlock(channels, channels)})


def level(cin, cout, blocks):
    return nn.ModuleDict({"block": nn.ModuleList(ResnetBlock(cin if i == 0 else cout, cout) for i in range(blocks))})


class Encoder(nn.Module):
    def __init__(self, ch, mult, blocks, dim):
        super().__init__()
        widths = [ch] + [ch * m for m in mult]
        self.conv_in = nn.Conv2d(3, ch, 3, padding=1, bias=False)
        self.down = nn.ModuleList(level(widths[i], widths[i + 1], blocks) for i in range(len(mult)))
        self.mid = middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], dim, 1)

    def forward(self, x):
        h = self.conv_in(x)
        for i, stage in enumerate(self.down):
            h = F.avg_pool2d(h, 2) if i > 0 else h
            for block in stage["block"]:
                h = block(h)
        h = self.mid["block_2"](self.mid["block_1"](h))
        return self.conv_out(F.silu(self.norm_out(h)))


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Decoder(nn.Module):
    """up[i] works at resolution image / 2^i, so the list is run from its end; all but up.0 end in an Upsample."""

    def __init__(self, ch, mult, blocks, dim):
        super().__init__()
        widths = [ch * m for m in mult] + [ch * mult[-1]]
        self.conv_in = nn.Conv2d(dim, widths[-1], 3, padding=1)
        self.mid = middle(widths[-1])
        self.up = nn.ModuleList(level(widths[i + 1], widths[i], blocks) for i in range(len(mult)))
        for i in range(1, len(mult)):
            self.up[i]["upsample"] = Upsample(widths[i])
        self.norm_out = group_norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, z):
        h = self.mid["block_2"](self.mid["block_1"](self.conv_in(z)))
        for stage in reversed(self.up):
            for block in stage["block"]:
                h = block(h)
            if "upsample" in stage:
                h = stage["upsample"](h)
        return self.conv_out(F.silu(self.norm_out(h)))


class VQGAN(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        shape = (cfg.vqgan_ch, cfg.vqgan_ch_mult, cfg.vqgan_num_res_blocks, cfg.codebook_dim)
        self.encoder = Encoder(*shape)
        self.decoder = Decoder(*shape)
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(cfg.codebook_size, cfg.codebook_dim)})

    @property
    def codebook(self):
        return self.quantize["embedding"].weight

    def distances(self, h):
        """h [B, Dz, g, g] -> squared distances [B, L, K], places in raster order."""
        z = h.flatten(2).transpose(1, 2)
        return (z**2).sum(-1, keepdim=True) + (self.codebook**2).sum(-1) - 2 * z @ self.codebook.T

    def quantized(self, h):
        """Returns codes [B, L], the straight-through z_q [B, Dz, g, g] and the legacy codebook loss."""
        codes = self.distances(h).argmin(-1)
        e = self.grid(self.codebook[codes])
        loss = ((e.detach() - h) ** 2).mean() + 0.25 * ((e - h.detach()) ** 2).mean()
        return codes, h + (e - h).detach(), loss

    @staticmethod
    def grid(tokens):
        """[B, L, C] -> [B, C, g, g]."""
        g = math.isqrt(tokens.shape[1])
        return tokens.transpose(1, 2).reshape(tokens.shape[0], -1, g, g)

    def mixture(self, codes, probs, mask):
        """Soft embedding where mask is 1, hard code elsewhere: [B, Dz, g, g]."""
        return self.grid(torch.where(mask[..., None] == 1, probs @ self.codebook, self.codebook[codes]))


# ---------------------------------------------------------------- transformers


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        B, L, D = x.shape
        q, k, v = self.qkv(x).reshape(B, L, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / math.sqrt(D // self.heads)).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(B, L, D))


class Block(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1 = layer_norm(dim)
        self.attn = Attention(dim, heads)
        self.norm2 = layer_norm(dim)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


def layer_norm(dim, eps=NORM_EPS):
    return nn.LayerNorm(dim, eps=eps)


def stack(dim, heads, depth):
    return nn.ModuleList(Block(dim, heads) for _ in range(depth))


def run(blocks, x):
    for block in blocks:
        x = block(x)
    return x


class PatchEmbed(nn.Module):
    def __init__(self, patch, dim):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch)

    def forward(self, image):
        return self.proj(image).flatten(2).transpose(1, 2)


class MlmLayer(nn.Module):
    def __init__(self, dim, vocab):
        super().__init__()
        self.fc = nn.Linear(dim, dim)
        self.ln = layer_norm(dim, eps=1e-5)
        self.bias = parameter(1, 1, vocab)

    def forward(self, x, words):
        return self.ln(F.gelu(self.fc(x))) @ words.detach().T + self.bias


class BertEmbeddings(nn.Module):
    POSITIONS = 257  # fixed, whatever the grid

    def __init__(self, dim, vocab):
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab, dim)
        self.position_embeddings = nn.Embedding(self.POSITIONS, dim)
        self.LayerNorm = layer_norm(dim)
        self.register_buffer("position_ids", torch.arange(self.POSITIONS)[None])

    def forward(self, ids):
        places = self.position_ids[:, : ids.shape[1]]
        return self.LayerNorm(self.word_embeddings(ids) + self.position_embeddings(places))


class TokenPredictor(nn.Module):
    """MAGE. Unused: cls_token, pos_embed, mask_token, decoder_pos_embed, patch_embed, decoder_pred."""

    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        D, places = cfg.embed_dim, cfg.tokens + 1
        self.cls_token, self.mask_token = parameter(1, 1, D), parameter(1, 1, D)
        self.pos_embed, self.decoder_pos_embed = parameter(1, places, D), parameter(1, places, D)
        self.decoder_pos_embed_learned = parameter(1, places, D)
        self.token_emb = BertEmbeddings(D, cfg.vocab_size)
        self.patch_embed = PatchEmbed(cfg.patch_size, D)
        self.blocks, self.norm = stack(D, cfg.num_heads, cfg.depth), layer_norm(D)
        self.decoder_embed = nn.Linear(D, D)
        self.decoder_blocks = stack(D, cfg.decoder_num_heads, cfg.decoder_depth)
        self.decoder_norm = layer_norm(D)
        self.decoder_pred = nn.Linear(D, 3 * cfg.patch_size**2)
        self.mlm_layer = MlmLayer(D, cfg.vocab_size)

    def forward(self, codes, mask_all, mask_dropped):
        """codes, masks [B, L] -> latent [B, 1 + kept, D], logits [B, 1 + L, V]."""
        class_id = torch.full_like(codes[:, :1], self.cfg.fake_class_label)
        ids = torch.cat([class_id, torch.where(mask_all == 1, self.cfg.mask_token_label, codes)], 1)
        not_class = torch.zeros_like(mask_all[:, :1])
        hidden = torch.cat([not_class, mask_all], 1)[..., None] == 1
        kept = torch.cat([not_class, mask_dropped], 1) == 0

        x = self.token_emb(ids)
        B, places, D = x.shape
        latent = self.norm(run(self.blocks, x[kept].reshape(B, -1, D)))
        y = self.decoder_embed(latent)
        filler = y[:, :1].expand(B, places, D)  # the class token's output stands at every hidden or dropped place
        padded = filler.clone()
        padded[kept] = y.reshape(-1, D)
        x = torch.where(hidden, filler, padded) + self.decoder_pos_embed_learned
        x = self.decoder_norm(run(self.decoder_blocks, x))
        return latent, self.mlm_layer(x, self.token_emb.word_embeddings.weight)

    def probabilities(self, codes, mask):
        """P(codes, mask): [B, L, K]; drops nothing."""
        logits = self(codes, mask, torch.zeros_like(mask))[1]
        return logits[:, 1:, : self.cfg.codebook_size].softmax(-1)


class Addp(nn.Module):
    """Pixel encoder and token decoder. Unused: decoder_pos_embed, pos_token_embed, pos_mask_embed, decoder_pred."""

    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        D, places = cfg.embed_dim, cfg.tokens + 1
        self.cls_token, self.mask_token = parameter(1, 1, D), parameter(1, 1, D)
        for name in ("pos_embed", "decoder_pos_embed", "decoder_pos_embed_learned", "pos_token_embed",
                     "decoder_pos_token_embed", "pos_mask_embed", "decoder_pos_mask_embed"):
            setattr(self, name, parameter(1, places, D))
        self.token_emb = nn.Embedding(cfg.vocab_size, D)
        self.patch_embed = PatchEmbed(cfg.patch_size, D)
        self.tokenizer_norm = layer_norm(D)
        self.blocks, self.norm = stack(D, cfg.num_heads, cfg.depth), layer_norm(D)
        self.decoder_embed = nn.Linear(D, D)
        self.decoder_blocks = stack(D, cfg.decoder_num_heads, cfg.decoder_depth)
        self.decoder_norm = layer_norm(D)
        self.decoder_pred = nn.Linear(D, 3 * cfg.patch_size**2)
        self.mlm_layer = MlmLayer(D, cfg.vocab_size)

    def encode(self, image):
        """image [B, 3, Hi, Wi] -> embedded tokens and encoder output, both [B, 1 + L, D]."""
        patches = self.patch_embed(normalised(image.clamp(0, 1))) + self.pos_embed[:, 1:]
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(len(image), -1, -1)
        embedded = self.tokenizer_norm(torch.cat([cls, patches], 1))
        return embedded, self.norm(run(self.blocks, embedded))

    def decode(self, encoded, codes, mask):
        """-> logits [B, 1 + L + reliable, V]. The class place counts as unreliable for content, not for position."""
        B, D = len(codes), self.cfg.embed_dim
        known = (mask == 0)[..., None]
        x = torch.where(known, self.decoder_embed(encoded)[:, 1:], self.mask_token)
        x = x + torch.where(known, self.decoder_pos_embed_learned[:, 1:], self.decoder_pos_mask_embed[:, 1:])
        cls = (self.mask_token + self.decoder_pos_embed_learned[:, :1]).expand(B, -1, -1)
        appended = (self.token_emb(codes) + self.decoder_pos_token_embed[:, 1:])[mask == 0].reshape(B, -1, D)
        x = self.decoder_norm(run(self.decoder_blocks, torch.cat([cls, x, appended], 1)))
        return self.mlm_layer(x, self.token_emb.weight)


class RecognitionViT(nn.Module):
    def __init__(self, cfg, classes):
        super().__init__()
        D = cfg.embed_dim
        self.cls_token, self.pos_embed = parameter(1, 1, D), parameter(1, cfg.tokens + 1, D)
        self.patch_embed = PatchEmbed(cfg.patch_size, D)
        self.head = nn.Linear(D, classes)
        self.blocks, self.fc_norm = stack(D, cfg.num_heads, cfg.depth), layer_norm(D)

    def forward(self, image):
        """-> features [B, 1 + L, D], the blocks' output, and logits. The image comes normalised."""
        x = self.patch_embed(image)
        x = torch.cat([self.cls_token.expand(len(image), -1, -1), x], 1) + self.pos_embed
        features = run(self.blocks, x)
        return features, self.head(self.fc_norm(features[:, 1:].mean(1)))


# ---------------------------------------------------------------- adversarial and perceptual loss


class Discriminator(nn.Module):
    """PatchGAN: n_layers stride-2 convolutions (the first without norm), one of stride 1, one to a single channel."""

    def __init__(self, ndf, n_layers):
        super().__init__()
        widths = [ndf * min(2**n, 8) for n in range(n_layers + 1)]
        layers = [nn.Conv2d(3, ndf, 4, 2, 1), nn.LeakyReLU(0.2)]
        for n in range(1, n_layers + 1):
            stride = 2 if n < n_layers else 1
            layers += [nn.Conv2d(widths[n - 1], widths[n], 4, stride, 1, bias=False), nn.BatchNorm2d(widths[n])]
            layers += [nn.LeakyReLU(0.2)]
        self.main = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 1))

    def forward(self, x):
        return self.main(x)


class LPIPS:
    """VGG16 features and 1x1 heads; every weight by formula. conv k has parameters 2k and 2k+1, heads start at 26."""

    STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
    SHIFT = (-0.030, -0.088, -0.188)
    SCALE = (0.458, 0.448, 0.450)

    def __init__(self):
        self.stages, self.heads, cin, k = [], [], 3, 0
        for stage in self.STAGES:
            convs = []
            for cout in stage:
                i = torch.arange(cout * cin * 9)
                weight = torch.sin(12.9898 * i + 78.233 * k) * math.sqrt(2) * math.sqrt(2 / (cin * 9))
                bias = 0.1 * torch.sin(1.3 * torch.arange(cout) + k + 1)
                convs.append((weight.reshape(cout, cin, 3, 3), bias))
                cin, k = cout, k + 2
            self.stages.append(convs)
        for n, stage in enumerate(self.STAGES):
            self.heads.append(0.5 + 0.5 * torch.sin(0.7 * torch.arange(stage[-1]) + k + n))

    @classmethod
    def parameter_order(cls):
        """The names of the usual implementation, "0:net.slice1.0.weight;1:...": features are numbered as in VGG16."""
        names, index = [], 0
        for n, stage in enumerate(cls.STAGES, 1):
            for _ in stage:
                names += [f"net.slice{n}.{index}.weight", f"net.slice{n}.{index}.bias"]
                index += 2
            index += 1
        names += [f"lin{n}.model.1.weight" for n in range(len(cls.STAGES))]
        return ";".join(f"{k}:{name}" for k, name in enumerate(names))

    def features(self, x):
        x = (x - x.new_tensor(self.SHIFT)[:, None, None]) / x.new_tensor(self.SCALE)[:, None, None]
        for n, convs in enumerate(self.stages):
            x = F.max_pool2d(x, 2) if n > 0 else x
            for weight, bias in convs:
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
            yield x / ((x**2).sum(1, keepdim=True).sqrt() + 1e-10)

    def __call__(self, a, b):
        """a, b [B, 3, H, W] in [-1, 1] -> [B]."""
        total = 0
        for head, fa, fb in zip(self.heads, self.features(a), self.features(b)):
            total = total + (head[:, None, None] * (fa - fb) ** 2).sum(1).mean((1, 2))
        return total
