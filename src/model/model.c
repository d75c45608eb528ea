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

static cpa_status declare_encoder(cpa_model *m)
{
    cpa_status st = CPA_OK;
    const cpa_model_config *c = &m->config;
    bool v = c->variational;
    cpa_norms norms = {c->use_batch_norm_encoder, c->use_layer_norm_encoder};
    CPA_TRY(cpa_mlp_declare(&m->encoder, &m->t, CPA_GROUP_AUTOENCODER, CPA_GROUP_STAT_MODULE, m->shape.n_genes,
                            c->n_hidden_encoder, c->n_layers_encoder, c->n_latent, norms, true,
                            v ? "module/encoder.encoder.fc_layers." : "module/encoder.network.fc_layers.",
                            v ? "module/encoder.mean_encoder" : "module/encoder.z"));
    m->encoder.use_log1p = m->likelihood != CPA_GAUSS;
    // Whoever reads a latent that is not variational begins with a linear layer; where a batch norm follows, a constant cancels.
    m->encoder.cancels = !v && c->use_batch_norm_decoder && c->use_batch_norm_adv;
    if (v) {
        double bound = 1.0 / __builtin_sqrt(c->n_hidden_encoder);
        CPA_TRY(cpa_params_add(&m->t, CPA_GROUP_AUTOENCODER, c->n_latent, c->n_hidden_encoder, 2, CPA_INIT_UNIFORM,
                               bound, &m->var_weight, "module/encoder.var_encoder.weight"));
        CPA_TRY(cpa_params_add(&m->t, CPA_GROUP_AUTOENCODER, 1, c->n_latent, 1, CPA_INIT_UNIFORM, bound, &m->var_bias,
                               "module/encoder.var_encoder.bias"));
    }
cleanup:
    return st;
}

// Embeddings of perturbations: learned, or external vectors (never trained) with a projection.
static cpa_status declare_perturbations(cpa_model *m)
{
    cpa_status st = CPA_OK;
    cpa_params *t = &m->t;
    const cpa_shape *s = &m->shape;
    int latent = m->config.n_latent;
    if (!s->n_pert_features) { // a control that adds nothing is one more row of zeros, which stay zeros
        return cpa_params_add(t, CPA_GROUP_AUTOENCODER, s->n_perts, latent, 2, CPA_INIT_NORMAL_PAD,
                              cpa_first_perturbation(m), &m->pert_embedding,
                              "module/pert_network.pert_embedding.weight");
    }
    cpa_group group = m->config.freeze_pert_projection ? CPA_GROUP_FROZEN : CPA_GROUP_AUTOENCODER;
    double bound = 1.0 / __builtin_sqrt(s->n_pert_features);
    CPA_TRY(cpa_params_add(t, CPA_GROUP_FROZEN, s->n_perts, s->n_pert_features, 2, CPA_INIT_GIVEN, 0,
                           &m->pert_embedding, "module/pert_network.pert_embedding.weight"));
    CPA_TRY(cpa_params_add(t, group, latent, s->n_pert_features, 2, CPA_INIT_UNIFORM, bound, &m->project_weight,
                           "module/pert_network.pert_transformation.weight"));
    CPA_TRY(cpa_params_add(t, group, 1, latent, 1, CPA_INIT_UNIFORM, bound, &m->project_bias,
                           "module/pert_network.pert_transformation.bias"));
cleanup:
    return st;
}

static cpa_status declare_autoencoder(cpa_model *m)
{
    cpa_status st = CPA_OK;
    cpa_params *t = &m->t;
    const cpa_shape *s = &m->shape;
    CPA_TRY(cpa_likelihood_declare(m));
    CPA_TRY(declare_encoder(m));
    CPA_TRY(declare_perturbations(m));
    CPA_TRY(cpa_alloc((size_t)s->n_covs, sizeof *m->cov_embedding, &m->cov_embedding));
    for (int i = 0; i < s->n_covs; i++) {
        CPA_TRY(cpa_params_add(t, CPA_GROUP_AUTOENCODER, s->cov_size[i], m->config.n_latent, 2, CPA_INIT_NORMAL, 0,
                               &m->cov_embedding[i], "module/covars_embeddings.%s.weight", s->cov_name[i]));
    }
    CPA_TRY(cpa_doser_declare(m));
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
        snprintf(prefix, sizeof prefix, cov < 0 ? "perturbation_classifier/" : "covars_classifiers/%s.",
                 cov < 0 ? "" : m->shape.cov_name[cov]);
        snprintf(out, sizeof out, "%.300sclassifier.1", prefix);
        strncat(prefix, "classifier.0.fc_layers.", sizeof prefix - strlen(prefix) - 1);
        CPA_TRY(cpa_mlp_declare(&a->mlp, &m->t, CPA_GROUP_ADVERSARY, CPA_GROUP_STAT_ADVERSARY, c->n_latent,
                                c->n_hidden_adv, c->n_layers_adv, a->classes,
                                (cpa_norms){c->use_batch_norm_adv, c->use_layer_norm_adv}, false, prefix, out));
    }
