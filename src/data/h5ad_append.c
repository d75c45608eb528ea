// Owns: writing the elements of an AnnData file that are as long as the file has cells, piece by piece.
// Must never hold more than a few megabytes of one.
#include "cpa/data/h5ad_write.h"
#include "h5ad_impl.h"

enum {
    CODES = 1 << 16,    // of a chunk
    POINTERS = 1 << 14, // of a chunk, and turned at once
    BLOCK_ROWS = 64,    // rows that readers take together
    MIN_CHUNK = 1 << 12,
    MAX_CHUNK = 1 << 16,
};

// ---- Categorical columns

struct cpa_h5ad_codes {
    cpa_h5_append *to;
    cpa_h5_type type;
    int32_t *narrow; // [CODES], room for any type
};

cpa_status cpa_h5ad_codes_open(cpa_h5 *f, const char *path, const cpa_strings *level, int gzip, cpa_h5ad_codes **out)
{
    cpa_status st = CPA_OK;
    cpa_h5ad_codes *c = NULL;
    char *codes = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *c, &c));
    CPA_TRY(cpa_alloc(CODES, sizeof *c->narrow, &c->narrow));
    c->type = cpa_h5ad_code_type(level->n);
    CPA_TRY(cpa_h5ad_begin_factor(f, path, level));
    CPA_TRY(cpa_sprintf(&codes, "%s/codes", path));
    CPA_TRY(cpa_h5_append_open(f, codes, c->type, 0, CODES, gzip, &c->to));
    CPA_TRY(cpa_h5ad_encode(f, codes, "array", "0.2.0"));
    *out = c;
    c = NULL;
cleanup:
    cpa_free(&codes);
    cpa_h5ad_codes_close(&c);
    return st;
}

cpa_status cpa_h5ad_codes_add(cpa_h5ad_codes *c, int64_t n, const int32_t *code)
{
    cpa_status st = CPA_OK;
    for (int64_t at = 0; at < n; at += CODES) {
        int64_t take = n - at < CODES ? n - at : CODES;
        cpa_h5ad_narrow(c->type, take, code + at, c->narrow);
        CPA_TRY(cpa_h5_append_rows(c->to, take, c->narrow));
    }
cleanup:
    return st;
}

cpa_status cpa_h5ad_codes_finish(cpa_h5ad_codes **c)
{
    cpa_status st = cpa_h5_append_finish(&(*c)->to);
    cpa_h5ad_codes_close(c);
    return st;
}

void cpa_h5ad_codes_close(cpa_h5ad_codes **c)
{
    if (*c != NULL) {
        cpa_h5_append_close(&(*c)->to);
        cpa_free(&(*c)->narrow);
        cpa_free(c);
    }
}

// ---- Sparse matrices

struct cpa_h5ad_sparse {
    cpa_h5_append *value, *index, *pointer;
    int64_t nnz;
    int64_t *end; // [POINTERS]
};

static cpa_status open_member(cpa_h5 *f, const char *path, const char *name, cpa_h5_type type, int64_t chunk, int gzip,
                              cpa_h5_append **out)
{
    char *member = NULL;
    cpa_status st = cpa_sprintf(&member, "%s/%s", path, name);
    if (st == CPA_OK) {
        st = cpa_h5_append_open(f, member, type, 0, chunk, gzip, out);
    }
    cpa_free(&member);
    return st;
}

cpa_status cpa_h5ad_sparse_open(cpa_h5 *f, const char *path, cpa_layout layout, int64_t n_cells, int64_t n_genes,
                                cpa_h5_type value, int64_t chunk, int gzip, cpa_h5ad_sparse **out)
{
    cpa_status st = CPA_OK;
    cpa_h5ad_sparse *m = NULL;
    int64_t shape[2] = {n_cells, n_genes}, zero = 0;
    CPA_TRY(cpa_alloc(1, sizeof *m, &m));
    CPA_TRY(cpa_alloc(POINTERS, sizeof *m->end, &m->end));
    CPA_TRY(cpa_h5_write_group(f, path));
    CPA_TRY(cpa_h5ad_encode(f, path, layout == CPA_LAYOUT_CSR ? "csr_matrix" : "csc_matrix", "0.1.0"));
    CPA_TRY(cpa_h5_write_attr_numbers(f, path, "shape", CPA_H5_I64, 2, shape));
    CPA_TRY(open_member(f, path, "data", value, chunk, gzip, &m->value));
    CPA_TRY(open_member(f, path, "indices", CPA_H5_I32, chunk, gzip, &m->index));
    CPA_TRY(open_member(f, path, "indptr", CPA_H5_I64, POINTERS, gzip, &m->pointer));
    CPA_TRY(cpa_h5_append_rows(m->pointer, 1, &zero));
    *out = m;
    m = NULL;
cleanup:
    cpa_h5ad_sparse_close(&m);
    return st;
}

cpa_status cpa_h5ad_sparse_add(cpa_h5ad_sparse *m, int64_t n, const int64_t *count, const int32_t *index,
                               const void *value)
{
    cpa_status st = CPA_OK;
    int64_t before = m->nnz;
    for (int64_t at = 0; at < n; at += POINTERS) {
        int64_t take = n - at < POINTERS ? n - at : POINTERS;
        for (int64_t k = 0; k < take; k++) {
            m->end[k] = m->nnz += count[at + k];
        }
        CPA_TRY(cpa_h5_append_rows(m->pointer, take, m->end));
    }
    CPA_TRY(cpa_h5_append_rows(m->index, m->nnz - before, index));
    CPA_TRY(cpa_h5_append_rows(m->value, m->nnz - before, value));
cleanup:
    return st;
}

cpa_status cpa_h5ad_sparse_finish(cpa_h5ad_sparse **m)
{
    cpa_status st;
    CPA_TRY(cpa_h5_append_finish(&(*m)->value));
    CPA_TRY(cpa_h5_append_finish(&(*m)->index));
    CPA_TRY(cpa_h5_append_finish(&(*m)->pointer));
cleanup:
    cpa_h5ad_sparse_close(m);
    return st;
}

void cpa_h5ad_sparse_close(cpa_h5ad_sparse **m)
{
    if (*m != NULL) {
        cpa_h5_append_close(&(*m)->value);
        cpa_h5_append_close(&(*m)->index);
        cpa_h5_append_close(&(*m)->pointer);
        cpa_free(&(*m)->end);
        cpa_free(m);
    }
}

int64_t cpa_h5ad_sparse_chunk(double mean)
{
    int64_t chunk = MIN_CHUNK;
    while (chunk < MAX_CHUNK && (double)chunk * 4 < mean * BLOCK_ROWS) {
        chunk *= 2;
    }
    return chunk;
}
