// Owns: building and freeing a model: parameters, activations, scratch. Never computes.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_impl.h"

static cpa_status copy_shape(cpa_model *m, const cpa_shape *shape)
{
    cpa_status st = CPA_OK;
    char **name = NULL;
    int *size = NULL;
    m->shape = *shape;
    m->shape.cov_name = NULL;
    m->shape.cov_size = NULL;
    CPA_TRY(cpa_alloc((size_t)shape->n_covs, sizeof *name, &name));
    m->shape.cov_name = (const char *const *)name;
    CPA_TRY(cpa_alloc((size_t)shape->n_covs, sizeof *size, &size));
    m->shape.cov_size = size;
    for (int c = 0; c < shape->n_covs; c++) {
        CPA_TRY(cpa_strdup(shape->cov_name[c], &name[c]));
        size[c] = shape->cov_size[c];
    }
cleanup:
    return st;
}

static cpa_status declare_autoencoder(cpa_model *m)
{
    cpa_status st = CPA_OK;
    cpa_params *t = &m->t;
    const cpa_model_config *c = &m->config;
    const cpa_shape *s = &m->shape;
    CPA_TRY(cpa_params_add(t, CPA_GROUP_AUTOENCODER, 1, s->n_genes, 1, CPA_INIT_NORMAL, 0, &m->px_r, "module/px_r"));
    CPA_TRY(cpa_mlp_declare(&m->encoder, t, CPA_GROUP_AUTOENCODER, CPA_GROUP_STAT_MODULE, s->n_genes, c->n_hidden_encoder, c->n_layers_encoder,
                            c->n_latent, true, "module/encoder.network.fc_layers.", "module/encoder.z"));
    CPA_TRY(cpa_mlp_declare(&m->decoder, t, CPA_GROUP_AUTOENCODER, CPA_GROUP_STAT_MODULE, c->n_latent, c->n_hidden_decoder, c->n_layers_decoder,
                            s->n_genes, false, "module/decoder.px_decoder.fc_layers.", "module/decoder.px_scale_decoder.0"));
    m->encoder.cancels = true; // decoder and adversaries begin with a linear layer and a batch norm
    CPA_TRY(cpa_params_add(t, CPA_GROUP_AUTOENCODER, s->n_perts, c->n_latent, 2, CPA_INIT_NORMAL_PAD, 0, &m->pert_embedding,
                           "module/pert_network.pert_embedding.weight"));
    CPA_TRY(cpa_alloc((size_t)s->n_covs, sizeof *m->cov_embedding, &m->cov_embedding));
    for (int i = 0; i < s->n_covs; i++) {
        CPA_TRY(cpa_params_add(t, CPA_GROUP_AUTOENCODER, s->cov_size[i], c->n_latent, 2, CPA_INIT_NORMAL, 0, &m->cov_embedding[i],
                               "module/covars_embeddings.%s.weight", s->cov_name[i]));
    }
    CPA_TRY(cpa_params_add(t, CPA_GROUP_DOSER, 1, s->n_perts, 2, CPA_INIT_ONE, 0, &m->doser_w, "module/pert_network.dosers.beta"));
    CPA_TRY(cpa_params_add(t, CPA_GROUP_DOSER, 1, s->n_perts, 2, CPA_INIT_ZERO, 0, &m->doser_b, "module/pert_network.dosers.bias"));
cleanup:
    return st;
}

static cpa_status declare_adversaries(cpa_model *m)
{
    cpa_status st = CPA_OK;
    const cpa_model_config *c = &m->config;
    CPA_TRY(cpa_alloc((size_t)m->shape.n_covs + 1, sizeof *m->adversary, &m->adversary));
    for (int cov = -1; cov < m->shape.n_covs; cov++) {
        if (cov >= 0 && m->shape.cov_size[cov] < 2) {
            continue;
        }
        cpa_adversary *a = &m->adversary[m->n_adversaries++];
        a->cov = cov;
        a->classes = cov < 0 ? m->shape.n_labels : m->shape.cov_size[cov];
        int at = CPA_SUM_COVS + CPA_SUMS_PER_COV * cov;
        a->sum_adv = cov < 0 ? CPA_SUM_ADV_PERT : at + CPA_SUM_COV_ADV;
        a->sum_penalty = cov < 0 ? CPA_SUM_PENALTY_PERT : at + CPA_SUM_COV_PENALTY;
        a->sum_acc = cov < 0 ? CPA_SUM_ACC_PERT : at + CPA_SUM_COV_ACC;
        char prefix[400], out[400];
        snprintf(prefix, sizeof prefix, cov < 0 ? "perturbation_classifier/" : "covars_classifiers/%s.", cov < 0 ? "" : m->shape.cov_name[cov]);
        snprintf(out, sizeof out, "%.300sclassifier.1", prefix);
        strncat(prefix, "classifier.0.fc_layers.", sizeof prefix - strlen(prefix) - 1);
        CPA_TRY(cpa_mlp_declare(&a->mlp, &m->t, CPA_GROUP_ADVERSARY, CPA_GROUP_STAT_ADVERSARY, c->n_latent, c->n_hidden_adv, c->n_layers_adv,
                                a->classes, false, prefix, out));
    }
cleanup:
    return st;
}

