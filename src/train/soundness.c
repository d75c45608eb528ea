// Owns: the checks of a trained state: replicas, finite parameters, a loss that can be computed. Never changes a parameter.
#include "cpa/train/soundness.h"

#include <math.h>
#include <string.h>

#include "cpa/base/text.h"

// Of a tensor as it is stored. Not the digest of a model file, which knows no ranks and may take its time.
static uint64_t digest(const cpa_real *value, int64_t n)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (int64_t i = 0; i < n; i++) {
        uint64_t bits = 0;
        memcpy(&bits, &value[i], sizeof value[i]);
        hash = (hash ^ bits) * 0x100000001b3u;
        hash ^= hash >> 29; // upper bits count downwards, too
    }
    return hash;
}

// Digest of every tensor.
static cpa_status digest_all(const cpa_params *t, uint64_t *out)
{
    cpa_status st = CPA_OK;
    int64_t largest = 0;
    cpa_real *host = NULL;
    for (int id = 0; id < t->n; id++) {
        largest = cpa_param_size(&t->p[id]) > largest ? cpa_param_size(&t->p[id]) : largest;
    }
    CPA_TRY(cpa_alloc((size_t)largest, sizeof *host, &host));
    for (int id = 0; id < t->n; id++) {
        int64_t n = cpa_param_size(&t->p[id]);
        CPA_TRY(cpa_op_download(t->be, host, cpa_value(t, id).data, (size_t)n * sizeof *host));
        out[id] = digest(host, n);
    }
cleanup:
    cpa_free(&host);
    return st;
}

cpa_status cpa_soundness_replicas(cpa_comm *comm, const cpa_params *t)
{
    cpa_status st = CPA_OK;
    uint64_t *mine = NULL, *first = NULL;
    if (cpa_comm_size(comm) == 1) {
        return CPA_OK;
    }
    st = cpa_alloc((size_t)t->n, sizeof *mine, &mine);
    st = st == CPA_OK ? cpa_alloc((size_t)t->n, sizeof *first, &first) : st;
    CPA_TRY(cpa_comm_agree(comm, st == CPA_OK ? digest_all(t, mine) : st));
    memcpy(first, mine, (size_t)t->n * sizeof *mine);
    CPA_TRY(cpa_comm_bcast(comm, first, (size_t)t->n * sizeof *first, 0));
    for (int id = 0; id < t->n && st == CPA_OK; id++) {
        if (mine[id] != first[id]) {
            st = cpa_fail(CPA_INTERNAL,
                          "rank %d does not hold the same model as rank 0: '%s' differs; give all ranks the same "
                          "program, libraries and kind of processor, and look for faulty memory",
                          cpa_comm_rank(comm), t->p[id].name);
        }
    }
    st = cpa_comm_agree(comm, st);
cleanup:
    cpa_free(&mine);
    cpa_free(&first);
    return st;
}

// The loss of the first training batch, as predictions would meet it, on the rank whose it is. Collective.
static cpa_status check_loss(const cpa_step_parts *parts)
{
    cpa_status st = CPA_OK;
    cpa_batch *batch = NULL;
    cpa_text why = {0};
    cpa_scores scores;
    const int64_t *rows;
    const cpa_registry *r = parts->registry;
    int n;
    int64_t nnz;
    CPA_TRY(cpa_sampler_epoch(parts->sampler, 0));
    CPA_TRY(cpa_feed_step(parts->feed, 0, 0));
    if (cpa_comm_rank(parts->comm) > 0) {
        goto cleanup;
    }
    cpa_sampler_batch(parts->sampler, 0, 0, &rows, &n);
    CPA_TRY(cpa_feed_max_nnz(parts->feed, n, &nnz));
    CPA_TRY(cpa_batch_create(n, nnz, r->n_genes, r->n_covs, r->max_comb_len, &batch));
    CPA_TRY(cpa_feed_fill(parts->feed, r, 0, 0, batch));
    CPA_TRY(cpa_model_validate(parts->model, batch, &scores));
    if (!isfinite(scores.recon_loss)) {
        CPA_TRY(cpa_model_diagnose(parts->model, batch, NULL, parts->gene, &why));
        st = cpa_fail(
            CPA_NONFINITE,
            "after the last step, the reconstruction loss of training cells is %g: %s; a smaller learning rate "
            "(--lr) may help",
            isnan(scores.recon_loss) ? NAN : scores.recon_loss, cpa_text_str(&why));
    }
cleanup:
    cpa_batch_destroy(&batch);
    cpa_text_fini(&why);
    return st;
}

static cpa_status check_parameters(const cpa_step_parts *parts)
{
    cpa_status st = CPA_OK;
    cpa_text why = {0};
    bool found;
    CPA_TRY(cpa_model_find_parameter(parts->model, &why, &found));
    CPA_REQUIRE(!found, CPA_NONFINITE, "after the last step, %s; a smaller learning rate (--lr) may help",
                cpa_text_str(&why));
cleanup:
    cpa_text_fini(&why);
    return st;
}

cpa_status cpa_soundness_result(const cpa_step_parts *parts, bool validated)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_soundness_replicas(parts->comm, cpa_model_params(parts->model)));
    CPA_TRY(cpa_comm_agree(parts->comm, check_parameters(parts)));
    if (!validated) {
        CPA_TRY(cpa_comm_agree(parts->comm, check_loss(parts)));
    }
cleanup:
    return st;
}
