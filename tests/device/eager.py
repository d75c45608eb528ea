# Owns: the rival of a comparison of speed: upstream CPA's training step as plain eager PyTorch, checked against a golden fixture.
# Must never need more than torch, numpy and h5py, nor be made slower than upstream's own step.
"""eager.py check FIXTURE.h5 [--device cpu|cuda]
eager.py bench [--cells B] [--genes G] [--perts P] [--covs V[,V...]] [--steps N] [--no-metric] [--preset default|norman] [--device cuda]

`check` replays a fixture's steps in float64 with its dropout masks and mixup draws, and fails above 1e-6. `bench` times the same step in float32.

What upstream computes and nothing uses is left out, in the rival's favour: the heads for zero inflation and dispersion, the latents other than z,
mixed copies of the batch where mixup is off, a graph of the metric. The rest is in upstream's order: the autoencoder runs forward with a graph in
every batch, classifiers get gradients in the autoencoder's turn too, and what a batch reports is read one number at a time.
"""
import argparse
import itertools
import json
import math
import re
import statistics
import sys
import time
from dataclasses import dataclass, field

import h5py
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

EPS = 1e-8  # inside the logarithms of the negative binomial


@dataclass
class Config:
    """Upstream's defaults."""

    n_genes: int
    n_perts: int  # with the padding
    n_labels: int
    covs: dict = field(default_factory=dict)  # name: number of values
    n_latent: int = 128
    doser: str = "logsigm"
    encoder: tuple = (256, 3, "batch", 0.0)  # width, layers, norm, dropout
    decoder: tuple = (256, 3, "batch", 0.0)
    adversary: tuple = (64, 3, "batch", 0.1)
    adv_steps: int = 3
    reg_adv: float = 1.0
    pen_adv: float = 1.0
    lr: tuple = (5e-4, 3e-4, 3e-4)  # autoencoder, doser, adversaries
    wd: tuple = (1e-6, 4e-7, 4e-7)


class Dropout(nn.Module):
    """Where a check has put recorded masks, takes the next one."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate
        self.masks = []

    def forward(self, h):
        if self.masks:
            return h * self.masks.pop(0) / (1 - self.rate)
        return F.dropout(h, self.rate, self.training)


class Mlp(nn.Module):
    def __init__(self, n_in, n_out, width, layers, norm, dropout):
        super().__init__()
        make = {
            "batch": lambda: nn.BatchNorm1d(width, eps=1e-3, momentum=0.01),
            "layer": lambda: nn.LayerNorm(width, elementwise_affine=False),
            "none": nn.Identity,
        }
        self.linear = nn.ModuleList(nn.Linear(width if k else n_in, width) for k in range(layers))
        self.norm = nn.ModuleList(make[norm]() for _ in range(layers))
        self.drop = nn.ModuleList(Dropout(dropout) if dropout > 0 else nn.Identity() for _ in range(layers))
        self.out = nn.Linear(width, n_out)

    def forward(self, h):
        for linear, norm, drop in zip(self.linear, self.norm, self.drop):
            h = drop(torch.relu(norm(linear(h))))
        return self.out(h)


class Cpa(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.encoder = Mlp(c.n_genes, c.n_latent, *c.encoder)
        self.decoder = Mlp(c.n_latent, c.n_genes, *c.decoder)
        self.px_r = nn.Parameter(torch.randn(c.n_genes))
        self.pert = nn.Embedding(c.n_perts, c.n_latent, padding_idx=0)
        self.beta = nn.Parameter(torch.ones(1, c.n_perts))
        self.bias = nn.Parameter(torch.zeros(1, c.n_perts))
        self.cov = nn.ModuleDict({name: nn.Embedding(n, c.n_latent) for name, n in c.covs.items()})
        self.judge_pert = Mlp(c.n_latent, c.n_labels, *c.adversary)
        self.judge_cov = nn.ModuleDict({name: Mlp(c.n_latent, n, *c.adversary) for name, n in c.covs.items() if n > 1})

    def responses(self, perts, doses):
        """How much of each component's embedding is added."""
        if self.c.doser == "linear":
            return doses
        beta, bias = self.beta[0][perts], self.bias[0][perts]
        return torch.sigmoid(torch.log1p(doses) * beta + bias) - torch.sigmoid(bias)

    def embed_perts(self, perts, doses):
        weight = self.responses(perts, doses) * (perts != 0)
        return (weight.unsqueeze(2) * self.pert(perts)).sum(1)

    def forward(self, batch, mix):
        """The basal latent, and mean and inverse dispersion of every count."""
        x = batch["x"]
        z_basal = self.encoder(torch.log1p(x))
        z = z_basal + blend(mix, lambda rows: self.embed_perts(rows(batch["perts"]), rows(batch["doses"])))
        for name, embedding in self.cov.items():
            z = z + blend(mix if self.c.covs[name] > 1 else None, lambda rows: embedding(rows(batch["cov_" + name])))
        mu = x.sum(1, keepdim=True) * torch.softmax(self.decoder(z), 1)
        return z_basal, mu, torch.exp(self.px_r)