static cpa_mat take(cpa_dev_real *arena, int64_t *used, int rows, int cols)
{
    cpa_mat v = arena ? cpa_mat_of(cpa_real_at(arena, *used), rows, cols) : CPA_NO_MAT;
    *used += ((int64_t)rows * cols + 15) / 16 * 16;
    return v;
}

// Places every activation of the model in one arena; with arena NULL only counts.
static int64_t lay_out(cpa_model *m, cpa_dev_real *arena)
{
    int64_t used = 0;
    int b = m->shape.max_cells, l = m->config.n_latent;
    m->z_basal = take(arena, &used, b, l);
    m->z = take(arena, &used, b, l);
    m->s = take(arena, &used, b, m->shape.max_comb_len);
    m->logits = take(arena, &used, b, m->shape.n_genes);
    if (m->training) {
        m->dz = take(arena, &used, b, l);
        m->dz_basal = take(arena, &used, b, l);
        m->g = take(arena, &used, b, l);
        m->ds = take(arena, &used, b, m->shape.max_comb_len);
        m->means = take(arena, &used, b, m->shape.n_genes);
        m->target = take(arena, &used, b, m->shape.n_genes);
        for (int i = 0; i < m->n_adversaries; i++) {
            m->adversary[i].logits = take(arena, &used, b, m->adversary[i].classes);
        }
    }
    return used;
}

static cpa_status place_activations(cpa_model *m)
{
    cpa_status st = CPA_OK;
    int b = m->shape.max_cells;
    CPA_TRY(cpa_mlp_place(&m->encoder, b, m->training, false, 0));
    CPA_TRY(cpa_mlp_place(&m->decoder, b, m->training, false, 0));
    for (int i = 0; i < m->n_adversaries; i++) {
        CPA_TRY(cpa_mlp_place(&m->adversary[i].mlp, b, true, true, m->config.dropout_rate_adv));
    }
    CPA_TRY(cpa_op_alloc(m->be, (size_t)lay_out(m, NULL) * sizeof(cpa_real), (void **)&m->memory));
    lay_out(m, m->memory);
cleanup:
    return st;
}

static cpa_status dev(cpa_model *m, int64_t n, size_t size, void *out)
{
    return cpa_op_alloc(m->be, (size_t)n * size, (void **)out);
}

static cpa_status place_batch(cpa_model *m)
{
    cpa_status st = CPA_OK;
    int64_t b = m->shape.max_cells, nnz = m->shape.max_nnz, mm = b * m->shape.max_comb_len;
    cpa_device_batch *d = &m->batch;
    CPA_TRY(dev(m, b + 1, 4, &d->indptr));
    CPA_TRY(dev(m, nnz, 4, &d->gene));
    CPA_TRY(dev(m, nnz, sizeof(cpa_real), &d->count));
    CPA_TRY(dev(m, nnz, sizeof(cpa_real), &d->log1p));
    CPA_TRY(dev(m, b, sizeof(cpa_real), &d->library));
    CPA_TRY(dev(m, mm, 4, &d->pert));
    CPA_TRY(dev(m, mm, sizeof(cpa_real), &d->dose));
    CPA_TRY(dev(m, b, 4, &d->label));
    CPA_TRY(dev(m, b, 4, &d->cell));
    CPA_TRY(dev(m, b * m->shape.n_covs, 4, &d->cov));
    CPA_TRY(dev(m, cpa_model_n_sums(m), sizeof(double), &m->sums));
cleanup:
    return st;
}

