#!/bin/bash
# Owns: row M7: heads of the decoder that do nothing. Upstream's state of an nb model has px_r_decoder [8, 6] and px_dropout_decoder [8, 6]
# besides the head that is used, computed and never trained (cpa-tools 0.8.8). Here they do not exist; an export has them, as zeros.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad '20 ctrl' '20 A'
train a.h5ad nb
train a.h5ad zinb --recon-loss zinb
hpc 0 export nb --out nb.h5
hpc 0 import nb.h5 --out again
judge <<'P'
def heads(path):
    with h5py.File(path) as f:
        return {name: o["weight"][()] for name, o in f["module"].items() if name.endswith("_decoder")}
assert [k for k in heads("nb/model.h5")] == [] and "decoder.px_scale_decoder.0.weight" in h5py.File("nb/model.h5")["module"]
tensors = list(h5py.File("nb.h5")["module"])
assert "decoder.px_r_decoder.weight" in tensors and "decoder.px_dropout_decoder.weight" in tensors
for head in ("px_r_decoder", "px_dropout_decoder"):
    assert read("nb.h5", f"module/decoder.{head}.weight").shape == (8, 6) and (read("nb.h5", f"module/decoder.{head}.weight") == 0).all()
assert close(tensor("nb", "decoder.px_scale_decoder.0.weight"), tensor("again", "decoder.px_scale_decoder.0.weight"))
kept = list(h5py.File("zinb/model.h5")["module"])
assert "decoder.px_dropout_decoder.weight" in kept and "decoder.px_r_decoder.weight" not in kept
P
finish