cleanup:
    return st;
}

static void lay_out_latents(cpa_model *m, cpa_dev_real *arena, int64_t *used)
{
    int b = m->shape.max_cells, l = m->config.n_latent, comb = m->shape.max_comb_len * (m->shape.mixup ? 2 : 1);
    m->z_basal = cpa_mat_take(arena, used, b, l);
    m->z = cpa_mat_take(arena, used, b, l);
    m->s = cpa_mat_take(arena, used, b, comb);
    if (m->config.variational) {
        m->z_mean = cpa_mat_take(arena, used, b, l);
        m->z_raw = cpa_mat_take(arena, used, b, l);
        m->z_std = cpa_mat_take(arena, used, b, l);
        m->noise = cpa_mat_take(arena, used, b, l);
    }
    if (m->shape.n_pert_features) {
        m->vectors = cpa_mat_take(arena, used, m->shape.n_perts, l);
    }
    if (!m->training) {
        return;
    }
    m->dz = cpa_mat_take(arena, used, b, l);
    m->dz_basal = cpa_mat_take(arena, used, b, l);
    m->g = cpa_mat_take(arena, used, b, l);
    m->ds = cpa_mat_take(arena, used, b, comb);
    if (m->config.variational) {
        m->dz_raw = cpa_mat_take(arena, used, b, l);
    }
    if (m->shape.n_pert_features) {
        m->dvectors = cpa_mat_take(arena, used, m->shape.n_perts, l);
    }
}

// Room that the stacks share.
static cpa_scratch lay_out_scratch(const cpa_model *m, cpa_dev_real *arena, int64_t *used)
{
    int width = 0, hidden = 0;
    for (int i = -2; i < m->n_adversaries; i++) {
        const cpa_mlp *s = i == -2 ? &m->encoder : i == -1 ? &m->decoder : &m->adversary[i].mlp;
        width = cpa_mlp_width(s) > width ? cpa_mlp_width(s) : width;
        hidden = s->n_hidden > hidden ? s->n_hidden : hidden;
    }
    cpa_scratch scratch = {.work = {cpa_mat_take(arena, used, m->shape.max_cells, width)}};
    if (m->training) {
        scratch.work[1] = cpa_mat_take(arena, used, m->shape.max_cells, width);
    }
    scratch.row = cpa_mat_take(arena, used, 1, hidden);
    return scratch;
}

static void lay_out_autoencoder(cpa_model *m, const cpa_scratch *scratch, cpa_dev_real *arena, int64_t *used)
{
    const cpa_mlp *both[] = {&m->encoder, &m->decoder};
    bool again = m->training && m->shape.checkpointing;
    // Upstream's count decoders do without dropout, whatever the option says.
    bool dropout = m->likelihood == CPA_GAUSS || m->config.nb_decoder_dropout;
    cpa_mlp_use use = {.max_cells = m->shape.max_cells,
                       .training = m->training,
                       .dropout_rate = m->config.dropout_rate_encoder,
                       .scratch = scratch,
                       .again = again ? &m->again : NULL};
    cpa_mlp_lay_out(&m->encoder, &use, arena, used);
    use.dropout_rate = dropout ? m->config.dropout_rate_decoder : 0;
    cpa_mlp_lay_out(&m->decoder, &use, arena, used);
    if (again) {
        cpa_recompute_lay_out(&m->again, both, 2, m->shape.max_cells, arena, used);
    }
}

static void lay_out_metrics(cpa_model *m, cpa_dev_real *arena, int64_t *used)
{
    int b = m->shape.max_cells, genes = m->shape.n_genes;
    m->means = cpa_mat_take(arena, used, b, genes);
    m->target = cpa_mat_take(arena, used, b, genes);
    if (m->likelihood != CPA_NB) {
        m->means2 = cpa_mat_take(arena, used, b, genes);
    }
}

