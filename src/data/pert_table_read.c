// Owns: the three kinds of files that hold vectors of perturbations. Never looks a name up, never decides who reads.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpa/base/text.h"
#include "cpa/data/h5ad.h"
#include "cpa/platform/h5.h"
#include "pert_table_impl.h"

enum { BLOCK = 4096 }; // numbers that are read at once, at least a row

// ---- HDF5: names, and vectors or bits

static cpa_status member(const char *group, const char *name, char **out)
{
    return cpa_sprintf(out, "%s%s%s", group ? group : "", group ? "/" : "", name);
}

static cpa_status number_of_bits(const cpa_h5 *f, const char *bits, int64_t n_bytes, int *n)
{
    cpa_status st = CPA_OK;
    int64_t said = 8 * n_bytes;
    int count = 1;
    if (cpa_h5_has_attr(f, bits, "n_bits")) {
        CPA_TRY(cpa_h5_attr_numbers(f, bits, "n_bits", CPA_H5_I64, 1, &said, &count));
    }
    CPA_REQUIRE(count == 1 && said <= 8 * n_bytes && said > 8 * (n_bytes - 1), CPA_BAD_DATA,
                "%s: '%s' has rows of %lld bytes, but its attribute n_bits is %lld; %lld to %lld bits are possible",
                cpa_h5_path(f), bits, (long long)n_bytes, (long long)said, (long long)(8 * n_bytes - 7),
                (long long)(8 * n_bytes));
    *n = (int)said;
cleanup:
    return st;
}

static cpa_status describe_matrix(cpa_pert_table *t, const cpa_h5 *f, const char *matrix, bool packed)
{
    cpa_status st = CPA_OK;
    cpa_h5_info info;
    CPA_TRY(cpa_h5_describe(f, matrix, &info));
    bool numbers =
        packed ? strcmp(info.dtype, "uint8") == 0 : info.class == CPA_H5_CLASS_FLOAT || info.class == CPA_H5_CLASS_INT;
    CPA_REQUIRE(numbers && info.rank == 2, CPA_BAD_DATA, "%s: '%s' must be a matrix of %s, not %d-dimensional %s",
                t->path, matrix, packed ? "uint8 (numpy.packbits)" : "numbers", info.rank, info.dtype);
    CPA_REQUIRE(info.shape[0] == t->name.n, CPA_BAD_DATA, "%s: '%s' has %lld rows for %lld names", t->path, matrix,
                (long long)info.shape[0], (long long)t->name.n);
    CPA_REQUIRE(info.shape[1] <= INT32_MAX / 8, CPA_BAD_DATA, "%s: '%s' has %lld columns", t->path, matrix,
                (long long)info.shape[1]);
    t->n_features = (int)info.shape[1];
    if (packed && info.shape[1] > 0) {
        CPA_TRY(number_of_bits(f, matrix, info.shape[1], &t->n_features));
    }
cleanup:
    return st;
}

static cpa_status describe_hdf5(cpa_pert_table *t, const char *group, bool *packed)
{
    cpa_status st = CPA_OK;
    cpa_h5 *f = NULL;
    char *names = NULL, *vectors = NULL, *bits = NULL;
    CPA_TRY(member(group, "names", &names));
    CPA_TRY(member(group, "vectors", &vectors));
    CPA_TRY(member(group, "bits", &bits));
    CPA_TRY(cpa_h5_open(t->path, &f));
    CPA_TRY(cpa_h5_read_strings(f, names, &t->name));
    *packed = cpa_h5_kind_of(f, bits) == CPA_H5_DATASET;
    CPA_REQUIRE(*packed != (cpa_h5_kind_of(f, vectors) == CPA_H5_DATASET), CPA_BAD_DATA,
                "%s: has %s of the datasets '%s' and '%s' beside '%s'; it must have one", t->path,
                *packed ? "both" : "none", vectors, bits, names);
    CPA_TRY(describe_matrix(t, f, *packed ? bits : vectors, *packed));
cleanup:
    cpa_h5_close(&f);
    cpa_free(&names);
    cpa_free(&vectors);
    cpa_free(&bits);
    return st;
}

