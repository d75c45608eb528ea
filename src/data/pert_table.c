// Owns: tables of external vectors once their kind is known: one copy per node, names, rows. Never reads a file itself.
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpa/base/log.h"
#include "cpa/base/text.h"
#include "cpa/platform/h5.h"
#include "pert_table_impl.h"

enum { MAX_FEATURES = 65536, MAX_LISTED = 20 };

cpa_status cpa_pert_table_check(const cpa_pert_table *t, int64_t row, int64_t column, double value)
{
    return isfinite(value) ? CPA_OK
                           : cpa_fail(CPA_BAD_DATA,
                                      "%s: number %lld of the vector of perturbation '%s' (row %lld, both from 0) is "
                                      "%g; vectors must be finite 32-bit numbers",
                                      t->path, (long long)column, t->name.s[row], (long long)row, value);
}

// HDF5 files begin with these bytes; everything else is taken for CSV.
static cpa_status find_kind(const char *path, const char *group, const cpa_pert_kind **kind)
{
    static const char signature[8] = "\211HDF\r\n\032\n";
    cpa_status st = CPA_OK;
    char start[8] = "";
    cpa_h5 *f = NULL;
    FILE *file = fopen(path, "rb");
    CPA_REQUIRE(file, CPA_NO_INPUT, "cannot read '%s', the vectors of perturbations: %s", path, strerror(errno));
    size_t n = fread(start, 1, sizeof start, file);
    CPA_REQUIRE(!ferror(file), errno == EISDIR ? CPA_NO_INPUT : CPA_IO,
                "cannot read '%s', the vectors of perturbations: %s", path, strerror(errno));
    *kind = &cpa_pert_kind_csv;
    if (n == sizeof start && memcmp(start, signature, n) == 0) {
        CPA_TRY(cpa_h5_open(path, &f));
        bool plain = group || cpa_h5_kind_of(f, "names") == CPA_H5_DATASET;
        CPA_REQUIRE(plain || cpa_h5_kind_of(f, "obs") != CPA_H5_NOTHING, CPA_BAD_DATA,
                    "%s: has neither a dataset 'names' (beside 'vectors' or 'bits') nor the 'obs' of an .h5ad; it "
                    "must hold the vectors of perturbations in one of these ways",
                    path);
        *kind = plain ? &cpa_pert_kind_hdf5 : &cpa_pert_kind_h5ad;
    }
cleanup:
    cpa_h5_close(&f);
    if (file) {
        fclose(file);
    }
    return st;
}

static int compare_names(const void *x, const void *y)
{
    const char *const *a = *(const char *const *const *)x, *const *b = *(const char *const *const *)y;
    int order = strcmp(*a, *b);
    return order != 0 ? order : (a > b) - (a < b);
}

// Sorts the names; one that is there twice is an error, which of its vectors is meant nobody knows.
static cpa_status sort_names(cpa_pert_table *t)
{
    cpa_status st = CPA_OK;
    char ***place = NULL;
    CPA_TRY(cpa_alloc((size_t)t->name.n, sizeof *place, &place));
    CPA_TRY(cpa_alloc((size_t)t->name.n, sizeof *t->sorted, &t->sorted));
    for (int64_t i = 0; i < t->name.n; i++) {
        CPA_REQUIRE(t->name.s[i][0] != '\0', CPA_BAD_DATA,
                    "%s: the vector of row %lld (from 0) belongs to no perturbation: its name is empty", t->path,
                    (long long)i);
        place[i] = &t->name.s[i];
    }
    qsort(place, (size_t)t->name.n, sizeof *place, compare_names);
    for (int64_t i = 0; i < t->name.n; i++) {
        t->sorted[i] = place[i] - t->name.s;
        CPA_REQUIRE(i == 0 || strcmp(*place[i - 1], *place[i]) != 0, CPA_BAD_DATA,
                    "%s: perturbation '%s' has two vectors, in rows %lld and %lld (from 0); keep one", t->path,
                    *place[i], (long long)t->sorted[i - 1], (long long)t->sorted[i]);
    }
cleanup:
    cpa_free(&place);
    return st;
}

// What every rank does for itself: names and sizes.
static cpa_status describe(cpa_pert_table *t, const char *path, const char *group, const cpa_pert_kind **kind,
                           bool *packed)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_strdup(path, &t->path));
    CPA_TRY(find_kind(path, group, kind));
    CPA_TRY((*kind)->describe(t, group, packed));
    CPA_REQUIRE(t->name.n > 0, CPA_BAD_DATA, "%s: holds no vector of a perturbation", path);
    CPA_REQUIRE(t->n_features > 0, CPA_BAD_DATA, "%s: its vectors hold no numbers", path);
    CPA_REQUIRE(t->n_features <= MAX_FEATURES, CPA_BAD_DATA, "%s: its vectors hold %d numbers; at most %d are possible",
                path, t->n_features, MAX_FEATURES);
    CPA_TRY(sort_names(t));