static void lay_out_adversary(cpa_model *m, cpa_adversary *a, const cpa_scratch *scratch, cpa_dev_real *arena,
                              int64_t *used)
{
    const cpa_mlp_use use = {.max_cells = m->shape.max_cells,
                             .training = true,
                             .second_order = true,
                             .dropout_rate = m->config.dropout_rate_adv,
                             .scratch = scratch};
    cpa_mlp_lay_out(&a->mlp, &use, arena, used);
    a->logits = cpa_mat_take(arena, used, m->shape.max_cells, a->classes);
}

// Places every activation of the model in one arena; with arena NULL only counts. The adversaries run one after another, and never before
// the metrics of the batch are taken: there is one place for all of them.
static int64_t lay_out(cpa_model *m, cpa_dev_real *arena)
{
    int64_t used = 0, most;
    int b = m->shape.max_cells, genes = m->shape.n_genes;
    lay_out_latents(m, arena, &used);
    cpa_doser_lay_out(m, arena, &used);
    const cpa_scratch scratch = lay_out_scratch(m, arena, &used);
    lay_out_autoencoder(m, &scratch, arena, &used);
    m->logits = cpa_mat_take(arena, &used, b, genes);
    if (m->likelihood != CPA_NB) {
        m->head2 = cpa_mat_take(arena, &used, b, genes);
    }
    most = used;
    if (m->training) {
        lay_out_metrics(m, arena, &most);
    }
    for (int i = 0; i < m->n_adversaries; i++) {
        int64_t end = used;
        lay_out_adversary(m, &m->adversary[i], &scratch, arena, &end);
        most = end > most ? end : most;
    }
    return most;
}

static cpa_status place_activations(cpa_model *m)
{
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_op_alloc(m->be, (size_t)lay_out(m, NULL) * sizeof(cpa_real), (void **)&m->memory));
    lay_out(m, m->memory);
cleanup:
    return st;
}

static cpa_status dev(cpa_model *m, int64_t n, size_t size, void *out)
{
    return cpa_op_alloc(m->be, (size_t)n * size, (void **)out);
}

static int n_numbers(const cpa_model *m)
{
    return CPA_NUMBER_ADVERSARIES + 2 * m->n_adversaries;
}

cpa_status cpa_model_set_numbers(cpa_model *m, const cpa_lane_plan *plan)
{
    m->number[CPA_NUMBER_EPOCH] = plan->epoch;
    for (int i = 0; i < m->n_adversaries; i++) {
        for (int own = 0; own < 2; own++) {
            m->number[CPA_NUMBER_ADVERSARIES + 2 * i + own] = cpa_adversary_scale(&m->adversary[i], plan, own);
        }
    }
    return cpa_op_upload(m->be, m->numbers, m->number, (size_t)n_numbers(m) * sizeof *m->number);
}

