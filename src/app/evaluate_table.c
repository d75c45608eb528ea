// Owns: how scores are shown: the columns of the file, the table on standard output. Never computes a score.
#include <math.h>
#include <string.h>

#include "evaluate_impl.h"

static const char *const SUFFIX[N_PREDICTORS] = {"", "_no_change", "_mean_effect", "_additive"};
static const char *const PREDICTOR[N_PREDICTORS] = {"model", "no change", "mean effect", "additive"};
static const char *const GENES[N_GENE_SETS] = {"all", "top20"};
static const char *const SCORE[N_SCORES] = {"r2_mean", "r2_var", "r2_delta", "pseudobulk_r2", "pearson_delta"};

// A text field, in quotes where it needs them.
static cpa_status add_field(cpa_text *out, const char *s)
{
    cpa_status st = CPA_OK;
    bool quote = strpbrk(s, ",\"\n\r") != NULL;
    CPA_TRY(cpa_text_add(out, quote ? "\"" : ""));
    for (; *s; s++) {
        CPA_TRY(cpa_text_add(out, *s == '"' ? "\"\"" : "%c", *s));
    }
    CPA_TRY(cpa_text_add(out, quote ? "\"" : ""));
cleanup:
    return st;
}

cpa_status cpa_scores_csv(const cpa_group_scores *g, int64_t n, cpa_text *out)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_text_add(out, "group,n_cells,n_control"));
    for (int64_t row = -1; row < n; row++) { // -1: the header
        if (row >= 0) {
            CPA_TRY(add_field(out, g[row].group));
            CPA_TRY(cpa_text_add(out, ",%lld,%lld", (long long)g[row].n_cells, (long long)g[row].n_control));
        }
        for (int i = 0; i < N_GENE_SETS * N_SCORES * N_PREDICTORS; i++) {
            int genes = i / (N_SCORES * N_PREDICTORS), score = i / N_PREDICTORS % N_SCORES, by = i % N_PREDICTORS;
            if (row < 0) {
                CPA_TRY(cpa_text_add(out, ",%s_%s%s", SCORE[score], GENES[genes], SUFFIX[by]));
            } else if (isfinite(g[row].score[by][genes][score])) {
                CPA_TRY(cpa_text_add(out, ",%.9g", g[row].score[by][genes][score]));
            } else {
                CPA_TRY(cpa_text_add(out, ","));
            }
        }
        CPA_TRY(cpa_text_add(out, "\n"));
    }
cleanup:
    return st;
}

static cpa_status add_line(const cpa_group_scores *g, int width, int genes, int score, const char *label, cpa_text *out)
{
    cpa_status st = CPA_OK;
    bool first = genes == OVER_ALL && score == PSEUDOBULK_R2;
    if (first) {
        CPA_TRY(cpa_text_add(out, "%-*s %7lld", width, g->group, (long long)g->n_cells));
    } else {
        CPA_TRY(cpa_text_add(out, "%-*s %7s", width, "", ""));
    }
    CPA_TRY(cpa_text_add(out, "  %-6s %-14s", genes == OVER_ALL ? "all" : "top 20", label));
    for (int k = 0; k < N_PREDICTORS; k++) {
        double x = g->score[k][genes][score];
        CPA_TRY(isfinite(x) ? cpa_text_add(out, " %11.3f", x) : cpa_text_add(out, " %11s", "-"));
    }
    CPA_TRY(cpa_text_add(out, "\n"));
cleanup:
    return st;
}

static bool has_top(const cpa_group_scores *g)
{
    return isfinite(g->score[BY_MODEL][OVER_TOP20][PSEUDOBULK_R2]);
}

// "the model beats no change on all genes (R2 0.874 against 0.828)"
static cpa_status add_verdict(const cpa_group_scores *g, int genes, cpa_text *out)
{
    double model = g->score[BY_MODEL][genes][PSEUDOBULK_R2], none = g->score[BY_NO_CHANGE][genes][PSEUDOBULK_R2];
    return cpa_text_add(out, "%s no change on %s (R2 %.3f against %.3f)", model > none ? "beats" : "does not beat",
                        genes == OVER_ALL ? "all genes" : "the top 20", model, none);
}

static cpa_status add_sentence(const cpa_group_scores *g, cpa_text *out)
{
    cpa_status st = CPA_OK;
    int genes = has_top(g) ? OVER_TOP20 : OVER_ALL, best = BY_MODEL;
    for (int k = 1; k < N_PREDICTORS; k++) {
        double x = g->score[k][genes][PSEUDOBULK_R2];
        best = isfinite(x) && x > g->score[best][genes][PSEUDOBULK_R2] ? k : best;
    }
    CPA_TRY(cpa_text_add(out, "%s: the model ", g->group));
    CPA_TRY(add_verdict(g, OVER_ALL, out));
    if (has_top(g)) {
        CPA_TRY(cpa_text_add(out, " and "));
        CPA_TRY(add_verdict(g, OVER_TOP20, out));
    }
    CPA_TRY(cpa_text_add(out, "; best on %s: %s (%.3f).\n", genes == OVER_ALL ? "all genes" : "the top 20",
                         PREDICTOR[best], g->score[best][genes][PSEUDOBULK_R2]));
cleanup:
    return st;
}

cpa_status cpa_scores_table(const cpa_group_scores *g, int64_t n, cpa_scale scale, cpa_text *out)
{
    cpa_status st = CPA_OK;
    int width = 5;
    for (int64_t i = 0; i < n; i++) {
        width = (int)strlen(g[i].group) > width ? (int)strlen(g[i].group) : width;
    }
    CPA_TRY(cpa_text_add(out, "Held-out groups, predicted from control cells of the same covariates; %s.\n\n",
                         scale == CPA_SCALE_GIVEN ? "means of the values as they are" : "log1p of the mean CP10k"));
    CPA_TRY(cpa_text_add(out, "%-*s %7s  %-6s %-14s", width, "group", "cells", "genes", "score"));
    for (int k = 0; k < N_PREDICTORS; k++) {
        CPA_TRY(cpa_text_add(out, " %11s", PREDICTOR[k]));
    }
    CPA_TRY(cpa_text_add(out, "\n"));
    for (int64_t i = 0; i < n; i++) {
        for (int genes = 0; genes < (has_top(&g[i]) ? N_GENE_SETS : 1); genes++) {
            CPA_TRY(add_line(&g[i], width, genes, PSEUDOBULK_R2, "R2", out));
            CPA_TRY(add_line(&g[i], width, genes, PEARSON_DELTA, "Pearson delta", out));
        }
    }
    CPA_TRY(cpa_text_add(out, "\n"));
    for (int64_t i = 0; i < n; i++) {
        CPA_TRY(add_sentence(&g[i], out));
    }
cleanup:
    return st;
}