def blend(mix, of):
    """What `of` makes of the batch's rows, with mixup blended with what it makes of their partners."""
    if mix is None:
        return of(lambda a: a)
    share, partner = mix
    return share * of(lambda a: a) + (1 - share) * of(lambda a: a[partner])


def nb_loss(x, mu, theta):
    log_sum = torch.log(theta + mu + EPS)
    log_p = theta * (torch.log(theta + EPS) - log_sum) + x * (torch.log(mu + EPS) - log_sum)
    return -(log_p + torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)).sum(1).mean()


def r2(predicted, real):
    """0 where it is not defined; a constant target scores 0 too, unless it is met."""
    rest = ((real - predicted) ** 2).sum()
    total = ((real - real.mean()) ** 2).sum()
    zero = torch.zeros_like(rest)
    score = torch.where(torch.isclose(total, zero, atol=1e-4), zero, 1 - rest / total)
    return torch.nan_to_num(torch.where(torch.isclose(rest, zero, atol=1e-4), zero + 1, score), nan=0.0)


def r2_by_category(x, mu, category):
    """Upstream's metric of a batch: the mean over its categories, each read from the device by itself."""
    kinds = category.unique()
    mean = var = 0.0
    for kind in kinds:
        rows = category == kind
        real = torch.log1p(x[rows])
        predicted = torch.nan_to_num(torch.log1p(mu[rows]), nan=0.0, posinf=1e3, neginf=-1e3)
        mean += r2(predicted.mean(0), real.mean(0)).item()
        if len(real) > 1:  # the variance of one cell is not defined and counts as 0
            var += r2(predicted.var(0), real.var(0)).item()
    return mean / len(kinds), var / len(kinds)


def macro_accuracy(best, label, n):
    """The mean recall over classes that occur or are predicted."""
    occur = torch.bincount(label, minlength=n)
    hit = torch.bincount(label[best == label], minlength=n)
    seen = occur + torch.bincount(best, minlength=n) > 0
    return (hit / occur.clamp(min=1)).sum() / seen.sum()


