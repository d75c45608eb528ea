// Owns: comparing two files of predictions, condition by condition. Never reads a model.
#include <math.h>
#include <string.h>

#include "compare_impl.h"
#include "cpa/app/scores.h"
#include "cpa/data/h5ad.h"

// Means by condition (group and dose) of one file.
typedef struct side {
    cpa_h5ad *file;
    cpa_strings row, gene;
    cpa_factor group, dose;
    double *mean; // [n_conditions, n_genes] sums at first
    int64_t n_genes;
    const int32_t *condition_of; // borrowed
    bool negative;               // some value is
} side;

static cpa_status open_side(side *s, const char *path)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_h5ad_open(path, &s->file));
    CPA_REQUIRE(cpa_h5ad_has_column(s->file, "obs", "group") && cpa_h5ad_has_column(s->file, "obs", "dose"),
                CPA_BAD_DATA, "%s: no file of predictions: obs lacks the columns group and dose that predict writes",
                path);
    s->n_genes = cpa_h5ad_n_genes(s->file);
    CPA_TRY(cpa_h5ad_index(s->file, "obs", &s->row));
    CPA_TRY(cpa_h5ad_index(s->file, "var", &s->gene));
    CPA_TRY(cpa_h5ad_factor(s->file, "obs", "group", &s->group));
    CPA_TRY(cpa_h5ad_factor(s->file, "obs", "dose", &s->dose));
cleanup:
    return st;
}

static void close_side(side *s)
{
    cpa_strings_fini(&s->row);
    cpa_strings_fini(&s->gene);
    cpa_factor_fini(&s->group);
    cpa_factor_fini(&s->dose);
    cpa_free(&s->mean);
    cpa_h5ad_close(&s->file);
}

static cpa_status check_names(const side *a, const side *b, const cpa_strings *x, const cpa_strings *y,
                              const char *what)
{
    cpa_status st = CPA_OK;
    const char *pa = cpa_h5ad_path(a->file), *pb = cpa_h5ad_path(b->file);
    CPA_REQUIRE(x->n == y->n, CPA_BAD_DATA,
                "%s has %lld %ss, %s has %lld; compare predictions of the same cells and genes", pa, (long long)x->n,
                what, pb, (long long)y->n);
    for (int64_t i = 0; i < x->n; i++) {
        CPA_REQUIRE(strcmp(x->s[i], y->s[i]) == 0, CPA_BAD_DATA,
                    "%s %lld is '%s' in %s, but '%s' in %s; compare predictions of the same cells and genes", what,
                    (long long)i, x->s[i], pa, y->s[i], pb);
    }
cleanup:
    return st;
}

static const char *level(const cpa_factor *f, int64_t row)
{
    return f->code[row] >= 0 ? f->level.s[f->code[row]] : "";
}

static cpa_status check_conditions(const side *a, const side *b)
{
    cpa_status st = CPA_OK;
    for (int64_t i = 0; i < a->row.n; i++) {
        CPA_REQUIRE(strcmp(level(&a->group, i), level(&b->group, i)) == 0 &&
                        strcmp(level(&a->dose, i), level(&b->dose, i)) == 0,
                    CPA_BAD_DATA, "row %lld ('%s') is predicted as '%s' at dose '%s' in %s, but as '%s' at '%s' in %s",
                    (long long)i, a->row.s[i], level(&a->group, i), level(&a->dose, i), cpa_h5ad_path(a->file),
                    level(&b->group, i), level(&b->dose, i), cpa_h5ad_path(b->file));
    }
cleanup:
    return st;
}

// Numbers the pairs of group and dose, and counts their rows.
static cpa_status number_conditions(const side *s, int32_t *of, int64_t *count, int32_t *n)
{
    cpa_status st = CPA_OK;
    int64_t doses = s->dose.level.n + 1;
    int32_t *number = NULL;
    *n = 0;
    CPA_TRY(cpa_alloc((size_t)((s->group.level.n + 1) * doses), sizeof *number, &number));
    for (int64_t i = 0; i < s->row.n; i++) {
        int32_t *at = &number[(s->group.code[i] + 1) * doses + s->dose.code[i] + 1];
        if (*at == 0) {
            *at = ++*n;
        }
        of[i] = *at - 1;
        count[of[i]]++;
    }
cleanup:
    cpa_free(&number);
    return st;
}

