# Owns: how the tests in rows/ read files: put in front of their assertions. Never asserts anything itself.
import csv
import h5py, numpy as np


def read(path, name):
    """A dataset of a file."""
    with h5py.File(path) as f:
        return f[name][()]


def tensor(run, name):
    """A tensor of a run's model."""
    return read(run + "/model.h5", "module/" + name).astype("f8")


def obs(path, column):
    """A column of texts of an .h5ad file; None where a categorical has no value."""
    with h5py.File(path) as f:
        o = f["obs/" + column]
        text = lambda d: [v.decode() for v in d[:]]
        return [text(o["categories"])[k] if k >= 0 else None for k in o["codes"][:]] if "codes" in o else text(o)


def history(run, mode=None):
    """The rows of history.csv."""
    with open(run + "/history.csv") as f:
        return [r for r in csv.DictReader(f) if mode in (None, r["mode"])]


def close(x, y, rtol=1e-5, atol=1e-6):
    return np.allclose(x, y, rtol=rtol, atol=atol)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def response(run, p, dose):
    """The logsigm dose response of perturbation number p (1 is the control)."""
    w, b = tensor(run, "pert_network.dosers.beta")[0, p], tensor(run, "pert_network.dosers.bias")[0, p]
    return sigmoid(b + w * np.log1p(dose)) - sigmoid(b)
