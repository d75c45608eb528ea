// Owns: reading X and the layers block by block, from CSR, CSC and dense storage, with every index checked.
// Must never hold more than a few megabytes of a matrix, nor judge the counts themselves.
#include <string.h>

#include "h5ad_impl.h"

enum {
    BLOCK = 1 << 16, // values handed on at once
    ROWS = 1 << 16,  // pieces of indptr read at once
};

// A matrix opened for reading. Major is the cell (CSR, dense) or the gene (CSC).
typedef struct matrix {
    cpa_part *f;
    char *path; // "X" or "layers/counts"
    cpa_matrix_info info;
    cpa_h5_data *data, *indices, *indptr; // dense: data alone
    int64_t n_major, n_minor;
} matrix;

// Memory for one block.
typedef struct buffers {
    int64_t *major, *minor, *pointer;
    double *value, *tile;
} buffers;

static cpa_status buffers_init(buffers *b)
{
    cpa_status st;
    *b = (buffers){0};
    CPA_TRY(cpa_alloc(BLOCK, sizeof *b->major, &b->major));
    CPA_TRY(cpa_alloc(BLOCK, sizeof *b->minor, &b->minor));
    CPA_TRY(cpa_alloc(ROWS + 1, sizeof *b->pointer, &b->pointer));
    CPA_TRY(cpa_alloc(BLOCK, sizeof *b->value, &b->value));
    CPA_TRY(cpa_alloc(BLOCK, sizeof *b->tile, &b->tile));
cleanup:
    return st;
}

static void buffers_fini(buffers *b)
{
    cpa_free(&b->major);
    cpa_free(&b->minor);
    cpa_free(&b->pointer);
    cpa_free(&b->value);
    cpa_free(&b->tile);
}

// ---- Opening

static cpa_status missing_matrix(cpa_part *f, const char *layer, const char *path)
{
    if (cpa_h5_is_listed(f->h5, path)) {
        return cpa_fail(CPA_BAD_DATA,
                        "%s: %s is a link that leads nowhere or into another file, which is not read; save the file "
                        "again as a whole",
                        f->path, path);
    }
    cpa_strings layers = {0};
    cpa_text names = {0};
    cpa_status st;
    CPA_TRY(cpa_part_layers(f, &layers));
    if (cpa_h5_kind_of(f->h5, "raw/X") != CPA_H5_NOTHING && cpa_strings_find(&layers, "raw") < 0) {
        CPA_TRY(cpa_strings_add(&layers, "raw"));
    }
    CPA_TRY(cpa_h5ad_add_names(&names, &layers, layer));
    st = layer != NULL ? cpa_fail(CPA_BAD_DATA, "%s: there is no layer '%s'; the layers are: %s", f->path, layer,
                                  cpa_text_str(&names))
                       : cpa_fail(CPA_BAD_DATA, "%s: there is no X; choose a layer: %s", f->path, cpa_text_str(&names));
cleanup:
    cpa_text_fini(&names);
    cpa_strings_fini(&layers);
    return st;
}

// The layout from the encoding, also that of the oldest files.
static cpa_status find_layout(matrix *m)
{
    const cpa_h5 *h5 = m->f->h5;
    char *name = NULL;
    cpa_status st;
    CPA_TRY(cpa_h5ad_check_version(h5, m->path));
    CPA_TRY(cpa_h5_has_attr(h5, m->path, "h5sparse_format") ? cpa_h5_attr_string(h5, m->path, "h5sparse_format", &name)
                                                            : cpa_h5ad_encoding(h5, m->path, &name));
    bool group = cpa_h5_kind_of(h5, m->path) == CPA_H5_GROUP;
    if (group && (strcmp(name, "csr_matrix") == 0 || strcmp(name, "csr") == 0)) {
        m->info.layout = CPA_LAYOUT_CSR;
    } else if (group && (strcmp(name, "csc_matrix") == 0 || strcmp(name, "csc") == 0)) {
        m->info.layout = CPA_LAYOUT_CSC;
    } else if (!group && (strcmp(name, "array") == 0 || name[0] == '\0')) {
        m->info.layout = CPA_LAYOUT_DENSE;
    } else {
        st = cpa_fail(CPA_BAD_DATA,
                      "%s: %s has the encoding '%s'; a csr_matrix, a csc_matrix or a dense array is needed", m->f->path,
                      m->path, name);
    }
cleanup:
    cpa_free(&name);
    return st;
}

