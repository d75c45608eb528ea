// Owns: metrics of one batch that need the model's outputs: R2 by category, accuracies.
// Never sees more than the loaded batch.
#include <stdlib.h>
#include <string.h>

#include "model_impl.h"

// Sorts the rows of the batch by category, stably, a byte at a time; spare [n].
static void sort_rows(const int32_t *category, int n, int32_t *order, int32_t *spare)
{
    int32_t most = 0;
    for (int i = 0; i < n; i++) {
        order[i] = i;
        most = category[i] > most ? category[i] : most;
    }
    for (int shift = 0; shift < 32 && most >> shift > 0; shift += 8) {
        int begin[257] = {0};
        for (int i = 0; i < n; i++) {
            begin[(category[order[i]] >> shift & 255) + 1]++;
        }
        for (int k = 0; k < 256; k++) {
            begin[k + 1] += begin[k];
        }
        for (int i = 0; i < n; i++) {
            spare[begin[category[order[i]] >> shift & 255]++] = order[i];
        }
        memcpy(order, spare, (size_t)n * sizeof *order);
    }
}

cpa_status cpa_score_prepare(cpa_model *m, const cpa_batch *batch, int *n_groups)
{
    cpa_status st = CPA_OK;
    int n = m->n, k = 0;
    bool masked = false;
    sort_rows(batch->category, n, m->host_order, m->host_best); // free until the accuracies
    for (int i = 0; i < n; i++) {
        int32_t category = batch->category[m->host_order[i]];
        if (i && category == batch->category[m->host_order[i - 1]]) {
            continue;
        }
        const uint32_t *mask = m->gene_mask ? m->gene_mask[category] : NULL;
        int32_t *row = m->host_mask + (int64_t)k * m->mask_words;
        if (mask) {
            memcpy(row, mask, (size_t)m->mask_words * 4);
            masked = true;
        } else {
            memset(row, 0xFF, (size_t)m->mask_words * 4);
        }
        m->host_offsets[k++] = i;
    }
    m->host_offsets[k] = n;
    *n_groups = k;
    CPA_TRY(cpa_op_upload(m->be, m->order, m->host_order, (size_t)n * 4));
    CPA_TRY(cpa_op_upload(m->be, m->offsets, m->host_offsets, ((size_t)k + 1) * 4));
    if (masked) {
        CPA_TRY(cpa_op_upload(m->be, m->mask, m->host_mask, (size_t)k * (size_t)m->mask_words * 4));
    }
    m->has_mask = masked;
    CPA_TRY(cpa_op_csr_expand(m->be, cpa_mat_head(m->target, n), m->batch.x, m->likelihood != CPA_GAUSS));
cleanup:
    return st;
}

cpa_status cpa_score_r2(cpa_model *m, cpa_mat means, cpa_mat variances, int n_groups, double *r2_mean, double *r2_var)
{
    cpa_status st = CPA_OK;
    bool gauss = m->likelihood == CPA_GAUSS;
    if (!gauss) {
        CPA_TRY(cpa_op_log1p(m->be, means, means));
    }
    CPA_TRY(cpa_op_group_r2(m->be, m->r2, means, gauss ? variances : CPA_NO_MAT, cpa_mat_head(m->target, m->n),
                            m->order, m->offsets, n_groups, m->has_mask ? m->mask : NULL, m->mask_words));
    CPA_TRY(cpa_op_download(m->be, m->host_r2, m->r2, 2 * (size_t)n_groups * sizeof(double)));
    *r2_mean = *r2_var = 0;
    for (int k = 0; k < n_groups; k++) {
        *r2_mean += m->host_r2[2 * k] / n_groups;
        *r2_var += m->host_r2[2 * k + 1] / n_groups;
    }
cleanup:
    return st;
}

// Accuracy of best[n] against a label: the macro average over classes that occur or are predicted, or the plain share.
static double accuracy_of(cpa_model *m, const int32_t *label, int classes, bool macro)
{
    int *hits = m->host_hits, *present = hits + classes, *seen = present + classes, all = 0, n_seen = 0;
    double sum = 0;
    memset(hits, 0, 3 * (size_t)classes * sizeof *hits);
    for (int i = 0; i < m->n; i++) {
        int32_t p = m->host_best[i], t = label[i];
        present[t]++;
        seen[t] = seen[p] = 1;
        hits[t] += p == t;
        all += p == t;
    }
    for (int k = 0; k < classes; k++) {
        n_seen += seen[k];
        sum += present[k] ? (double)hits[k] / present[k] : 0;
    }
    return macro ? sum / n_seen : (double)all / m->n;
}

cpa_status cpa_score_accuracy(cpa_model *m, const cpa_adversary *a, const cpa_batch *batch, double *accuracy)
{
    cpa_status st = CPA_OK;
    bool pert = a->cov < 0;
    const int32_t *label = pert ? batch->label : batch->cov + (int64_t)a->cov * batch->max_cells;
    CPA_TRY(cpa_op_download(m->be, m->host_best, cpa_int_at(m->best, (int64_t)(a->cov + 1) * m->shape.max_cells),
                            (size_t)m->n * 4));
    *accuracy = accuracy_of(m, label, a->classes, pert);
    if (pert && batch->label2) {
        *accuracy = batch->mixup_lambda * *accuracy +
                    (1 - batch->mixup_lambda) * accuracy_of(m, batch->label2, a->classes, true);
    }
cleanup:
    return st;
}