// Rows [first, first + n) as floats.
static cpa_status fill_floats(cpa_pert_table *t, const cpa_h5_data *d, int64_t first, int64_t n)
{
    cpa_status st = CPA_OK;
    float *to = (float *)t->memory + first * t->n_features;
    CPA_TRY(cpa_h5_data_read(d, CPA_H5_F32, (int64_t[]){first, 0}, (int64_t[]){n, t->n_features}, to));
    for (int64_t i = 0; i < n * t->n_features; i++) {
        CPA_TRY(cpa_pert_table_check(t, first + i / t->n_features, i % t->n_features, to[i]));
    }
cleanup:
    return st;
}

// Rows [first, first + n) of bytes, by way of `wide`; bits behind the last one become 0.
static cpa_status fill_bits(cpa_pert_table *t, const cpa_h5_data *d, int64_t first, int64_t n, int64_t *wide)
{
    cpa_status st = CPA_OK;
    int64_t bytes = cpa_pert_table_row_bytes(t), behind = 8 * bytes - t->n_features;
    uint8_t *to = (uint8_t *)t->memory + first * bytes;
    CPA_TRY(cpa_h5_data_read(d, CPA_H5_I64, (int64_t[]){first, 0}, (int64_t[]){n, bytes}, wide));
    for (int64_t i = 0; i < n * bytes; i++) {
        to[i] = (uint8_t)((i + 1) % bytes == 0 ? wide[i] >> behind << behind : wide[i]);
    }
cleanup:
    return st;
}

static cpa_status fill_hdf5(cpa_pert_table *t, const char *group)
{
    cpa_status st = CPA_OK;
    cpa_h5 *f = NULL;
    cpa_h5_data *d = NULL;
    char *matrix = NULL;
    int64_t *wide = NULL, width = t->bits ? cpa_pert_table_row_bytes(t) : t->n_features;
    int64_t rows = width < BLOCK ? BLOCK / width : 1;
    CPA_TRY(member(group, t->bits ? "bits" : "vectors", &matrix));
    CPA_TRY(cpa_h5_open(t->path, &f));
    CPA_TRY(cpa_h5_data_open(f, matrix, NULL, &d));
    CPA_TRY(cpa_alloc(t->bits ? (size_t)(rows * width) : 0, sizeof *wide, &wide));
    for (int64_t first = 0; first < t->name.n; first += rows) {
        int64_t n = t->name.n - first < rows ? t->name.n - first : rows;
        CPA_TRY(t->bits ? fill_bits(t, d, first, n, wide) : fill_floats(t, d, first, n));
    }
cleanup:
    cpa_h5_data_close(&d);
    cpa_h5_close(&f);
    cpa_free(&matrix);
    cpa_free(&wide);
    return st;
}

const cpa_pert_kind cpa_pert_kind_hdf5 = {describe_hdf5, fill_hdf5};

// ---- .h5ad: the index of obs, and X

static cpa_status describe_h5ad(cpa_pert_table *t, const char *group, bool *packed)
{
    (void)group;
    cpa_status st = CPA_OK;
    cpa_h5ad *f = NULL;
    cpa_matrix_info info;
    *packed = false;
    CPA_TRY(cpa_h5ad_open(t->path, &f));
    CPA_TRY(cpa_h5ad_index(f, "obs", &t->name));
    CPA_TRY(cpa_h5ad_matrix_info(f, NULL, &info));
    CPA_REQUIRE(info.n_genes <= INT32_MAX, CPA_BAD_DATA, "%s: X has %lld columns", t->path, (long long)info.n_genes);
    t->n_features = (int)info.n_genes;
cleanup:
    cpa_h5ad_close(&f);
    return st;
}

static cpa_status take_block(void *ctx, const cpa_h5ad_block *b)
{
    cpa_status st = CPA_OK;
    cpa_pert_table *t = ctx;
    float *to = t->memory;
    for (int64_t i = 0; i < b->n; i++) {
        float *x = &to[b->cell[i] * t->n_features + b->gene[i]];
        *x += (float)b->value[i]; // an entry that is there twice is a sum, as everywhere
        CPA_TRY(cpa_pert_table_check(t, b->cell[i], b->gene[i], *x));
    }
cleanup:
    return st;
}