class Trainer:
    def __init__(self, model, label_weight):
        c = self.c = model.c
        self.model = model
        self.label_weight = label_weight
        trained = [p for part in (model.encoder, model.decoder, model.pert, model.cov) for p in part.parameters()]
        groups = trained + [model.px_r], [model.beta, model.bias], [*model.judge_pert.parameters(), *model.judge_cov.parameters()]
        made = (torch.optim.Adam(g, lr=lr, weight_decay=wd) for g, lr, wd in zip(groups, c.lr, c.wd))
        self.autoencoder, self.doser, self.adversaries = made

    def judge(self, batch, mix, z_basal, penalise, metric):
        """Losses of all classifiers, what they get right, and with `penalise` the squares of their gradients."""
        r = {}
        logits = {name: judge(z_basal) for name, judge in self.model.judge_cov.items()}
        for name, out in logits.items():
            label = batch["cov_" + name]
            # Upstream weighs the batch's own labels by the mixup and forgets the partners'.
            r["adv_" + name] = F.cross_entropy(out, label) * (mix[0] if mix else 1)
            if metric:
                r["acc_" + name] = (out.argmax(1) == label).float().mean()
        out = logits["perts"] = self.model.judge_pert(z_basal)
        r["adv_perts"] = blend(mix, lambda rows: F.cross_entropy(out, rows(batch["label"]), weight=self.label_weight))
        if metric:
            best = out.argmax(1)
            r["acc_perts"] = blend(mix, lambda rows: macro_accuracy(best, rows(batch["label"]), self.c.n_labels))
        r["adv_loss"] = sum(r["adv_" + name] for name in logits)
        if penalise:
            for name, out in logits.items():
                (slope,) = torch.autograd.grad(out.sum(), z_basal, create_graph=True)
                r["penalty_" + name] = slope.pow(2).mean()
            r["penalty_adv"] = sum(r["penalty_" + name] for name in logits)
        return r

    def step(self, batch, turn_of_autoencoder, adv_lambda=None, mix=None, metric=True):
        """One batch. Its losses, as numbers with `metric`, else left on the device so that nothing has to wait for it."""
        if mix:
            batch = {**batch, "x": blend(mix, lambda rows: rows(batch["x"]))}
        z_basal, mu, theta = self.model(batch, mix)
        recon = nb_loss(batch["x"], mu, theta)
        if turn_of_autoencoder:
            self.autoencoder.zero_grad()
            self.doser.zero_grad()
            r = self.judge(batch, mix, z_basal, False, metric)
            (recon - (self.c.reg_adv if adv_lambda is None else adv_lambda) * r["adv_loss"]).backward()
            self.autoencoder.step()
            self.doser.step()
        else:
            self.adversaries.zero_grad()
            r = self.judge(batch, mix, z_basal.detach().requires_grad_(), True, metric)
            (r["adv_loss"] + self.c.pen_adv * r["penalty_adv"]).backward()
            self.adversaries.step()
        r["recon_loss"] = recon
        if not metric:
            return {name: v.detach() for name, v in r.items()}
        r2_mean, r2_var = r2_by_category(batch["x"], mu.detach(), batch["category"])
        return {**{name: v.item() for name, v in r.items()}, "r2_mean": r2_mean, "r2_var": r2_var}


# ---- check

RENAME = (  # from names here to the fixture's
    (r"^judge_pert\.", "perturbation_classifier/classifier."),
    (r"^judge_cov\.([^.]+)\.", r"covars_classifiers/\1.classifier."),
    (r"^(encoder|decoder|px_r|pert|cov|beta|bias)\b", r"module/\1"),
    (r"classifier\.out", "classifier.1"),
    (r"classifier\.(linear|norm)", r"classifier.0.\1"),
    (r"encoder\.out", "encoder.z"),
    (r"decoder\.out", "decoder.px_scale_decoder.0"),
    (r"encoder\.(linear|norm)", r"encoder.network.\1"),
    (r"decoder\.(linear|norm)", r"decoder.px_decoder.\1"),
    (r"\blinear\.(\d+)", r"fc_layers.Layer \1.0"),
    (r"\bnorm\.(\d+)", r"fc_layers.Layer \1.1"),
    (r"module/pert\.", "module/pert_network.pert_embedding."),
    (r"module/cov\.", "module/covars_embeddings."),
    (r"module/(beta|bias)$", r"module/pert_network.dosers.\1"),
)


def fixture_name(name):
    for pattern, to in RENAME:
        name = re.sub(pattern, to, name)
    return name