static cpa_status add_block(void *ctx, const cpa_h5ad_block *block)
{
    side *s = ctx;
    for (int64_t i = 0; i < block->n; i++) {
        s->mean[s->condition_of[block->cell[i]] * s->n_genes + block->gene[i]] += block->value[i];
        s->negative = s->negative || block->value[i] < 0;
    }
    return CPA_OK;
}

static cpa_status sum_up(side *s, const int32_t *of, const int64_t *count, int32_t n)
{
    cpa_status st = CPA_OK;
    cpa_matrix_info info;
    s->condition_of = of;
    CPA_TRY(cpa_h5ad_matrix_info(s->file, NULL, &info));
    CPA_REQUIRE(info.layout == CPA_LAYOUT_DENSE, CPA_BAD_DATA, "%s: X is sparse; predict writes it dense",
                cpa_h5ad_path(s->file));
    CPA_TRY(cpa_alloc((size_t)n * (size_t)s->n_genes, sizeof *s->mean, &s->mean));
    CPA_TRY(cpa_h5ad_scan(s->file, NULL, 0, s->row.n, add_block, s));
    for (int64_t k = 0; k < n; k++) {
        for (int64_t g = 0; g < s->n_genes; g++) {
            s->mean[k * s->n_genes + g] /= (double)count[k];
        }
    }
cleanup:
    return st;
}

// R2 of B's means for A's and their mean absolute difference, averaged over conditions; of log(1 + mean) where nothing is negative.
static void score(side *a, side *b, int32_t n, cpa_comparison *r2, cpa_comparison *error)
{
    int64_t genes = a->n_genes;
    int scored = 0;
    double sum = 0, off = 0;
    for (int64_t i = 0; !a->negative && !b->negative && i < n * genes; i++) {
        a->mean[i] = log1p(a->mean[i]);
        b->mean[i] = log1p(b->mean[i]);
    }
    for (int64_t k = 0; k < n; k++) {
        double one = cpa_score_r2_of(a->mean + k * genes, b->mean + k * genes, (cpa_genes){NULL, (int)genes});
        if (isfinite(one)) {
            sum += one;
            scored++;
        }
    }
    for (int64_t i = 0; i < n * genes; i++) {
        off += fabs(a->mean[i] - b->mean[i]);
    }
    *r2 = (cpa_comparison){"r2_mean", NAN, NAN, scored ? sum / scored : NAN};
    *error = (cpa_comparison){"dose_mae", NAN, NAN, off / (double)(n * genes)};
}

cpa_status cpa_compare_files(const cpa_options *o, cpa_comparison *out, int *n)
{
    cpa_status st = CPA_OK;
    side a = {0}, b = {0};
    int32_t *of = NULL, n_conditions;
    int64_t *count = NULL;
    CPA_TRY(open_side(&a, o->path));
    CPA_TRY(open_side(&b, o->path_b));
    CPA_TRY(check_names(&a, &b, &a.row, &b.row, "row"));
    CPA_TRY(check_names(&a, &b, &a.gene, &b.gene, "gene"));
    CPA_TRY(check_conditions(&a, &b));
    CPA_TRY(cpa_alloc((size_t)a.row.n, sizeof *of, &of));
    CPA_TRY(cpa_alloc((size_t)a.row.n, sizeof *count, &count));
    CPA_TRY(number_conditions(&a, of, count, &n_conditions));
    CPA_TRY(sum_up(&a, of, count, n_conditions));
    CPA_TRY(sum_up(&b, of, count, n_conditions));
    score(&a, &b, n_conditions, &out[0], &out[1]);
    *n = 2;
cleanup:
    cpa_free(&of);
    cpa_free(&count);
    close_side(&a);
    close_side(&b);
    return st;
}