// The shape as the file states it.
static cpa_status stated_shape(const matrix *m, int64_t shape[2])
{
    if (m->info.layout == CPA_LAYOUT_DENSE) {
        const cpa_h5_info *info = cpa_h5_data_info(m->data);
        if (info->rank != 2) {
            return cpa_fail(CPA_BAD_DATA, "%s: %s has %d dimensions, two are needed", m->f->path, m->path, info->rank);
        }
        memcpy(shape, info->shape, 2 * sizeof *shape);
        return CPA_OK;
    }
    int n = 0;
    const char *name = cpa_h5_has_attr(m->f->h5, m->path, "h5sparse_shape") ? "h5sparse_shape" : "shape";
    cpa_status st = cpa_h5_attr_numbers(m->f->h5, m->path, name, CPA_H5_I64, 2, shape, &n);
    if (st == CPA_OK && n != 2) {
        st = cpa_fail(CPA_BAD_DATA, "%s: attribute '%s' of %s has %d elements instead of two", m->f->path, name,
                      m->path, n);
    }
    return st;
}

static cpa_status open_part(const matrix *m, const char *name, bool integers, cpa_h5_data **out)
{
    cpa_status st;
    char *path = NULL;
    CPA_TRY(name != NULL ? cpa_sprintf(&path, "%s/%s", m->path, name) : cpa_strdup(m->path, &path));
    CPA_TRY(cpa_h5_data_open(m->f->h5, path, NULL, out));
    const cpa_h5_info *info = cpa_h5_data_info(*out);
    bool good = info->class == CPA_H5_CLASS_INT ||
                (!integers && (info->class == CPA_H5_CLASS_FLOAT || info->class == CPA_H5_CLASS_BOOL));
    CPA_REQUIRE(good && (name == NULL || info->rank == 1), CPA_BAD_DATA,
                "%s: %s should hold %s, but has type %s and rank %d", m->f->path, path,
                integers ? "integers" : "numbers", info->dtype, info->rank);
cleanup:
    cpa_free(&path);
    return st;
}

static cpa_status check_lengths(const matrix *m)
{
    int64_t n_data = cpa_h5_data_info(m->data)->n, n_indices = cpa_h5_data_info(m->indices)->n;
    int64_t n_pointers = cpa_h5_data_info(m->indptr)->n;
    if (n_data != n_indices) {
        return cpa_fail(CPA_BAD_DATA, "%s: %s/data has %lld elements, but %s/indices has %lld", m->f->path, m->path,
                        (long long)n_data, m->path, (long long)n_indices);
    }
    if (n_pointers != m->n_major + 1) {
        return cpa_fail(CPA_BAD_DATA, "%s: %s/indptr has %lld elements, %lld are needed for %lld %s", m->f->path,
                        m->path, (long long)n_pointers, (long long)m->n_major + 1, (long long)m->n_major,
                        m->info.layout == CPA_LAYOUT_CSR ? "cells" : "genes");
    }
    return CPA_OK;
}

static void close_matrix(matrix *m)
{
    cpa_h5_data_close(&m->data);
    cpa_h5_data_close(&m->indices);
    cpa_h5_data_close(&m->indptr);
    cpa_free(&m->path);
}

cpa_status cpa_part_matrix_path(const cpa_part *f, const char *layer, char **out)
{
    bool in_layer = layer != NULL && strcmp(f->x, "X") == 0;
    return in_layer ? cpa_sprintf(out, "layers/%s", layer) : cpa_strdup(f->x, out);
}