def config_of(f):
    j = json.loads(f.attrs["config"])
    m, p, s = j["model"], j["plan"], j["sizes"]
    options = {**j, **m, **p}
    yes = ("use_batch_norm_encoder", "use_batch_norm_decoder", "use_batch_norm_adv", "adv_steps")
    no = ("use_layer_norm_encoder", "use_layer_norm_decoder", "use_layer_norm_adv", "variational", "embedding_dim", "do_clip_grad")
    no += ("n_epochs_pretrain_ae", "n_steps_pretrain_ae")
    same = (m["recon_loss"], m["doser_type"], p["adv_loss"]) == ("nb", "logsigm", "cce")
    if not same or not all(options[k] for k in yes) or any(options[k] for k in no):
        sys.exit("eager.py: only fixtures like nb_default are supported (nb, logsigm, batch norm, no pretraining)")
    return j["steps_per_epoch"], Config(
        s["G"], s["P"], len(j["combos"]), j["covariates"], m["n_latent"],
        encoder=(m["n_hidden_encoder"], m["n_layers_encoder"], "batch", m["dropout_rate_encoder"]),
        decoder=(m["n_hidden_decoder"], m["n_layers_decoder"], "batch", 0.0),
        adversary=(p["n_hidden_adv"], p["n_layers_adv"], "batch", p["dropout_rate_adv"]),
        adv_steps=p["adv_steps"], pen_adv=p["pen_adv"],
        lr=(p["lr"], p["doser_lr"], p["adv_lr"]), wd=(p["wd"], p["doser_wd"], p["adv_wd"]))


def judged(c, name):
    """Whether a tensor is compared. Left out is what a batch norm takes out of the loss: biases in front of one, also through the latent, and
    the embedding of a covariate's only value. Their gradients are rounding noise, of which Adam makes steps of full size that only the running
    means feel, so these are left out too."""
    lone = [f"cov.{n}.weight" for n, values in c.covs.items() if values == 1]
    noise = re.search(r"linear\.\d+\.bias$|running_mean$", name) or name == "encoder.out.bias" or name in lone
    return not noise and not name.endswith("num_batches_tracked")


def recorded_batch(group, covs, device):
    """A recorded batch; indices are integers, all else float64."""
    of = {n: torch.tensor(group[n][()], device=device) for n in group}
    b = {n: of[n].long().view(-1) for n in ["category", *("cov_" + name for name in covs)]}
    return {**b, "label": of["pert_label"].long().view(-1), "perts": of["perts"].long(), "x": of["x"].double(), "doses": of["doses"].double()}


def hand_out_masks(model, draws, device):
    """Recorded dropout masks to the layers that drew them."""
    layers = {fixture_name(n.replace("drop.", "norm.")): d for n, d in model.named_modules() if isinstance(d, Dropout)}
    for key in sorted(k for k in draws if k.startswith("dropout_")):
        name = draws[key].attrs["module"].replace(".", "/", 1)[:-1] + "1"  # of a layer's modules the last is its dropout, the second its norm
        layers[name].masks.append(torch.tensor(draws[key][()], device=device).double())


