// Owns: comparing two runs on the same cells: reconstructions, latent spaces, dose responses. Never trains, never judges which is better.
#include <math.h>
#include <string.h>

#include "compare_impl.h"
#include "cpa/app/scores.h"
#include "cpa/base/log.h"
#include "cpa/base/rng.h"
#include "cpa/train/purity.h"
#include "predict_impl.h"

enum { N_SIDES = 2, DOSES = 50 };
enum { BASAL, AFTER, N_LATENTS };
enum { SUM_X, SUM_Y, SUM_XX, SUM_YY, SUM_XY, N_SUMS };
static const int PARTS[N_LATENTS] = {CPA_LATENT_BASAL, CPA_LATENT_ALL};

// The sides read the same file; names and groups are those of the first.
typedef struct pair {
    cpa_trained t[N_SIDES];
    cpa_cell_list list; // in a seeded order, so that the first of them stand for all
    cpa_real *z[N_SIDES][N_LATENTS];
    cpa_purity *purity[N_SIDES][N_LATENTS]; // NULL for a single cell
    double *sums; // [blocks, N_LATENTS, N_SUMS] for the correlations; zero on all ranks but one
    int32_t **label;
    int n_sets;
} pair;

static cpa_status open_side(cpa_comm *comm, const cpa_options *o, const char *path, cpa_trained *t)
{
    cpa_status st = CPA_OK;
    cpa_options side = *o; // borrows everything
    side.path = (char *)(uintptr_t)path;
    CPA_TRY(cpa_trained_open(comm, &side, (cpa_trained_needs){.splits = o->split != NULL}, t));
cleanup:
    return st;
}

static cpa_status check_cells(pair *p)
{
    cpa_status st = CPA_OK;
    const cpa_target own = {.own = true, .category = -1, .n_cells = p->list.n, .cell = p->list.cell};
    for (int s = 0; s < N_SIDES; s++) {
        CPA_TRY(cpa_trained_check(&p->t[s], &own));
    }
cleanup:
    return st;
}

static cpa_status make_labels(pair *p)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = p->t[0].registry;
    CPA_TRY(cpa_alloc((size_t)r->n_covs + 1, sizeof *p->label, &p->label));
    for (int c = -1; c < r->n_covs; c++) {
        if (c >= 0 && r->cov[c].value.n < 2) {
            continue;
        }
        int32_t **label = &p->label[p->n_sets++];
        CPA_TRY(cpa_alloc((size_t)p->list.n, sizeof **label, label));
        for (int64_t i = 0; i < p->list.n; i++) {
            int64_t cell = p->list.cell[i];
            (*label)[i] = c < 0 ? r->condition[r->condition_of[cell]].label : r->cov[c].code[cell];
        }
    }
cleanup:
    return st;
}

static int64_t n_blocks(const pair *p)
{
    return (p->list.n + CPA_BLOCK - 1) / CPA_BLOCK;
}

static int64_t n_query_blocks(const pair *p)
{
    int64_t most = CPA_MOST_QUERIES / CPA_BLOCK;
    return n_blocks(p) < most ? n_blocks(p) : most;
}

static cpa_status prepare(pair *p, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_choose_asked(&p->t[0], o, &p->list));
    CPA_TRY(check_cells(p));
    cpa_shuffle(0, CPA_STREAM_VALID, 0, 0, p->list.cell, p->list.n);
    CPA_TRY(make_labels(p));
    CPA_TRY(cpa_alloc((size_t)n_blocks(p) * N_LATENTS * N_SUMS, sizeof *p->sums, &p->sums));
    int64_t queries = n_query_blocks(p) * CPA_BLOCK;
    queries = queries < p->list.n ? queries : p->list.n;
    for (int i = 0; i < N_SIDES * N_LATENTS; i++) {
        cpa_trained *t = &p->t[i / N_LATENTS];
        int width = cpa_model_n_latent(t->model);
        CPA_TRY(cpa_alloc((size_t)CPA_BLOCK * (size_t)width, sizeof(cpa_real), &p->z[i / N_LATENTS][i % N_LATENTS]));
        if (p->list.n > 1) {
            cpa_purity **purity = &p->purity[i / N_LATENTS][i % N_LATENTS];
            CPA_TRY(cpa_purity_create(t->comm, t->be, p->list.n, (int)queries, width, CPA_BLOCK, purity));
            cpa_purity_begin(*purity);
        }
    }
    if (queries < p->list.n) {
        cpa_info("purities of %lld of %lld cells (seeded), each among all of them", (long long)queries,
                 (long long)p->list.n);
    }
cleanup:
    return st;
}