static cpa_status fill_h5ad(cpa_pert_table *t, const char *group)
{
    (void)group;
    cpa_status st = CPA_OK;
    cpa_h5ad *f = NULL;
    CPA_TRY(cpa_h5ad_open(t->path, &f));
    CPA_TRY(cpa_h5ad_scan(f, NULL, 0, t->name.n, take_block, t));
cleanup:
    cpa_h5ad_close(&f);
    return st;
}

const cpa_pert_kind cpa_pert_kind_h5ad = {describe_h5ad, fill_h5ad};

// ---- CSV: a header line, then a name and its numbers a line

// Calls `use` with every record behind the header: its number among them, its line, its name and what follows the name (NULL: nothing).
static cpa_status each_record(cpa_pert_table *t, cpa_status (*use)(cpa_pert_table *t, int64_t row, int64_t line,
                                                                   const char *name, const char *rest))
{
    cpa_status st = CPA_OK;
    cpa_text name = {0};
    char *line = NULL;
    size_t room = 0;
    int64_t row = -1;
    FILE *file = fopen(t->path, "r");
    CPA_REQUIRE(file, CPA_NO_INPUT, "cannot read '%s': %s", t->path, strerror(errno));
    for (int64_t number = 0; cpa_text_line(file, &line, &room, &number);) {
        line[strcspn(line, "\r\n")] = '\0';
        const char *rest = line;
        if (line[strspn(line, " \t")] == '\0') {
            continue;
        }
        cpa_text_fini(&name);
        st = cpa_csv_field(&rest, &name);
        CPA_REQUIRE(st == CPA_OK, st, "%s, line %lld: %s", t->path, (long long)number, cpa_message());
        CPA_TRY(use(t, row++, number, cpa_text_str(&name), rest));
    }
    CPA_REQUIRE(!ferror(file), CPA_IO, "cannot read '%s': %s", t->path, strerror(errno));
cleanup:
    if (file) {
        fclose(file);
    }
    free(line);
    cpa_text_fini(&name);
    return st;
}

// The header (row -1) says how many numbers there are; the other records are names.
static cpa_status take_name(cpa_pert_table *t, int64_t row, int64_t line, const char *name, const char *rest)
{
    cpa_status st = CPA_OK;
    cpa_text field = {0};
    if (row >= 0) {
        return cpa_strings_add(&t->name, name);
    }
    while (rest) {
        cpa_text_fini(&field);
        CPA_TRY(cpa_csv_field(&rest, &field));
        t->n_features++;
    }
    CPA_REQUIRE(t->n_features > 0, CPA_BAD_DATA,
                "%s, line %lld: the header has one column; it must have one of names and then columns of numbers, "
                "separated by commas",
                t->path, (long long)line);
cleanup:
    cpa_text_fini(&field);
    return st;
}

static cpa_status describe_csv(cpa_pert_table *t, const char *group, bool *packed)
{
    (void)group;
    *packed = false;
    return each_record(t, take_name);
}

static cpa_status take_numbers(cpa_pert_table *t, int64_t row, int64_t line, const char *name, const char *rest)
{
    cpa_status st = CPA_OK;
    int n = 0;
    if (row < 0) {
        return CPA_OK;
    }
    CPA_REQUIRE(row < t->name.n, CPA_IO, "%s changed while it was read; try again", t->path);
    float *to = (float *)t->memory + row * t->n_features;
    for (const char *p = rest; p; n++) {
        char *end;
        float value = strtof(p, &end);
        bool number = end != p;
        end += strspn(end, " \t");
        CPA_REQUIRE(number && (*end == ',' || *end == '\0'), CPA_BAD_DATA,
                    "%s, line %lld: number %d of perturbation '%s' is '%.*s', which is no number", t->path,
                    (long long)line, n, name, (int)strcspn(p, ","), p);
        CPA_TRY(cpa_pert_table_check(t, row, n, value));
        if (n < t->n_features) {
            to[n] = value;
        }
        p = *end == ',' ? end + 1 : NULL;
    }
    CPA_REQUIRE(n == t->n_features, CPA_BAD_DATA,
                "%s, line %lld: perturbation '%s' has %d numbers under a header of %d", t->path, (long long)line, name,
                n, t->n_features);
cleanup:
    return st;
}

static cpa_status fill_csv(cpa_pert_table *t, const char *group)
{
    (void)group;
    return each_record(t, take_numbers);
}

const cpa_pert_kind cpa_pert_kind_csv = {describe_csv, fill_csv};
