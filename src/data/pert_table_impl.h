// Owns: what reading a table of vectors is made of. Never included outside src/data/pert_table*.c.
#ifndef CPA_DATA_PERT_TABLE_IMPL_H
#define CPA_DATA_PERT_TABLE_IMPL_H

#include "cpa/data/pert_table.h"

// A kind of file. Both functions open the file themselves and are rank-local; `group` as in cpa_pert_table_read.
typedef struct cpa_pert_kind {
    /** Fills name and n_features; *packed whether the vectors are bits. */
    cpa_status (*describe)(cpa_pert_table *t, const char *group, bool *packed);
    /** Fills the vectors: t->memory, zeroed, as t->value or t->bits say. */
    cpa_status (*fill)(cpa_pert_table *t, const char *group);
} cpa_pert_kind;

extern const cpa_pert_kind cpa_pert_kind_hdf5, cpa_pert_kind_h5ad, cpa_pert_kind_csv;

/** BAD_DATA unless `value` is finite; it is number `column` of vector `row`. */
cpa_status cpa_pert_table_check(const cpa_pert_table *t, int64_t row, int64_t column, double value);

#endif