static void finish(pair *p)
{
    for (int i = 0; i < N_SIDES * N_LATENTS; i++) {
        cpa_purity_destroy(&p->purity[i / N_LATENTS][i % N_LATENTS]);
        cpa_free(&p->z[i / N_LATENTS][i % N_LATENTS]);
    }
    for (int i = 0; p->label && i < p->n_sets; i++) {
        cpa_free(&p->label[i]);
    }
    cpa_free(&p->label);
    cpa_free(&p->sums);
    cpa_cell_list_fini(&p->list);
    for (int s = 0; s < N_SIDES; s++) {
        cpa_trained_close(&p->t[s]);
    }
}

// ---- reconstructions ----

// One side's or the real means and variances of a group.
typedef struct view {
    cpa_profile p;
    double *var;
} view;

// R2 of the group's means and variances; each averaged over groups that have them.
typedef struct r2_sums {
    double sum[2][3]; // mean, variance; A, B, between
    int n[2][3];
} r2_sums;

static void take_r2(r2_sums *s, int which, int who, const double *real, const double *predicted, int genes)
{
    double r2 = cpa_score_r2_of(real, predicted, (cpa_genes){NULL, genes});
    if (isfinite(r2)) {
        s->sum[which][who] += r2;
        s->n[which][who]++;
    }
}

static cpa_status score_group(pair *p, view v[3], const int64_t *cell, int64_t n, r2_sums *s)
{
    cpa_status st = CPA_OK;
    const cpa_target own = {.own = true, .category = -1, .n_cells = n, .cell = cell};
    cpa_scale scale = cpa_trained_scale(&p->t[0]);
    int genes = v->p.n_genes;
    for (int i = 0; i < N_SIDES; i++) {
        CPA_TRY(cpa_trained_profile(&p->t[i], &own, scale, &v[i].p));
    }
    cpa_profile_of_cells(&v[2].p, p->t[0].cells, cell, n, scale);
    for (int i = 0; i < 3; i++) {
        cpa_profile_variance(&v[i].p, v[i].var);
    }
    for (int i = 0; i < 3; i++) { // A and B for the real cells, B for A
        const view *of = i < 2 ? &v[2] : &v[0], *by = i < 2 ? &v[i] : &v[1];
        take_r2(s, 0, i, of->p.mean, by->p.mean, genes);
        take_r2(s, 1, i, of->var, by->var, genes);
    }
cleanup:
    return st;
}

static cpa_status make_views(view v[3], int genes)
{
    cpa_status st = CPA_OK;
    for (int i = 0; i < 3; i++) {
        CPA_TRY(cpa_profile_init(&v[i].p, genes));
        CPA_TRY(cpa_alloc((size_t)genes, sizeof *v[i].var, &v[i].var));
    }
cleanup:
    return st;
}

// Positions of the list's cells, sorted by category (counting sort): those of category k are [first[k], first[k+1]).
static cpa_status sort_cells(const pair *p, int64_t **cell, int64_t **first)
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = p->t[0].registry;
    CPA_TRY(cpa_alloc((size_t)p->list.n, sizeof **cell, cell));
    CPA_TRY(cpa_alloc((size_t)r->n_categories + 2, sizeof **first, first));
    for (int64_t i = 0; i < p->list.n; i++) {
        (*first)[r->category_of[p->list.cell[i]] + 2]++;
    }
    for (int k = 0; k < r->n_categories; k++) {
        (*first)[k + 2] += (*first)[k + 1];
    }
    for (int64_t i = 0; i < p->list.n; i++) {
        (*cell)[(*first)[r->category_of[p->list.cell[i]] + 1]++] = p->list.cell[i];
    }
cleanup:
    return st;
}

static cpa_status compare_reconstructions(pair *p, cpa_comparison out[2])
{
    cpa_status st = CPA_OK;
    const cpa_registry *r = p->t[0].registry;
    view v[3] = {{.var = NULL}, {.var = NULL}, {.var = NULL}};
    int64_t *cell = NULL, *first = NULL;
    r2_sums s = {.n = {{0}}};
    st = make_views(v, r->n_genes);
    CPA_TRY(cpa_comm_agree(p->t[0].comm, st == CPA_OK ? sort_cells(p, &cell, &first) : st));
    for (int k = 0; k < r->n_categories; k++) {
        if (first[k + 1] > first[k]) {
            CPA_TRY(score_group(p, v, cell + first[k], first[k + 1] - first[k], &s));
            cpa_progress(false, "compared category %d of %d", k + 1, r->n_categories);
        }
    }
    double mean[2][3];
    for (int i = 0; i < 6; i++) {
        mean[i / 3][i % 3] = s.n[i / 3][i % 3] ? s.sum[i / 3][i % 3] / s.n[i / 3][i % 3] : NAN;
    }
    out[0] = (cpa_comparison){"r2_mean", mean[0][0], mean[0][1], mean[0][2]};
    out[1] = (cpa_comparison){"r2_var", mean[1][0], mean[1][1], mean[1][2]};
cleanup:
    for (int i = 0; i < 3; i++) {
        cpa_profile_fini(&v[i].p);
        cpa_free(&v[i].var);
    }
    cpa_free(&cell);
    cpa_free(&first);
    return st;
}