// Opens and checks all that can be told without reading values. The caller closes it also on failure.
static cpa_status open_matrix(cpa_part *f, const char *layer, matrix *m)
{
    cpa_status st;
    int64_t shape[2];
    *m = (matrix){.f = f};
    CPA_TRY(cpa_part_matrix_path(f, layer, &m->path));
    if (cpa_h5_kind_of(f->h5, m->path) == CPA_H5_NOTHING) {
        return missing_matrix(f, layer, m->path);
    }
    CPA_TRY(find_layout(m));
    bool sparse = m->info.layout != CPA_LAYOUT_DENSE;
    CPA_TRY(open_part(m, sparse ? "data" : NULL, false, &m->data));
    CPA_TRY(stated_shape(m, shape));
    CPA_REQUIRE(shape[0] == f->n_cells && shape[1] == f->n_stored, CPA_BAD_DATA,
                "%s: %s is %lld x %lld, but obs and %s make it %lld cells x %lld genes", f->path, m->path,
                (long long)shape[0], (long long)shape[1], f->var, (long long)f->n_cells, (long long)f->n_stored);
    m->n_major = m->info.layout == CPA_LAYOUT_CSC ? f->n_stored : f->n_cells;
    m->n_minor = m->info.layout == CPA_LAYOUT_CSC ? f->n_cells : f->n_stored;
    if (sparse) {
        CPA_TRY(open_part(m, "indices", true, &m->indices));
        CPA_TRY(open_part(m, "indptr", true, &m->indptr));
        CPA_TRY(check_lengths(m));
    }
    const cpa_h5_info *info = cpa_h5_data_info(m->data);
    m->info.n_cells = f->n_cells;
    m->info.n_genes = f->n_genes;
    m->info.nnz = info->n;
    memcpy(m->info.dtype, info->dtype, sizeof m->info.dtype);
    memcpy(m->info.filters, info->filters, sizeof m->info.filters);
    m->info.chunk = info->chunked ? info->chunk[0] * (sparse ? 1 : info->chunk[1]) : 0;
cleanup:
    return st;
}

cpa_status cpa_part_matrix_info(cpa_part *f, const char *layer, cpa_matrix_info *out)
{
    matrix m;
    cpa_status st = open_matrix(f, layer, &m);
    *out = m.info;
    close_matrix(&m);
    return st;
}

// ---- Sparse

// Says so when an element of indptr looks like a known fault of older writers.
static const char *overflow_hint(int64_t pointer)
{
    return pointer < 0 || pointer == INT32_MAX ? " (32-bit overflow of the program that wrote it: write the file again)"
                                               : "";
}

// Reads indptr[row .. row+n] and checks it.
static cpa_status read_pointers(const matrix *m, int64_t row, int64_t n, int64_t *out)
{
    cpa_status st;
    int64_t count = n + 1;
    const char *file = m->f->path, *what = m->info.layout == CPA_LAYOUT_CSR ? "cell row" : "gene column";
    CPA_TRY(cpa_h5_data_read(m->indptr, CPA_H5_I64, &row, &count, out));
    CPA_REQUIRE(row > 0 || out[0] == 0, CPA_BAD_DATA, "%s: %s/indptr begins with %lld instead of 0", file, m->path,
                (long long)out[0]);
    for (int64_t i = 0; i < n; i++) {
        CPA_REQUIRE(out[i] >= 0 && out[i] <= out[i + 1], CPA_BAD_DATA,
                    "%s: %s/indptr falls from %lld to %lld at %s %lld%s", file, m->path, (long long)out[i],
                    (long long)out[i + 1], what, (long long)(row + i), overflow_hint(out[i + 1]));
        CPA_REQUIRE(out[i + 1] <= m->info.nnz, CPA_BAD_DATA,
                    "%s: %s/indptr points to %lld at %s %lld, but %s/data has %lld elements%s", file, m->path,
                    (long long)out[i + 1], what, (long long)(row + i), m->path, (long long)m->info.nnz,
                    overflow_hint(out[i + 1]));
    }
    CPA_REQUIRE(row + n < m->n_major || out[n] == m->info.nnz, CPA_BAD_DATA,
                "%s: %s/indptr ends with %lld, but %s/data has %lld elements", file, m->path, (long long)out[n],
                m->path, (long long)m->info.nnz);
cleanup:
    return st;
}