static cpa_status place_batch(cpa_model *m)
{
    cpa_status st = CPA_OK;
    int twice = m->shape.mixup ? 2 : 1;
    int64_t b = m->shape.max_cells, nnz = m->shape.max_nnz * twice, mm = b * m->shape.max_comb_len * twice;
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
    CPA_TRY(dev(m, b, 4, &d->row));
    CPA_TRY(dev(m, b * m->shape.n_covs, 4, &d->cov_own));
    if (m->shape.mixup) {
        CPA_TRY(dev(m, b, 4, &d->label2));
        CPA_TRY(dev(m, b, 4, &d->partner));
        CPA_TRY(dev(m, 2 * b * m->shape.n_covs, 4, &d->cov));
        CPA_TRY(dev(m, b * m->shape.n_covs, 4, &d->cov_partner));
        CPA_TRY(dev(m, 2 * b, sizeof(cpa_real), &d->cov_weight));
        CPA_TRY(cpa_alloc(2 * (size_t)b, sizeof *m->host_cov, &m->host_cov));
        CPA_TRY(cpa_alloc(2 * (size_t)b, sizeof *m->host_weight, &m->host_weight));
    }
    CPA_TRY(dev(m, cpa_model_n_sums(m), sizeof(double), &m->sums));
    CPA_TRY(dev(m, n_numbers(m), sizeof(double), &m->numbers));
    CPA_TRY(cpa_alloc((size_t)n_numbers(m), sizeof *m->number, &m->number));
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

cpa_status cpa_model_place(cpa_model *m)
{
    cpa_status st = CPA_OK;
    CPA_TRY(place_activations(m));
    CPA_TRY(place_batch(m));
    CPA_TRY(m->training ? place_metrics(m) : CPA_OK);
cleanup:
    return st;
}

void cpa_model_unplace(cpa_model *m)
{
    cpa_device_batch *d = &m->batch;
    void *device[] = {m->memory, m->sums,    m->r2,     m->order,      m->offsets,     m->mask, m->best,    d->indptr,
                      d->gene,   d->count,   d->log1p,  d->library,    d->pert,        d->dose, d->label,   d->cell,
                      d->cov,    d->cov_own, d->label2, d->cov_weight, d->cov_partner, d->row,  d->partner, m->numbers};
    for (size_t i = 0; i < sizeof device / sizeof *device; i++) {
        if (device[i]) {
            cpa_op_release(m->be, device[i]);
        }
    }
    void *host[] = {m->host_order, m->host_offsets, m->host_mask,   m->host_best, m->host_r2,
                    m->host_hits,  m->host_cov,     m->host_weight, m->number};
    for (size_t i = 0; i < sizeof host / sizeof *host; i++) {
        cpa_free(&host[i]);
    }
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

static cpa_status read_choices(cpa_model *m, const cpa_model_config *c)
{
    cpa_status st = CPA_OK;
    static const char *const likelihood[] = {"nb", "zinb", "gauss"}, *const doser[] = {"logsigm", "sigm", "linear",
                                                                                       "mlp"};
    int a = 0, b = 0;
    while (a < 3 && strcmp(c->recon_loss, likelihood[a]) != 0) {
        a++;
    }
    while (b < 4 && strcmp(c->doser_type, doser[b]) != 0) {
        b++;
    }
    CPA_REQUIRE(a < 3, CPA_USAGE, "recon_loss '%s' is none of nb, zinb, gauss", c->recon_loss);
    CPA_REQUIRE(b < 4, CPA_USAGE, "doser_type '%s' is none of logsigm, sigm, linear, mlp", c->doser_type);
    m->likelihood = (cpa_likelihood)a;
    m->has_dose_nets = b == 3;
    m->doser = m->has_dose_nets ? CPA_DOSER_LINEAR : (cpa_doser)b;
    m->config = *c;
    m->config.recon_loss = m->config.doser_type = NULL; // borrowed strings that nothing here needs any more
cleanup:
    return st;
}

// External perturbation vectors go where a checkpoint would put them.
static cpa_status set_features(cpa_model *m, const float *features)
{
    cpa_status st = CPA_OK;
    cpa_real *host = NULL;
    int64_t n = (int64_t)m->shape.n_perts * m->shape.n_pert_features;
    CPA_TRY(cpa_alloc((size_t)n, sizeof *host, &host));
    for (int64_t i = 0; i < n; i++) {
        host[i] = features[i];
    }
    CPA_TRY(cpa_params_set(&m->t, m->pert_embedding, host));
cleanup:
    cpa_free(&host);
    return st;
}

cpa_status cpa_model_create(cpa_backend *be, const cpa_model_config *config, const cpa_shape *shape, bool training,
                            const double *label_weight, uint32_t *const *gene_mask, cpa_model **out)
{
    cpa_status st = CPA_OK;
    cpa_model *m = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *m, &m));
    m->be = be;
    CPA_TRY(read_choices(m, config));
    m->training = training;
    m->gene_mask = gene_mask;
    CPA_TRY(copy_shape(m, shape));
    CPA_TRY(declare_autoencoder(m));
    if (training) {
        CPA_TRY(declare_adversaries(m));
    }
    CPA_TRY(cpa_params_place(&m->t, be, training));
    CPA_TRY(cpa_model_place(m));
    if (shape->pert_features) {
        CPA_TRY(set_features(m, shape->pert_features));
    }
    if (training) {
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
    cpa_model_narrow(m);
    for (int i = 0; i < CPA_REPEATS; i++) {
        cpa_backend_forget(m->be, &m->repeat[i].what);
    }
    cpa_model_unplace(m);
    if (m->class_weights) {
        cpa_op_release(m->be, m->class_weights);
    }
    cpa_params_fini(&m->t);
    for (int c = 0; c < m->shape.n_covs && m->shape.cov_name; c++) {
        char *name = (char *)(uintptr_t)m->shape.cov_name[c];
        cpa_free(&name);
    }
    void *host[] = {(void *)(uintptr_t)m->shape.cov_name, (void *)(uintptr_t)m->shape.cov_size, m->cov_embedding,
                    m->adversary};
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