static cpa_status place_metrics(cpa_model *m)
{
    cpa_status st = CPA_OK;
    int64_t b = m->shape.max_cells;
    int most = 2;
    m->mask_words = (m->shape.n_genes + 31) / 32;
    for (int i = 0; i < m->n_adversaries; i++) {
        most = m->adversary[i].classes > most ? m->adversary[i].classes : most;
    }
    CPA_TRY(dev(m, 2 * b, sizeof(double), &m->r2));
    CPA_TRY(dev(m, b, 4, &m->order));
    CPA_TRY(dev(m, b + 1, 4, &m->offsets));
    CPA_TRY(dev(m, b * (1 + m->shape.n_covs), 4, &m->best));
    CPA_TRY(dev(m, b * m->mask_words, 4, &m->mask));
    CPA_TRY(cpa_alloc((size_t)b, sizeof *m->host_order, &m->host_order));
    CPA_TRY(cpa_alloc((size_t)b + 1, sizeof *m->host_offsets, &m->host_offsets));
    CPA_TRY(cpa_alloc((size_t)b, sizeof *m->host_best, &m->host_best));
    CPA_TRY(cpa_alloc((size_t)(b * m->mask_words), sizeof *m->host_mask, &m->host_mask));
    CPA_TRY(cpa_alloc(2 * (size_t)b, sizeof *m->host_r2, &m->host_r2));
    CPA_TRY(cpa_alloc(3 * (size_t)most, sizeof *m->host_hits, &m->host_hits));
cleanup:
    return st;
}

static cpa_status set_class_weights(cpa_model *m, const double *label_weight)
{
    cpa_status st = CPA_OK;
    cpa_real *w = NULL;
    int n = m->shape.n_labels;
    CPA_TRY(cpa_alloc((size_t)n, sizeof *w, &w));
    for (int i = 0; i < n; i++) {
        w[i] = (cpa_real)label_weight[i];
    }
    CPA_TRY(dev(m, n, sizeof(cpa_real), &m->class_weights));
    CPA_TRY(cpa_op_upload(m->be, m->class_weights, w, (size_t)n * sizeof(cpa_real)));
    m->adversary[0].class_weight = cpa_mat_of(m->class_weights, 1, n);
cleanup:
    cpa_free(&w);
    return st;
}

cpa_status cpa_model_create(cpa_backend *be, const cpa_model_config *config, const cpa_shape *shape, bool training,
                            const double *label_weight, uint32_t *const *gene_mask, cpa_model **out)
{
    cpa_status st = CPA_OK;
    cpa_model *m = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *m, &m));
    m->be = be;
    m->config = *config;
    m->config.recon_loss = m->config.doser_type = NULL; // borrowed strings that nothing here needs
    m->training = training;
    m->gene_mask = gene_mask;
    CPA_TRY(copy_shape(m, shape));
    CPA_TRY(declare_autoencoder(m));
    if (training) {
        CPA_TRY(declare_adversaries(m));
    }
    CPA_TRY(cpa_params_place(&m->t, be, training));
    CPA_TRY(place_activations(m));
    CPA_TRY(place_batch(m));
    if (training) {
        CPA_TRY(place_metrics(m));
        CPA_TRY(set_class_weights(m, label_weight));
    }
    *out = m;
    m = NULL;
cleanup:
    cpa_model_destroy(&m);
    return st;
}

void cpa_model_destroy(cpa_model **out)
{
    cpa_model *m = *out;
    if (!m) {
        return;
    }
    cpa_mlp_fini(&m->encoder);
    cpa_mlp_fini(&m->decoder);
    for (int i = 0; i < m->n_adversaries; i++) {
        cpa_mlp_fini(&m->adversary[i].mlp);
    }
    cpa_device_batch *d = &m->batch;
    void *device[] = {m->memory, m->class_weights, m->sums, m->r2, m->order, m->offsets, m->mask, m->best, d->indptr, d->gene,
                      d->count, d->log1p, d->library, d->pert, d->dose, d->label, d->cell, d->cov};
    for (size_t i = 0; i < sizeof device / sizeof *device; i++) {
        if (device[i]) {
            cpa_op_release(m->be, device[i]);
        }
    }
    cpa_params_fini(&m->t);
    for (int c = 0; c < m->shape.n_covs && m->shape.cov_name; c++) {
        char *name = (char *)(uintptr_t)m->shape.cov_name[c];
        cpa_free(&name);
    }
    void *host[] = {(void *)(uintptr_t)m->shape.cov_name, (void *)(uintptr_t)m->shape.cov_size, m->cov_embedding, m->adversary, m->host_order,
                    m->host_offsets, m->host_mask, m->host_best, m->host_r2, m->host_hits};
    for (size_t i = 0; i < sizeof host / sizeof *host; i++) {
        cpa_free(&host[i]);
    }
    cpa_free(out);
}

cpa_params *cpa_model_params(cpa_model *m)
{
    return &m->t;
}

int cpa_model_n_sums(const cpa_model *m)
{
    return CPA_SUM_COVS + CPA_SUMS_PER_COV * m->shape.n_covs;
}

int cpa_model_n_latent(const cpa_model *m)
{
    return m->config.n_latent;
}