static cpa_status check_minors(const matrix *m, int64_t n, const int64_t *major, const int64_t *minor)
{
    uint64_t limit = (uint64_t)m->n_minor, worst = 0;
    for (int64_t i = 0; i < n; i++) {
        worst = (uint64_t)minor[i] > worst ? (uint64_t)minor[i] : worst; // negative ones are huge
    }
    for (int64_t i = 0; worst >= limit && i < n; i++) {
        if ((uint64_t)minor[i] >= limit) {
            bool csr = m->info.layout == CPA_LAYOUT_CSR;
            return cpa_fail(CPA_BAD_DATA,
                            "%s: %s/indices: %s %lld has the %s index %lld, but indices go from 0 to %lld", m->f->path,
                            m->path, csr ? "cell row" : "gene column", (long long)major[i], csr ? "gene" : "cell",
                            (long long)minor[i], (long long)m->n_minor - 1);
        }
    }
    return CPA_OK;
}

// Keeps the values of cells [first, last) of a CSC block; their number.
static int64_t keep_cells(int64_t n, buffers *b, int64_t first, int64_t last)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t cell = b->minor[i];
        b->major[kept] = b->major[i];
        b->minor[kept] = cell;
        b->value[kept] = b->value[i];
        kept += cell >= first && cell < last;
    }
    return kept;
}

// Keeps the values of selected genes, under their places in the selection; their number.
static int64_t keep_genes(const matrix *m, int64_t n, buffers *b)
{
    const int32_t *place = m->f->genes != NULL ? m->f->genes->place : NULL;
    int64_t *gene = m->info.layout == CPA_LAYOUT_CSC ? b->major : b->minor, kept = 0;
    for (int64_t i = 0; place != NULL && i < n; i++) {
        int64_t at = place[gene[i]], major = b->major[i], minor = b->minor[i];
        b->major[kept] = major;
        b->minor[kept] = minor;
        b->value[kept] = b->value[i];
        gene[kept] = at;
        kept += at >= 0;
    }
    return place != NULL ? kept : n;
}

// Writes the major of the values [at, at + n) into b->major; pointer[0] belongs to `row`, *r is the row in hand.
static void fill_majors(buffers *b, int64_t row, int64_t at, int64_t n, int64_t *r)
{
    for (int64_t i = 0; i < n; (*r)++) {
        int64_t end = b->pointer[*r + 1] - at < n ? b->pointer[*r + 1] - at : n;
        for (; i < end; i++) {
            b->major[i] = row + *r;
        }
        if (b->pointer[*r + 1] - at > n) {
            return; // goes on in the next block
        }
    }
}

// Hands on what is used of n values, with cells as the data set counts them.
static cpa_status hand_on(const matrix *m, buffers *b, int64_t n, cpa_use_block use, void *ctx)
{
    bool csc = m->info.layout == CPA_LAYOUT_CSC;
    int64_t *cell = csc ? b->minor : b->major, *gene = csc ? b->major : b->minor;
    n = keep_genes(m, n, b);
    for (int64_t i = 0; m->f->first > 0 && i < n; i++) {
        cell[i] += m->f->first;
    }
    return use(ctx, &(cpa_h5ad_block){n, cell, gene, b->value});
}

