import numpy as np


def splits(count=48, classes=3):
    generator = np.random.default_rng(0)
    made = {}
    for name in ("train", "validation", "test"):
        labels = generator.integers(0, classes, count)
        images = generator.normal(size=(count, 1, 12, 12)).astype(np.float32) * 0.1
        images[np.arange(count), 0, 2 + 3 * labels, 2:10] += 2.0
        made[name] = (images, labels)
    return made


def no_validation():
    made = splits()
    del made["validation"]
    return made


def wrong_split_name():
    return {**splits(), "valid": splits()["validation"]}


def no_mapping():
    return [splits()["validation"]]


def empty():
    images, labels = splits()["validation"]
    return {"validation": (images[:0], labels[:0])}


def nan_inputs():
    made = splits()
    made["validation"][0][3, 0, 0, 0] = np.nan
    return made


def labels_out_of_range():
    made = splits()
    made["validation"][1][0] = 7
    return made


def fewer_labels():
    images, labels = splits()["validation"]
    return {"validation": (images, labels[:-1])}


def words():
    images, labels = splits()["validation"]
    return {"validation": (np.array(["a"] * len(labels)), labels)}


def objects():
    images, labels = splits()["validation"]
    return {"validation": (np.array([{} for _ in labels], dtype=object), labels)}


def unlike():
    made = splits()
    made["train"] = (made["train"][0][:, :, :6], made["train"][1])
    return made


def doubles():
    return {name: (images.astype(np.float64), labels) for name, (images, labels) in splits().items()}


def unlabelled():
    return {name: (images, None) for name, (images, _) in splits().items()}


def real_labels():
    return {name: (images, labels.astype(np.float32)) for name, (images, labels) in splits().items()}


def raises():
    raise FileNotFoundError("images.bin")