def difference(a, b):
    """Relative to the recorded value, by Euclidean norms."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if not (np.isfinite(a).all() and a.shape == b.shape):
        return math.inf
    size = np.linalg.norm(b)
    return np.linalg.norm(a - b) / size if size > 0 else np.linalg.norm(a - b)


def check(args):
    worst = {"losses": (0.0, ""), "metrics": (0.0, ""), "parameters": (0.0, "")}
    seen = dict.fromkeys(worst, 0)

    def compare(kind, name, a, b):
        seen[kind] += 1
        worst[kind] = max(worst[kind], (difference(a, b), name))

    with h5py.File(args.fixture, "r") as f:
        per_epoch, c = config_of(f)
        model = Cpa(c).double().to(args.device)
        model.load_state_dict({n: torch.tensor(f["initial/" + fixture_name(n)][()]) for n in model.state_dict()})
        trainer = Trainer(model, torch.tensor(f["drug_weights"][()]).double().to(args.device))
        steps = sorted(k for k in f if k.startswith("step_"))
        for t, name in enumerate(steps):
            g = f[name]
            hand_out_masks(model, g["draws"], args.device)
            share, partner = g["draws/mixup_lambda"][()], torch.tensor(g["draws/mixup_partner"][()], device=args.device).long()
            batch, mix = recorded_batch(g["batch"], c.covs, args.device), (float(share), partner) if share < 1 else None
            r = trainer.step(batch, t % per_epoch % c.adv_steps == 0, float(g["schedule/adv_lambda"][()]), mix)
            if any(d.masks for d in model.modules() if isinstance(d, Dropout)):
                sys.exit(f"eager.py: {name} leaves recorded dropout masks unused")
            for key, stored in g["result"].items():
                # What is not computed in this turn upstream reports as 0.
                compare("metrics" if key[:3] in ("r2_", "acc") else "losses", f"{name}/{key}", r.get(key, 0.0), stored[()])
            if "after" in g:
                for key, value in model.state_dict().items():
                    path = f"{name}/after/{fixture_name(key)}"
                    if judged(c, key):
                        compare("parameters", path, value.cpu().numpy(), f[path][()])
    for kind, (error, where) in worst.items():
        print(f"{kind}: {seen[kind]} compared, worst relative difference {error:.2e} ({where})")
    bad = not all(error <= 1e-6 and seen[kind] for kind, (error, _) in worst.items())
    print(f"{'FAIL' if bad else 'ok'} {args.fixture} device={args.device} torch={torch.__version__}")
    return bad


# ---- bench

def bench_config(args, n_labels):
    covs = {f"cov{i}": int(n) for i, n in enumerate(args.covs.split(",")) if int(n) > 0}
    c = Config(n_genes=args.genes, n_perts=args.perts + 1, n_labels=n_labels, covs=covs)
    if args.preset == "norman":
        c.n_latent, c.doser, c.reg_adv, c.pen_adv = 32, "linear", 10.0, 20.0
        c.encoder, c.decoder, c.adversary = (256, 4, "batch", 0.2), (256, 2, "layer", 0.0), (128, 2, "batch", 0.3)
        c.lr, c.wd = (1e-4, 3e-4, 1e-4), (3.2170178270865573e-06, 4e-7, 7.051355554517135e-06)
    if args.decoder_norm:
        c.decoder = (*c.decoder[:2], args.decoder_norm, 0.0)
    return c


def conditions(args):
    """Components of each condition: every perturbation alone (1 is the control); for norman as many pairs beside them."""
    single = torch.stack([torch.arange(1, args.perts + 1), torch.zeros(args.perts, dtype=torch.long)], 1)
    if args.preset != "norman":
        return single
    first = torch.randint(1, args.perts + 1, (args.perts,))
    second = (first - 1 + torch.randint(1, max(args.perts, 2), (args.perts,))) % args.perts + 1
    return torch.cat([single, torch.stack([first, second], 1)])


def make_cells(args, c, table):
    """All cells on the device: dense counts of which 8 % are not 0, conditions and covariates at random."""
    n, dev = args.pool, args.device
    x = torch.empty(n, c.n_genes, device=dev)
    for rows in x.split(4096):
        rows.exponential_(0.5).ceil_().mul_(torch.rand_like(rows) < 0.08)
    x[:, 0] = 1  # no cell is empty
    label = torch.randint(len(table), (n,), device=dev)
    perts = table.to(dev)[label]
    cells = {"x": x, "label": label, "perts": perts, "doses": (perts != 0).float(), "category": label}
    for name, values in c.covs.items():
        cells["cov_" + name] = torch.randint(values, (n,), device=dev)
        cells["category"] = cells["category"] * values + cells["cov_" + name]
    return cells


def copy_rate(device, synchronize):
    """GB/s, read and written, of the library's own copy of 256 MiB: what memory gives to whoever asks it well."""
    source = torch.zeros(1 << 26, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    synchronize()
    since = time.perf_counter()
    for _ in range(10):
        target.copy_(source)
    synchronize()
    return 20e-9 * 4 * source.numel() / (time.perf_counter() - since)


def bench(args):
    torch.manual_seed(0)
    args.pool = max(args.pool, args.cells)
    cuda = args.device.startswith("cuda")
    table = conditions(args)
    c = bench_config(args, len(table))
    cells = make_cells(args, c, table)
    counts = torch.bincount(cells["label"], minlength=c.n_labels).clamp(min=1)
    trainer = Trainer(Cpa(c).to(args.device), args.pool / counts - 1)
    order = torch.randperm(args.pool, device=args.device)
    batches = itertools.cycle(order[: args.pool // args.cells * args.cells].split(args.cells))
    synchronize = torch.cuda.synchronize if cuda else lambda: None

    def run(is_autoencoder):
        rows = next(batches)
        return trainer.step({k: v.index_select(0, rows) for k, v in cells.items()}, is_autoencoder, metric=args.metric)

    def window(kind):
        synchronize()
        since = time.perf_counter()
        for k in range(steps):
            losses = run(kind == "ae" or kind == "step" and k % c.adv_steps == 0)
        synchronize()
        ms = 1e3 * (time.perf_counter() - since) / steps
        if not all(math.isfinite(v) for v in losses.values()):
            sys.exit("eager.py: a loss is not finite")
        return ms

    steps = math.ceil(args.steps / c.adv_steps) * c.adv_steps
    for k in range(4 * c.adv_steps):
        run(k % c.adv_steps == 0)
    # Windows of one kind of step tell what each costs; the mean step is timed by windows that alternate as training does.
    times = {"ae": [], "adv": [], "step": []}
    for _ in range(args.windows):
        for kind, seen in times.items():
            seen.append(window(kind))
    ms = {kind: statistics.median(seen) for kind, seen in times.items()}
    device = torch.cuda.get_device_name().replace(" ", "_") if cuda else args.device
    preset = args.preset + (f"+decoder-norm-{args.decoder_norm}" if args.decoder_norm else "")
    print(
        f"eager preset={preset} cells={args.cells} metric={'yes' if args.metric else 'no'} ae_ms={ms['ae']:.3f} adv_ms={ms['adv']:.3f} "
        f"step_ms={ms['step']:.3f} cells_per_s={1e3 * args.cells / ms['step']:.0f} copy_GB_s={copy_rate(args.device, synchronize):.0f} device={device}"
    )
    return False


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = p.add_subparsers(required=True)
    q = modes.add_parser("check")
    q.add_argument("fixture")
    q.add_argument("--device", default="cpu")
    q.set_defaults(run=check)
    q = modes.add_parser("bench")
    q.add_argument("--cells", type=int, default=128, help="of a batch")
    q.add_argument("--genes", type=int, default=5000)
    q.add_argument("--perts", type=int, default=100, help="with the control, without the padding")
    q.add_argument("--covs", default="3", help="values of each covariate, by commas; 0 for no covariate")
    q.add_argument("--steps", type=int, default=30, help="of a window")
    q.add_argument("--windows", type=int, default=5, help="of each kind; their median counts")
    q.add_argument("--pool", type=int, default=50000, help="cells on the device")
    q.add_argument("--no-metric", dest="metric", action="store_false", help="neither R2 nor accuracies, and nothing read from the device")
    q.add_argument("--preset", choices=("default", "norman"), default="default")
    q.add_argument("--decoder-norm", choices=("batch", "layer", "none"), help="instead of the preset's")
    q.add_argument("--device", default="cuda")
    q.set_defaults(run=bench)
    args = p.parse_args()
    return 1 if args.run(args) else 0


if __name__ == "__main__":
    sys.exit(main())