static cpa_status scan_sparse(const matrix *m, buffers *b, int64_t first, int64_t last, cpa_use_block use, void *ctx)
{
    cpa_status st = CPA_OK;
    bool csr = m->info.layout == CPA_LAYOUT_CSR;
    int64_t begin = csr ? first : 0, end = csr ? last : m->n_major;
    for (int64_t row = begin; row < end; row += ROWS) {
        int64_t rows = end - row < ROWS ? end - row : ROWS, r = 0, n;
        CPA_TRY(read_pointers(m, row, rows, b->pointer));
        for (int64_t at = b->pointer[0]; at < b->pointer[rows]; at += n) {
            n = b->pointer[rows] - at < BLOCK ? b->pointer[rows] - at : BLOCK;
            CPA_TRY(cpa_h5_data_read(m->indices, CPA_H5_I64, &at, &n, b->minor));
            CPA_TRY(cpa_h5_data_read(m->data, CPA_H5_F64, &at, &n, b->value));
            fill_majors(b, row, at, n, &r);
            CPA_TRY(check_minors(m, n, b->major, b->minor));
            CPA_TRY(hand_on(m, b, csr ? n : keep_cells(n, b, first, last), use, ctx));
        }
    }
cleanup:
    return st;
}

// ---- Dense

// Hands on the nonzero values of a rectangle, at most BLOCK elements at a time.
static cpa_status scan_rectangle(const matrix *m, buffers *b, const int64_t from[2], const int64_t to[2],
                                 cpa_use_block use, void *ctx)
{
    cpa_status st = CPA_OK;
    int64_t width = to[1] - from[1] < BLOCK ? to[1] - from[1] : BLOCK, height = BLOCK / width;
    for (int64_t row = from[0]; row < to[0]; row += height) {
        for (int64_t col = from[1]; col < to[1]; col += width) {
            int64_t count[2] = {to[0] - row < height ? to[0] - row : height, to[1] - col < width ? to[1] - col : width};
            int64_t n = 0;
            CPA_TRY(cpa_h5_data_read(m->data, CPA_H5_F64, (const int64_t[]){row, col}, count, b->tile));
            for (int64_t i = 0; i < count[0]; i++) {
                const double *v = b->tile + i * count[1];
                for (int64_t j = 0; j < count[1]; j++) {
                    b->major[n] = row + i;
                    b->minor[n] = col + j;
                    b->value[n] = v[j];
                    n += v[j] != 0;
                }
            }
            CPA_TRY(hand_on(m, b, n, use, ctx));
        }
    }
cleanup:
    return st;
}

// Goes through the matrix in bands of whole chunks, so that no chunk is unpacked twice.
static cpa_status scan_dense(const matrix *m, buffers *b, int64_t first, int64_t last, cpa_use_block use, void *ctx)
{
    cpa_status st = CPA_OK;
    const cpa_h5_info *info = cpa_h5_data_info(m->data);
    int64_t height = info->chunked ? info->chunk[0] : ROWS, width = info->chunked ? info->chunk[1] : m->n_minor;
    if (height * width < BLOCK) { // several small chunks side by side
        width *= BLOCK / (height * width);
    }
    for (int64_t row = first, end; row < last; row = end) {
        end = (row / height + 1) * height < last ? (row / height + 1) * height : last;
        for (int64_t col = 0; col < m->n_minor; col += width) {
            int64_t right = m->n_minor - col < width ? m->n_minor : col + width;
            CPA_TRY(scan_rectangle(m, b, (const int64_t[]){row, col}, (const int64_t[]){end, right}, use, ctx));
        }
    }
cleanup:
    return st;
}

