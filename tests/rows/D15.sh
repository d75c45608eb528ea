#!/bin/bash
# Owns: row D15: the work of registering cells. Upstream looks up every cell by itself (39,000 cells a second on Norman 2019 by its own log).
# Here conditions are parsed once each, however many cells have them: a fault is found once, with the number of its cells.
. "$CPA_TESTS/support/rows.sh"
cells a.h5ad genes=2 '9000 ctrl' '700 A x' '300 B y'
hpc 65 check a.h5ad
says "dose 'x' of perturbation 'A'"
says "(700 cells, the first in row 9000)"
says "(300 cells, the first in row 9700)"
[ "$(grep -c 'error: ' said)" -eq 2 ] || fail "not one message a condition: $(cat said)"
finish