cleanup:
    return st;
}

cpa_status cpa_pert_table_read(cpa_comm *comm, const char *path, const char *group, cpa_pert_table **out)
{
    cpa_status st;
    cpa_pert_table *t = NULL;
    const cpa_pert_kind *kind = NULL;
    bool packed = false, reader = !comm || cpa_comm_node_rank(comm) == 0;
    st = cpa_alloc(1, sizeof *t, &t);
    st = st == CPA_OK ? describe(t, path, group, &kind, &packed) : st;
    CPA_TRY(comm ? cpa_comm_agree(comm, st) : st);
    t->comm = comm;
    t->bytes = (size_t)t->name.n * (packed ? (size_t)(t->n_features + 7) / 8 : (size_t)t->n_features * sizeof(float));
    st = comm ? cpa_comm_shared_alloc(comm, t->bytes, &t->memory) : cpa_alloc(t->bytes, 1, &t->memory);
    CPA_TRY(comm ? cpa_comm_agree(comm, st) : st);
    t->bits = packed ? t->memory : NULL;
    t->value = packed ? NULL : t->memory;
    st = reader ? kind->fill(t, group) : CPA_OK;
    CPA_TRY(comm ? cpa_comm_agree(comm, st) : st);
    CPA_TRY(comm ? cpa_comm_node_barrier(comm) : CPA_OK);
    *out = t;
    t = NULL;
cleanup:
    cpa_pert_table_destroy(&t);
    return st;
}

void cpa_pert_table_destroy(cpa_pert_table **out)
{
    cpa_pert_table *t = *out;
    if (!t) {
        return;
    }
    if (t->comm) {
        cpa_comm_shared_free(t->comm, &t->memory);
    } else {
        cpa_free(&t->memory);
    }
    cpa_strings_fini(&t->name);
    cpa_free(&t->sorted);
    cpa_free(&t->path);
    cpa_free(out);
}

int64_t cpa_pert_table_find(const cpa_pert_table *t, const char *name)
{
    int64_t low = 0, high = t->name.n;
    while (low < high) {
        int64_t mid = low + (high - low) / 2;
        if (strcmp(t->name.s[t->sorted[mid]], name) < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < t->name.n && strcmp(t->name.s[t->sorted[low]], name) == 0 ? t->sorted[low] : -1;
}

void cpa_pert_table_row(const cpa_pert_table *t, int64_t i, float *out)
{
    if (t->value) {
        memcpy(out, t->value + i * t->n_features, (size_t)t->n_features * sizeof *out);
        return;
    }
    const uint8_t *row = t->bits + i * cpa_pert_table_row_bytes(t);
    for (int k = 0; k < t->n_features; k++) {
        out[k] = (float)(row[k / 8] >> (7 - k % 8) & 1);
    }
}

cpa_status cpa_pert_table_expand(const cpa_pert_table *t, const cpa_strings *perts, float *out)
{
    cpa_status st = CPA_OK;
    cpa_text missing = {0};
    int64_t n_missing = 0;
    memset(out, 0, (size_t)perts->n * (size_t)t->n_features * sizeof *out);
    for (int64_t p = 1; p < perts->n; p++) { // 0 is the padding
        int64_t row = cpa_pert_table_find(t, perts->s[p]);
        if (row >= 0) {
            cpa_pert_table_row(t, row, out + p * t->n_features);
        } else if (p == 1) {
            cpa_info("%s: has no vector of the control '%s'; it gets zeros", t->path, perts->s[p]);
        } else if (++n_missing <= MAX_LISTED) {
            CPA_TRY(cpa_text_add(&missing, "%s'%s'", n_missing > 1 ? ", " : "", perts->s[p]));
        }
    }
    CPA_REQUIRE(n_missing == 0, CPA_BAD_DATA,
                "%s: has no vector of %lld of the %lld perturbations of the data: %s%s; add them to the file, or leave "
                "their cells out",
                t->path, (long long)n_missing, (long long)perts->n - 2, cpa_text_str(&missing),
                n_missing > MAX_LISTED ? ", ..." : "");
cleanup:
    cpa_text_fini(&missing);
    return st;
}
