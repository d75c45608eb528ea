// Owns: synthetic atlases with known truth: what is asked for, and the file that holds cells and truth.
// Never reads a file, and never draws anything that depends on ranks, threads or memory.
#ifndef CPA_DATA_SIMULATE_H
#define CPA_DATA_SIMULATE_H

#include "cpa/base/mem.h"

typedef struct cpa_simulate_config {
    int64_t n_cells;
    int32_t n_genes;
    uint64_t seed;
    int perturbations, combinations; // combinations: pairs of perturbations
    cpa_strings doses;               // as written in the file, such as "0.1"
    int cell_types, batches;
    double control; // part of the cells that are controls
    double density; // part of the counts that are not 0
    double ood;     // part of the combinations (without any, of the pairs of cell type and perturbation) held out
    char *format;   // "csr", or "csc", which is sorted on disk
    char *order;    // "random", or "sorted" by batch, cell type and condition
    int gzip;       // 0: plain
} cpa_simulate_config;

/** Writes the atlas to `path`, a fresh file. USAGE: values that contradict each other, or no dose; IO. The count of a cell
 *  and gene is negative binomial with the gene's dispersion and the mean
 *  library x basal[cell type] x exp(batch + sum of hill(dose) x log fold change + hill x hill x interaction). Memory does
 *  not depend on the number of cells. Rank-local. */
cpa_status cpa_simulate(const cpa_simulate_config *config, const char *path);

#endif