// ---- latent spaces ----

static bool same_width(const pair *p)
{
    return cpa_model_n_latent(p->t[0].model) == cpa_model_n_latent(p->t[1].model);
}

static void add_sums(const cpa_real *x, const cpa_real *y, int64_t n, double *sums)
{
    for (int64_t i = 0; i < n; i++) {
        double a = (double)x[i], b = (double)y[i];
        sums[SUM_X] += a;
        sums[SUM_Y] += b;
        sums[SUM_XX] += a * a;
        sums[SUM_YY] += b * b;
        sums[SUM_XY] += a * b;
    }
}

static cpa_status encode_block(pair *p, int64_t block)
{
    cpa_status st = CPA_OK;
    const cpa_target own = {.own = true, .category = -1}, *as[CPA_BLOCK];
    int64_t first = block * CPA_BLOCK, left = p->list.n - first;
    int n = (int)(left < CPA_BLOCK ? left : CPA_BLOCK);
    for (int i = 0; i < n; i++) {
        as[i] = &own;
    }
    for (int s = 0; s < N_SIDES; s++) {
        CPA_TRY(cpa_trained_encode(&p->t[s], p->list.cell + first, as, n));
        for (int k = 0; k < N_LATENTS; k++) {
            CPA_TRY(cpa_model_latent(p->t[s].model, PARTS[k], p->z[s][k]));
            if (p->purity[s][k]) {
                CPA_TRY(cpa_purity_take(p->purity[s][k], first, n, p->z[s][k]));
            }
        }
    }
    for (int k = 0; same_width(p) && k < N_LATENTS; k++) {
        add_sums(p->z[0][k], p->z[1][k], (int64_t)n * cpa_model_n_latent(p->t[0].model),
                 p->sums + (block * N_LATENTS + k) * N_SUMS);
    }
cleanup:
    return st;
}

// This rank's blocks among [begin, end). Collective.
static cpa_status encode_blocks(pair *p, int64_t begin, int64_t end)
{
    cpa_status st = CPA_OK;
    for (int64_t b = cpa_comm_rank(p->t[0].comm); st == CPA_OK && b < end; b += cpa_comm_size(p->t[0].comm)) {
        if (b >= begin) {
            st = encode_block(p, b);
        }
    }
    return cpa_comm_agree(p->t[0].comm, st);
}

// Pearson correlation of all coordinates of all cells, from the sums of all blocks in order.
static double correlation(const pair *p, int latent)
{
    double s[N_SUMS] = {0};
    double n = (double)p->list.n * cpa_model_n_latent(p->t[0].model);
    for (int64_t b = 0; b < n_blocks(p); b++) {
        for (int i = 0; i < N_SUMS; i++) {
            s[i] += p->sums[(b * N_LATENTS + latent) * N_SUMS + i];
        }
    }
    double xy = s[SUM_XY] - s[SUM_X] * s[SUM_Y] / n, xx = s[SUM_XX] - s[SUM_X] * s[SUM_X] / n,
           yy = s[SUM_YY] - s[SUM_Y] * s[SUM_Y] / n;
    return same_width(p) && xx > 0 && yy > 0 ? xy / sqrt(xx * yy) : NAN;
}

static cpa_status compare_latents(pair *p, cpa_comparison out[4])
{
    cpa_status st = CPA_OK;
    double purity[N_SIDES][N_LATENTS] = {{NAN, NAN}, {NAN, NAN}};
    CPA_TRY(encode_blocks(p, 0, n_query_blocks(p)));
    for (int i = 0; i < N_SIDES * N_LATENTS && p->purity[0][0]; i++) {
        CPA_TRY(cpa_purity_share(p->purity[i / N_LATENTS][i % N_LATENTS]));
    }
    CPA_TRY(encode_blocks(p, n_query_blocks(p), n_blocks(p)));
    for (int i = 0; i < N_SIDES * N_LATENTS && p->purity[0][0]; i++) {
        CPA_TRY(cpa_purity_score(p->purity[i / N_LATENTS][i % N_LATENTS], p->label, p->n_sets,
                                 &purity[i / N_LATENTS][i % N_LATENTS]));
    }
    // The sum of the bits as integers is the bits of the one rank that has them.
    CPA_TRY(cpa_comm_sum_i64(p->t[0].comm, (int64_t *)(void *)p->sums, (int)(n_blocks(p) * N_LATENTS * N_SUMS)));
    out[0] = (cpa_comparison){"pearson_basal", NAN, NAN, correlation(p, BASAL)};
    out[1] = (cpa_comparison){"pearson_after", NAN, NAN, correlation(p, AFTER)};
    out[2] = (cpa_comparison){"purity_basal", purity[0][BASAL], purity[1][BASAL], NAN};
    out[3] = (cpa_comparison){"purity_after", purity[0][AFTER], purity[1][AFTER], NAN};
cleanup:
    return st;
}

