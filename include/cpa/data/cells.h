// Owns: the resident cells: compact CSR of all cells, one copy per node.
// Never changes once loaded.
#ifndef CPA_DATA_CELLS_H
#define CPA_DATA_CELLS_H

#include "cpa/data/matrix.h"

// Genes of a cell ascend and are distinct in meaning: duplicates in the file were added up (the surplus entries keep
// the gene with count 0). Gene ids are 16 bits up to 65,536 genes, counts 16 bits where every one is an integer below
// 65,536.
typedef struct cpa_cells {
    int64_t n_cells, nnz;
    int32_t n_genes;
    const int64_t *indptr;  // [n_cells+1]
    const int32_t *kept;    // [n_cells] values of each cell, when there is room for more between them; NULL: none
    const uint16_t *gene16; // [nnz], or NULL and
    const uint32_t *gene32;
    const uint16_t *count16; // [nnz], or NULL and
    const float *count32;
    const double *library; // [n_cells] sum of counts
    int64_t n_empty;       // cells without counts
    int64_t n_non_integer; // stored values that are not integers
    int64_t n_duplicate;   // entries added up
    double max_count;
    size_t bytes;       // of everything above, per node
    cpa_matrix *matrix; // owned: indptr
    void *shared[3];    // owned: what belongs to genes, counts, library
} cpa_cells;

/** Loads X (layer NULL) or a layer: every rank of a node reads its own slice of the cells. BAD_DATA names the first
 *  cell and gene that is NaN, infinite, negative or out of range. Values that are not integers, duplicates and cells
 *  without counts are warnings. The failure is agreed: the same on all ranks. Collective. */
cpa_status cpa_cells_load(cpa_comm *comm, cpa_h5ad *f, const char *layer, cpa_cells **out);

/** The same from an open matrix, which becomes the cells' also on failure: *m is NULL then. Collective. */
cpa_status cpa_cells_load_matrix(cpa_matrix **m, cpa_cells **out);

/** Frees them and sets *cells to NULL; NULL-safe. Collective over the node. */
void cpa_cells_destroy(cpa_cells **cells);

/** Number of stored values of a cell. */
static inline int64_t cpa_cells_nnz(const cpa_cells *c, int64_t cell)
{
    return c->kept != NULL ? c->kept[cell] : c->indptr[cell + 1] - c->indptr[cell];
}

#endif
