"""Reference values of recognition: k nearest neighbours by scikit-learn, bicubic position tables by PyTorch.

Run by hand from the root of the repository (pip install torch numpy scikit-learn safetensors); writes
tests/golden/recognition_expected.safetensors.
"""

import numpy as np
import torch
from safetensors.numpy import save_file
from sklearn.neighbors import KNeighborsClassifier

rng = np.random.default_rng(7)
out = {}

# Positions of a 4 x 4 grid for larger, smaller and odd ones.
positions = rng.normal(size=(1, 17, 3))
out["positions"] = positions
grid = torch.from_numpy(positions[:, 1:].reshape(1, 4, 4, 3)).permute(0, 3, 1, 2)
for to in (8, 7, 3):
    resized = torch.nn.functional.interpolate(grid, size=(to, to), mode="bicubic", align_corners=False)
    resized = resized.permute(0, 2, 3, 1).reshape(1, to * to, 3).numpy()
    out[f"positions.{to}"] = np.concatenate([positions[:, :1], resized], axis=1)

# Overlapping clusters, so that neighbours disagree and the weighting matters.
classes, k, temperature = 5, 9, 0.07
centres = rng.normal(size=(classes, 6))
y = rng.integers(0, classes, size=300)
x = centres[y] + 1.2 * rng.normal(size=(300, 6))
y_test = rng.integers(0, classes, size=120)
x_test = centres[y_test] + 1.2 * rng.normal(size=(120, 6))
out.update({"knn.x": x, "knn.y": y, "knn.x_test": x_test, "knn.y_test": y_test})
weightings = {"vote": "uniform", "weighted": lambda distance: np.exp((1 - distance) / temperature)}
for name, weights in weightings.items():
    model = KNeighborsClassifier(n_neighbors=k, metric="cosine", algorithm="brute", weights=weights).fit(x, y)
    out[f"knn.{name}"] = model.predict(x_test)
    out[f"knn.{name}.share"] = model.predict_proba(x_test)

print({name: (out[f"knn.{name}"] == y_test).mean() for name in weightings})
save_file({name: np.ascontiguousarray(value) for name, value in out.items()},
          "tests/golden/recognition_expected.safetensors", {"k": str(k), "temperature": str(temperature)})
