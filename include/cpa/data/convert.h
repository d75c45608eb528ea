// Owns: rewriting an AnnData file in the layout that reads fastest: X, layers and raw/X as CSR with sorted genes, everything else
// as it is. Never changes a value that anndata would show.
#ifndef CPA_DATA_CONVERT_H
#define CPA_DATA_CONVERT_H

#include "cpa/base/mem.h"

/** Rewrites the file `in` to the fresh file `out`, or all files that the list `in` names to one: the genes that all have, the columns of
 *  obs that any has, the layers that all have. Entries of one cell and gene are added up, stored zeros dropped; values become
 *  32-bit floats where that changes none of them, else 64-bit floats. Elements of the encodings before anndata 0.8 become
 *  today's. `gzip` 0: plain. Memory does not depend on the number of cells; CSC is sorted on disk, beside `out`, which takes
 *  16 bytes a value there. BAD_DATA, IO. Rank-local. */
cpa_status cpa_convert(const char *in, const char *out, int gzip);

#endif
