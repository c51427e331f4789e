"""Reference values of average precision: random boxes judged by pycocotools.

Run by hand from the root of the repository (pip install pycocotools numpy); writes tests/golden/coco_expected.json.
"""

import json

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

NAMES = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
         "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"]


def random_boxes(rng, count, size):
    wh = np.exp(rng.uniform(np.log(4), np.log(size / 2), (count, 2)))
    xy = rng.uniform(0, 1, (count, 2)) * (size - wh)
    return np.concatenate([xy, wh], 1).round(2)


def make_case(seed, images, classes, objects, noise, extra, crowds, size, ties):
    rng = np.random.default_rng(seed)
    truths, detections = [], []
    for image in range(images):
        count = int(rng.integers(0, objects + 1))
        for box in random_boxes(rng, count, size):
            label = int(rng.integers(classes))
            area = float(round(box[2] * box[3] * rng.uniform(0.5, 1), 3))
            truths.append([image, label, *box.tolist(), area, int(rng.random() < crowds)])
            for _ in range(int(rng.integers(0, 3))):
                moved = box + rng.normal(0, noise, 4) * np.array([box[2], box[3], box[2], box[3]])
                moved[2:] = np.maximum(moved[2:], 1)
                found = label if rng.random() < 0.8 else int(rng.integers(classes))
                detections.append([image, found, *moved.round(2).tolist(), float(rng.random())])
        for box in random_boxes(rng, int(rng.integers(0, extra + 1)), size):
            detections.append([image, int(rng.integers(classes)), *box.tolist(), float(0.7 * rng.random())])
    for d in detections:
        d[-1] = round(d[-1], ties)
    return truths, detections


def judge(truths, detections, images, classes):
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i + 1} for i in range(images)],
        "categories": [{"id": c + 1} for c in range(classes)],
        "annotations": [{"id": n + 1, "image_id": t[0] + 1, "category_id": t[1] + 1, "bbox": t[2:6], "area": t[6],
                         "iscrowd": t[7]} for n, t in enumerate(truths)]}
    coco.createIndex()
    found = coco.loadRes(np.array([[d[0] + 1, *d[2:6], d[6], d[1] + 1] for d in detections]))
    evaluation = COCOeval(coco, found, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return dict(zip(NAMES, map(float, evaluation.stats)))


SETTINGS = {
    "easy": dict(seed=1, images=12, classes=3, objects=4, noise=0.02, extra=1, crowds=0, size=200, ties=6),
    "hard": dict(seed=2, images=15, classes=4, objects=6, noise=0.15, extra=6, crowds=0, size=300, ties=6),
    "crowds": dict(seed=3, images=12, classes=2, objects=6, noise=0.08, extra=4, crowds=0.3, size=250, ties=6),
    "equal scores": dict(seed=4, images=12, classes=3, objects=5, noise=0.1, extra=3, crowds=0.1, size=200, ties=1),
    "many": dict(seed=5, images=2, classes=1, objects=60, noise=0.1, extra=140, crowds=0.05, size=300, ties=6),
    "missing classes": dict(seed=6, images=3, classes=8, objects=2, noise=0.1, extra=3, crowds=0.2, size=64, ties=6),
}
cases = []
for name, setting in SETTINGS.items():
    truths, detections = make_case(**setting)
    cases.append({"name": name, "truths": truths, "detections": detections,
                  "expected": judge(truths, detections, setting["images"], setting["classes"])})
    print(name, len(truths), len(detections), cases[-1]["expected"])
with open("tests/golden/coco_expected.json", "w") as f:
    json.dump({"truths": "image, class, x, y, width, height, area, crowd",
               "detections": "image, class, x, y, width, height, score", "cases": cases}, f, separators=(",", ":"))