// ---- dose responses ----

// The length of a perturbation's vector at the doses 0, most/49, ..., most: cells without counts, the model's own path.
static cpa_status response(cpa_trained *t, int pert, double most, double length[DOSES])
{
    cpa_status st = CPA_OK;
    cpa_batch *b = t->batch;
    cpa_real *z = NULL;
    int width = cpa_model_n_latent(t->model);
    CPA_TRY(cpa_alloc(DOSES * (size_t)width, sizeof *z, &z));
    b->n_cells = DOSES;
    b->nnz = 0;
    b->n_covs = cpa_trained_n_covs(t);
    b->max_comb_len = t->meta.max_comb_len;
    memset(b->indptr, 0, (DOSES + 1) * sizeof *b->indptr);
    memset(b->cov, 0, (size_t)b->n_covs * (size_t)b->max_cells * sizeof *b->cov);
    for (int i = 0; i < DOSES * b->max_comb_len; i++) {
        bool first = i % b->max_comb_len == 0;
        b->pert[i] = first ? pert : CPA_PAD;
        b->dose[i] = first ? (cpa_real)(most * (i / b->max_comb_len) / (DOSES - 1)) : 0;
    }
    memset(b->library, 0, DOSES * sizeof *b->library);
    CPA_TRY(cpa_model_infer(t->model, b));
    CPA_TRY(cpa_model_latent(t->model, CPA_LATENT_PERT, z));
    for (int i = 0; i < DOSES; i++) {
        double sum = 0;
        for (int k = 0; k < width; k++) {
            sum += (double)z[i * width + k] * (double)z[i * width + k];
        }
        length[i] = sqrt(sum);
    }
cleanup:
    cpa_free(&z);
    return st;
}

// The largest dose that a perturbation has in the data, 1 where it has none.
static double largest_dose(const cpa_registry *r, const char *name)
{
    double most = 0;
    for (int k = 0; k < r->n_conditions; k++) {
        const cpa_condition *c = &r->condition[k];
        for (int i = 0; i < c->n; i++) {
            most = strcmp(r->pert.s[c->pert[i]], name) == 0 && c->dose[i] > most ? c->dose[i] : most;
        }
    }
    return most > 0 ? most : 1;
}

static cpa_status compare_doses(pair *p, cpa_comparison *out)
{
    cpa_status st = CPA_OK;
    const cpa_strings *pert = &p->t[0].meta.pert;
    double sum = 0, length[N_SIDES][DOSES];
    int n = 0;
    for (int64_t i = CPA_CONTROL + 1; i < pert->n; i++) {
        int64_t other = cpa_strings_find(&p->t[1].meta.pert, pert->s[i]);
        if (other < 0) {
            continue;
        }
        double most = largest_dose(p->t[0].registry, pert->s[i]);
        CPA_TRY(response(&p->t[0], (int)i, most, length[0]));
        CPA_TRY(response(&p->t[1], (int)other, most, length[1]));
        for (int d = 0; d < DOSES; d++) {
            sum += fabs(length[0][d] - length[1][d]) / DOSES;
        }
        n++;
    }
    *out = (cpa_comparison){"dose_mae", NAN, NAN, n ? sum / n : NAN};
cleanup:
    return st;
}

cpa_status cpa_compare_runs(cpa_comm *comm, const cpa_options *o, cpa_comparison *out, int *n)
{
    cpa_status st = CPA_OK;
    pair p = {.list = {0}};
    CPA_TRY(open_side(comm, o, o->path, &p.t[0]));
    CPA_TRY(open_side(comm, o, o->path_b, &p.t[1]));
    CPA_REQUIRE(cpa_trained_scale(&p.t[0]) == cpa_trained_scale(&p.t[1]), CPA_BAD_DATA,
                "'%s' has recon_loss %s and '%s' %s: they do not predict the same quantity", o->path,
                p.t[0].meta.config.recon_loss, o->path_b, p.t[1].meta.config.recon_loss);
    CPA_TRY(cpa_comm_agree(comm, prepare(&p, o)));
    CPA_TRY(compare_reconstructions(&p, out));
    CPA_TRY(compare_latents(&p, out + 2));
    CPA_TRY(cpa_comm_agree(comm, compare_doses(&p, out + 6)));
    *n = 7;
cleanup:
    finish(&p);
    return st;
}
