"""Reference values of metrics: torch-fidelity's FID, KID, Inception score, precision and recall and its InceptionV3 on
weights that follow from a formula, scikit-image's PSNR and SSIM, scipy's eigenvalues.

Run by hand from the root of the repository (pip install torch torch-fidelity scikit-image scipy safetensors); writes
tests/golden/metrics_expected.safetensors and tests/golden/inception_expected.safetensors.
"""

import math
import tempfile

import numpy as np
import scipy.linalg
import torch
from safetensors.numpy import save_file
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kernel_mmd, kid_features_to_metric
from torch_fidelity.metric_prc import calculate_precision_recall_full

rng = np.random.default_rng(11)


def fid(a, b):
    statistics = [fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    return fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]


def write(name, values, metadata=None):
    arrays = {k: np.ascontiguousarray(np.asarray(v)) for k, v in values.items()}
    save_file({k: v.reshape(1) if v.ndim == 0 else v for k, v in arrays.items()}, f"tests/golden/{name}.safetensors",
              metadata)


def metrics():
    out = {}
    # Correlated features of two distributions that differ in mean, scale and rotation; "few": fewer images than features.
    mix_a, mix_b = rng.normal(size=(2, 24, 24)) / 5
    a = rng.normal(size=(150, 24)) @ mix_a + 0.3
    b = np.tanh(rng.normal(size=(130, 24)) @ mix_b) * 1.4
    out |= {"a": a, "b": b, "fid": fid(a, b), "fid.few": fid(a[:15], b[:20])}
    kid = kid_features_to_metric(torch.from_numpy(a), torch.from_numpy(b), kid_subsets=400, kid_subset_size=40, verbose=False)
    out |= {"mmd2": kernel_mmd(a[:100], b[:100]), "kid": kid["kernel_inception_distance_mean"],
            "kid.deviation": kid["kernel_inception_distance_std"]}
    # Neighbours: the second set covers a part of the first.
    near = np.where(rng.uniform(size=(130, 1)) < 0.6, a[rng.integers(0, 70, 130)] + 0.1 * rng.normal(size=(130, 24)),
                    b)
    out |= {"near": near}
    for k in (3, 5):
        out[f"precision_recall.{k}"] = calculate_precision_recall_full(torch.from_numpy(near), torch.from_numpy(a), k)
    logits = 3 * rng.normal(size=(103, 10))
    out["logits"] = logits
    for splits in (1, 10):
        score = isc_features_to_metric(torch.from_numpy(logits), splits, shuffle=False)
        out[f"score.{splits}"] = (score["inception_score_mean"], score["inception_score_std"])
    # Images and damaged copies.
    y, x = np.mgrid[0:19, 0:23] / 23
    image = np.stack([[0.5 + 0.4 * np.sin(7 * x * (n + 1) + 5 * y + c) for c in range(3)] for n in range(4)])
    damaged = np.clip(image + np.array([0.02, 0.1, 0.3, 0]).reshape(4, 1, 1, 1) * rng.normal(size=image.shape), 0, 1)
    damaged[3] = image[3] * 0.8
    out |= {"images": image, "damaged": damaged}
    out["psnr"] = [peak_signal_noise_ratio(i, d, data_range=1) for i, d in zip(image, damaged)]
    out["ssim"] = [structural_similarity(i, d, data_range=1, channel_axis=0, gaussian_weights=True, sigma=1.5,
                                         use_sample_covariance=False) for i, d in zip(image, damaged)]
    half = rng.normal(size=(17, 17))
    out |= {"symmetric": half + half.T, "eigenvalues": scipy.linalg.eigvalsh(half + half.T)}
    write("metrics_expected", out)


def formula(name, count):
    """The same numbers in [0, 1) as tests/test_inception.cc: SplitMix64 from the name's FNV-1a hash."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(state) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) * 2.0**-24


def weight(name, like):
    if name.endswith("num_batches_tracked"):
        return like
    u = formula(name, like.numel())
    if like.dim() > 1:
        u = (2 * u - 1) * math.sqrt(6 / (like.numel() / like.shape[0]))
    elif name.endswith("bn.weight") or name.endswith("running_var"):
        u = 0.5 + u
    else:
        u = 0.1 * (2 * u - 1)
    return torch.from_numpy(u).float().reshape(like.shape)


def inception():
    # The constructor reads weights from a file: an empty one with the right names first.
    class Blank(FeatureExtractorInceptionV3):
        def load_state_dict(self, state, *arguments, **options):
            return super().load_state_dict({k: weight(k, v) for k, v in self.state_dict().items()})

    with tempfile.NamedTemporaryFile() as file:
        torch.save({}, file.name)
        model = Blank("inception", ["2048", "logits_unbiased"], file.name, "float64")
    blocks = rng.uniform(size=(8, 3, 4, 4)).repeat(8, 2).repeat(8, 3)
    noise = np.linspace(0, 1, 8).reshape(8, 1, 1, 1)
    images = ((1 - noise) * blocks + noise * rng.uniform(size=(8, 3, 32, 32))) * np.linspace(255, 90, 8).reshape(8, 1, 1, 1)
    wide = rng.uniform(0, 256, size=(1, 3, 20, 310)).astype(np.uint8)
    images = images.astype(np.uint8)
    features, logits = (x.numpy() for x in model(torch.from_numpy(images)))
    wide_features, wide_logits = (x.numpy() for x in model(torch.from_numpy(wide)))
    score = isc_features_to_metric(torch.from_numpy(logits), 1, shuffle=False)["inception_score_mean"]
    print("features", features.mean(), features.std(axis=0).mean(), "logits", logits.std())
    a, b = features[:4].astype(np.float64), features[4:].astype(np.float64)
    write("inception_expected",
          {"images": images, "features": features, "logits": logits, "wide": wide, "wide.features": wide_features,
           "wide.logits": wide_logits, "fid": fid(a, b), "score": score, "mmd2": kernel_mmd(a, b)})
    print("fid", fid(a, b), "score", score)


metrics()
inception()