cpa_status cpa_part_scan(cpa_part *f, const char *layer, int64_t first, int64_t last, cpa_use_block use, void *ctx)
{
    matrix m;
    buffers b = {0};
    cpa_status st = open_matrix(f, layer, &m);
    if (st != CPA_OK) {
        goto cleanup;
    }
    CPA_REQUIRE(first >= 0 && first <= last && last <= f->n_cells, CPA_INTERNAL, "%s: cells %lld to %lld of %lld",
                f->path, (long long)first, (long long)last, (long long)f->n_cells);
    CPA_TRY(buffers_init(&b));
    CPA_TRY(m.info.layout == CPA_LAYOUT_DENSE ? scan_dense(&m, &b, first, last, use, ctx)
                                              : scan_sparse(&m, &b, first, last, use, ctx));
cleanup:
    buffers_fini(&b);
    close_matrix(&m);
    return st;
}

// ---- Counting

typedef struct counter {
    int64_t first, *count;
} counter;

static cpa_status count_block(void *ctx, const cpa_h5ad_block *block)
{
    const counter *c = ctx;
    for (int64_t i = 0; i < block->n; i++) {
        c->count[block->cell[i] - c->first]++;
    }
    return CPA_OK;
}

static cpa_status count_pointers(const matrix *m, int64_t first, int64_t last, int64_t *count)
{
    cpa_status st;
    buffers b = {0};
    CPA_TRY(buffers_init(&b));
    for (int64_t row = first; row < last; row += ROWS) {
        int64_t rows = last - row < ROWS ? last - row : ROWS;
        CPA_TRY(read_pointers(m, row, rows, b.pointer));
        for (int64_t i = 0; i < rows; i++) {
            count[row - first + i] = b.pointer[i + 1] - b.pointer[i];
        }
    }
cleanup:
    buffers_fini(&b);
    return st;
}

cpa_status cpa_part_count(cpa_part *f, const char *layer, int64_t first, int64_t last, int64_t *count)
{
    matrix m;
    cpa_status st = open_matrix(f, layer, &m);
    if (st == CPA_OK && m.info.layout == CPA_LAYOUT_CSR && f->genes == NULL) {
        st = count_pointers(&m, first, last, count);
    } else if (st == CPA_OK) {
        counter c = {f->first + first, count};
        memset(count, 0, (size_t)(last - first) * sizeof *count);
        st = cpa_part_scan(f, layer, first, last, count_block, &c);
    }
    close_matrix(&m);
    return st;
}

cpa_status cpa_part_count_stored(cpa_part *f, const char *layer, int64_t first, int64_t last, int64_t *count)
{
    matrix m;
    cpa_status st = open_matrix(f, layer, &m);
    if (st == CPA_OK) {
        st = count_pointers(&m, first, last, count);
    }
    close_matrix(&m);
    return st;
}

// ---- Raw

cpa_status cpa_part_raw_open(cpa_part *f, const char *layer, cpa_matrix_info *info, cpa_h5ad_raw_part *out,
                             const char **why)
{
    matrix m;
    cpa_status st = open_matrix(f, layer, &m);
    *out = (cpa_h5ad_raw_part){.file = f->path, .first = f->first, .n_cells = f->n_cells, .n_stored = f->n_stored};
    if (st != CPA_OK) {
        goto cleanup;
    }
    *info = m.info;
    *why = "it is stored gene by gene (CSC)";
    if (m.info.layout == CPA_LAYOUT_CSC) {
        goto cleanup;
    }
    out->dense = m.info.layout == CPA_LAYOUT_DENSE;
    out->place = f->genes != NULL ? f->genes->place : NULL;
    CPA_TRY(cpa_strdup(m.path, &out->path));
    CPA_TRY(cpa_chunks_open(m.data, &out->data, why));
    if (out->data != NULL && !out->dense) {
        CPA_TRY(cpa_chunks_open(m.indices, &out->indices, why));
        if (out->indices == NULL) {
            cpa_chunks_close(&out->data);
        }
    }
cleanup:
    close_matrix(&m);
    return st;
}

void cpa_part_raw_fini(cpa_h5ad_raw_part *raw)
{
    cpa_chunks_close(&raw->data);
    cpa_chunks_close(&raw->indices);
    cpa_free(&raw->path);
}
