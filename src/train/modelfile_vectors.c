// Owns: the part of a model file that holds external vectors of perturbations that are in none of its tensors. Never makes an
// embedding of them.
#include <string.h>

#include "cpa/base/hash.h"
#include "modelfile_impl.h"

static const char GROUP[] = "unseen", PROJECTION[] = "module/pert_network.pert_transformation.weight";

cpa_status cpa_modelfile_features(const cpa_h5 *f, int *n)
{
    cpa_status st = CPA_OK;
    cpa_h5_info info;
    *n = 0;
    if (cpa_h5_kind_of(f, PROJECTION) == CPA_H5_DATASET) {
        CPA_TRY(cpa_h5_describe(f, PROJECTION, &info));
        CPA_REQUIRE(info.rank == 2 && info.shape[1] >= 1 && info.shape[1] <= 65536, CPA_BAD_DATA,
                    "'%s': tensor '%s' must be [n_latent, width of the vectors], the width at most 65536",
                    cpa_h5_path(f), PROJECTION);
        *n = (int)info.shape[1];
    }
cleanup:
    return st;
}

cpa_status cpa_modelfile_vectors(cpa_comm *comm, const char *path, cpa_pert_table **out)
{
    cpa_status st = CPA_OK;
    cpa_h5 *f = NULL;
    *out = NULL;
    st = cpa_h5_open(path, &f);
    CPA_TRY(comm ? cpa_comm_agree(comm, st) : st);
    if (cpa_h5_kind_of(f, GROUP) == CPA_H5_GROUP) {
        CPA_TRY(cpa_pert_table_read(comm, path, GROUP, out));
    }
cleanup:
    cpa_h5_close(&f);
    return st;
}

static const void *row_of(const cpa_pert_table *t, int64_t i)
{
    return (const char *)t->memory + i * cpa_pert_table_row_bytes(t);
}

static void hash_row(const cpa_pert_table *t, int64_t i, uint64_t *digest)
{
    *digest = cpa_hash(*digest, t->name.s[i], strlen(t->name.s[i]) + 1);
    *digest = cpa_hash(*digest, row_of(t, i), (size_t)cpa_pert_table_row_bytes(t));
}

void cpa_modelfile_hash_vectors(const cpa_pert_table *t, uint64_t *digest)
{
    for (int64_t i = 0; t && i < t->name.n; i++) {
        hash_row(t, i, digest);
    }
}

// Numbers of the rows that are in no tensor, into a fresh array.
static cpa_status find_unseen(const cpa_pert_table *t, const cpa_strings *pert, int64_t **row, int64_t *n)
{
    cpa_status st = CPA_OK;
    bool *seen = NULL;
    *n = 0;
    CPA_TRY(cpa_alloc((size_t)t->name.n, sizeof **row, row));
    CPA_TRY(cpa_alloc((size_t)t->name.n, sizeof *seen, &seen));
    for (int64_t p = 0; p < pert->n; p++) {
        int64_t at = cpa_pert_table_find(t, pert->s[p]);
        if (at >= 0) {
            seen[at] = true;
        }
    }
    for (int64_t i = 0; i < t->name.n; i++) {
        if (!seen[i]) {
            (*row)[(*n)++] = i;
        }
    }
cleanup:
    cpa_free(&seen);
    return st;
}

cpa_status cpa_modelfile_write_vectors(cpa_h5 *f, const cpa_model_meta *meta, uint64_t *digest)
{
    cpa_status st = CPA_OK;
    const cpa_pert_table *t = meta->vectors;
    cpa_strings name = {0};
    int64_t *row = NULL, n = 0;
    if (t) {
        CPA_TRY(find_unseen(t, &meta->pert, &row, &n));
    }
    if (n > 0) {
        const char *matrix = t->bits ? "unseen/bits" : "unseen/vectors";
        cpa_h5_type type = t->bits ? CPA_H5_U8 : CPA_H5_F32;
        CPA_TRY(cpa_h5_create_rows(f, matrix, type, n, t->bits ? cpa_pert_table_row_bytes(t) : t->n_features));
        if (t->bits) {
            CPA_TRY(cpa_h5_write_attr_numbers(f, matrix, "n_bits", CPA_H5_I32, -1, &t->n_features));
        }
        for (int64_t i = 0; i < n; i++) {
            CPA_TRY(cpa_strings_add(&name, t->name.s[row[i]]));
            hash_row(t, row[i], digest);
        }
        for (int64_t i = 0, end; i < n; i = end) { // neighbours in one write
            for (end = i + 1; end < n && row[end] == row[i] + end - i; end++) {
            }
            CPA_TRY(cpa_h5_write_rows(f, matrix, type, i, end - i, row_of(t, row[i])));
        }
        CPA_TRY(cpa_h5_write_strings(f, "unseen/names", &name));
    }
cleanup:
    cpa_strings_fini(&name);
    cpa_free(&row);
    return st;
}
