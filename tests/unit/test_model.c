// Owns: gradients of the whole model against finite differences, dropout and penalty included; lanes that add up.
// Must never compare the model with itself at the same point.
#include "../support/on_kernels.h"
#include "../support/small_model.h"

#ifdef CPA_DOUBLE
static const double STEP = 1e-6, TOLERANCE = 2e-7;

// The value that the gradients in the arena are gradients of.
static double objective(cpa_model *m, const cpa_batch *b, const cpa_lane_plan *p)
{
    double s[MAX_SUMS];
    assert_true(cpa_model_n_sums(m) <= MAX_SUMS);
    assert_int_equal(cpa_model_lane(m, b, p, s), CPA_OK);
    double n = (double)p->n_cells, adv = s[CPA_SUM_ADV_PERT] / p->label_weight, penalty = s[CPA_SUM_PENALTY_PERT] / n;
    for (int c = 0; c < N_COVS; c++) {
        adv += s[CPA_SUM_COVS + CPA_SUMS_PER_COV * c + CPA_SUM_COV_ADV] / n;
        penalty += s[CPA_SUM_COVS + CPA_SUMS_PER_COV * c + CPA_SUM_COV_PENALTY] / n;
    }
    return p->update_autoencoder ? s[CPA_SUM_RECON] / n + p->kl_weight * s[CPA_SUM_KL] / n - p->adv_lambda * adv
                                 : adv + p->pen_adv * penalty;
}

static bool belongs(const cpa_param *p, const cpa_lane_plan *plan)
{
    return plan->update_autoencoder ? p->group <= CPA_GROUP_DOSER : p->group == CPA_GROUP_ADVERSARY;
}

// Central difference of the objective in one element of the value arena.
static double quotient(cpa_model *m, const cpa_batch *b, const cpa_lane_plan *plan, int64_t element, double step)
{
    cpa_params *t = cpa_model_params(m);
    cpa_dev_real *at = cpa_real_at(t->value, element);
    cpa_real v, up, down;
    cpa_op_download(t->be, &v, at, sizeof v);
    up = v + (cpa_real)step;
    down = v - (cpa_real)step;
    cpa_op_upload(t->be, at, &up, sizeof up);
    double f = objective(m, b, plan);
    cpa_op_upload(t->be, at, &down, sizeof down);
    f = (f - objective(m, b, plan)) / ((double)up - (double)down);
    cpa_op_upload(t->be, at, &v, sizeof v);
    return f;
}

// Central differences over every element of every parameter that the plan updates.
static void check_gradients(const char *backend, const variant *kind, bool autoencoder)
{
    cpa_backend *be;
    assert_int_equal(cpa_backend_create(backend, &be), CPA_OK);
    cpa_model *m = make_model(be, kind);
    cpa_batch *b = batch_of(kind);
    cpa_lane_plan plan = plan_for(b, autoencoder, !autoencoder);
    plan.mix_covariates = kind->mix_covariates;
    cpa_params *t = cpa_model_params(m);
    objective(m, b, &plan);
    cpa_real *grad = calloc((size_t)t->n_grad, sizeof *grad);
    assert_int_equal(cpa_op_download(be, grad, t->grad, (size_t)t->n_grad * sizeof *grad), CPA_OK);
    double scale = 0;
    int checked = 0;
    for (int64_t i = 0; i < t->n_trained; i++) {
        scale = fmax(scale, fabs((double)grad[i]));
    }
    for (int i = 0; i < t->n; i++) {
        for (int64_t e = 0; belongs(&t->p[i], &plan) && e < cpa_param_size(&t->p[i]); e++) {
            double f = quotient(m, b, &plan, t->p[i].at + e, STEP);
            double g = (double)grad[t->p[i].at + e];
            if (fabs(f - g) >
                TOLERANCE * (scale + fabs(f))) { // a kink of ReLU inside the step? A shorter one misses it.
                f = quotient(m, b, &plan, t->p[i].at + e, STEP / 20);
            }
            if (fabs(f - g) > TOLERANCE * (scale + fabs(f))) {
                fail_msg("%s, %s%s%s%s%s%s%s%s: %s[%lld]: gradient %.9g, difference quotient %.9g", kind->likelihood,
                         kind->doser, kind->batch_norm ? ", batch norm" : "", kind->layer_norm ? ", layer norm" : "",
                         kind->variational ? ", variational" : "", kind->mixup ? ", mixup" : "",
                         kind->mix_covariates ? " of covariates" : "", kind->nb_dropout ? ", dropout of counts" : "",
                         kind->control_zero ? ", control zero" : "", t->p[i].name, (long long)e, g, f);
            }
            checked++;
        }
    }
    assert_true(checked > 100 && scale > 0);
    free(grad);
    cpa_batch_destroy(&b);
    cpa_model_destroy(&m);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
}

static void gradients_behind_memory_guards(void **state)
{
    (void)state;
    check_gradients("check", &plain, true);
    check_gradients("check", &plain, false);
}

static void gradients_of_every_combination(void **state)
{
    (void)state;
    for (int i = 0; i < COMBINATIONS; i++) {
        variant v = combination(i);
        check_gradients("cpu", &v, true);
    }
}

// Few, for on the host they run slowly; every combination is held against the cpu in test_model_backends.c.
static void gradients_of_kernels(void **state)
{
    (void)state;
    const variant other = {.likelihood = "zinb", .doser = "sigm", .layer_norm = true, .variational = true};
    check_gradients(ON_KERNELS, &plain, true);
    check_gradients(ON_KERNELS, &plain, false);
    check_gradients(ON_KERNELS, &other, true);
}

// The adversaries see nothing of likelihood and dose response.
static void adversary_gradients_of_every_combination(void **state)
{
    (void)state;
    for (int i = 0; i < 4 * 2 * 2; i++) {
        variant v = plain;
        v.batch_norm = (i & 1) != 0;
        v.layer_norm = (i & 2) != 0;
        v.variational = (i & 4) != 0;
        v.mixup = (i & 8) != 0;
        check_gradients("cpu", &v, false);
    }
}

// A network for the dose of each perturbation, single and in combinations, mixed or not; the control may be nothing.
static void gradients_of_dose_networks(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        variant v = plain;
        v.doser = "mlp";
        v.mixup = (i & 1) != 0;
        v.control_zero = (i & 2) != 0;
        check_gradients("cpu", &v, true);
    }
}

// What --semantics fixed changes in the model.
static void gradients_of_mended_rows(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        variant v = plain;
        v.mixup = v.mix_covariates = true;
        check_gradients("cpu", &v, i == 0);
        v = plain;
        v.nb_dropout = true;
        v.likelihood = i ? "zinb" : "nb";
        check_gradients("cpu", &v, true);
        v = plain;
        v.control_zero = true;
        v.mixup = i == 1;
        check_gradients("cpu", &v, true);
    }
}

#endif

// Sum of the loss of covariate 2's adversary over a batch (whose partners have the same covariate 0).
static double covariate_loss(cpa_model *m, const cpa_batch *b, bool both)
{
    double sums[MAX_SUMS];
    cpa_lane_plan plan = plan_for(b, false, true);
    plan.mix_covariates = both;
    assert_int_equal(cpa_model_lane(m, b, &plan, sums), CPA_OK);
    return sums[CPA_SUM_COVS + CPA_SUMS_PER_COV * 2 + CPA_SUM_COV_ADV];
}

// L4: lambda CE(own) + (1 - lambda) CE(partner), of which upstream has the first term alone.
static void partners_count_for_covariates(void **state)
{
    (void)state;
    cpa_backend *be;
    assert_int_equal(cpa_backend_create("cpu", &be), CPA_OK);
    variant v = plain;
    v.mixup = true;
    cpa_model *m = make_model(be, &v);
    cpa_batch *b = batch_of(&v);
    double lambda = b->mixup_lambda, own = covariate_loss(m, b, false) / lambda, both = covariate_loss(m, b, true);
    memcpy(b->cov + 2 * B, b->cov2 + 2 * B, B * sizeof *b->cov); // adversaries see the basal latent alone
    double partner = covariate_loss(m, b, false) / lambda;
    assert_true(fabs(own - partner) > 1e-3 * own);
    assert_true(fabs(both - lambda * own - (1 - lambda) * partner) < 1e-5 * both);
    cpa_batch_destroy(&b);
    cpa_model_destroy(&m);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
}

static double reconstruction_loss(const variant *v)
{
    cpa_backend *be;
    double sums[MAX_SUMS];
    assert_int_equal(cpa_backend_create("cpu", &be), CPA_OK);
    cpa_model *m = make_model(be, v);
    cpa_batch *b = make_cells(0, B, B);
    cpa_lane_plan plan = plan_for(b, true, false);
    assert_int_equal(cpa_model_lane(m, b, &plan, sums), CPA_OK);
    cpa_batch_destroy(&b);
    cpa_model_destroy(&m);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
    return sums[CPA_SUM_RECON];
}

// M10: upstream's count decoders ignore dropout_rate_decoder.
static void decoder_dropout_of_counts(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        variant without = plain, with = plain;
        without.likelihood = with.likelihood = i ? "gauss" : "nb";
        with.nb_dropout = true;
        assert_true((reconstruction_loss(&with) == reconstruction_loss(&without)) == (i == 1)); // gauss has it anyway
    }
}

// D2: what the control adds to the latent.
static void control_adds_nothing(void **state)
{
    (void)state;
    for (int zero = 0; zero < 2; zero++) {
        cpa_backend *be;
        cpa_real z[B * 5];
        assert_int_equal(cpa_backend_create("cpu", &be), CPA_OK);
        variant v = plain;
        v.control_zero = zero == 1;
        cpa_model *m = make_model(be, &v);
        cpa_batch *b = make_cells(0, B, B);
        assert_int_equal(cpa_model_infer(m, b), CPA_OK);
        assert_int_equal(cpa_model_latent(m, CPA_LATENT_PERT, z), CPA_OK);
        for (int i = 0; i < B; i++) {
            bool nothing = true;
            for (int k = 0; k < 5; k++) {
                nothing = nothing && z[i * 5 + k] == 0;
            }
            bool control = b->pert[i * M] == 1 && b->pert[i * M + 1] == 0;
            assert_int_equal(nothing, zero && control);
        }
        assert_int_equal(b->pert[4 * M], 1); // there is one
        cpa_batch_destroy(&b);
        cpa_model_destroy(&m);
        assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
    }
}

// The values of a tensor, to be freed.
static cpa_real *tensor(cpa_model *m, const char *name)
{
    cpa_params *t = cpa_model_params(m);
    int id = cpa_params_find(t, name);
    assert_true(id >= 0);
    cpa_real *v = calloc((size_t)cpa_param_size(&t->p[id]), sizeof *v);
    assert_int_equal(cpa_params_get(t, t->value, id, v), CPA_OK);
    return v;
}

// sigmoid(network(dose)) of perturbation p where the dose is above 0, by hand: two hidden layers of 3.
static double dose_effect(cpa_model *m, int p, double dose)
{
    static const char *const names[] = {"Layer 0.weight", "Layer 0.bias",  "Layer 1.weight",
                                        "Layer 1.bias",   "output.weight", "output.bias"};
    cpa_real *v[6];
    double y[3], z[3], out;
    for (int k = 0; k < 6; k++) {
        char name[80];
        snprintf(name, sizeof name, "module/pert_network.dosers.%s", names[k]);
        v[k] = tensor(m, name);
    }
    for (int h = 0; h < 3; h++) {
        y[h] = fmax(0, (double)v[0][p * 3 + h] * dose + (double)v[1][p * 3 + h]);
    }
    out = (double)v[5][p];
    for (int h = 0; h < 3; h++) {
        z[h] = (double)v[3][p * 3 + h];
        for (int i = 0; i < 3; i++) {
            z[h] += (double)v[2][(p * 3 + h) * 3 + i] * y[i];
        }
        out += (double)v[4][p * 3 + h] * fmax(0, z[h]);
    }
    for (int k = 0; k < 6; k++) {
        free(v[k]);
    }
    return dose > 0 ? 1 / (1 + exp(-out)) : 0;
}

// M5: what perturbations add to the latent; a dose of 0 adds nothing.
static void dose_networks_scale_embeddings(void **state)
{
    (void)state;
    cpa_backend *be;
    cpa_real z[B * 5];
    assert_int_equal(cpa_backend_create("cpu", &be), CPA_OK);
    variant v = plain;
    v.doser = "mlp";
    cpa_model *m = make_model(be, &v);
    cpa_batch *b = make_cells(0, B, B);
    b->dose[M] = 0;
    assert_int_equal(cpa_model_infer(m, b), CPA_OK);
    assert_int_equal(cpa_model_latent(m, CPA_LATENT_PERT, z), CPA_OK);
    cpa_real *e = tensor(m, "module/pert_network.pert_embedding.weight");
    for (int i = 0; i < B; i++) {
        double effect[M];
        for (int k = 0; k < M; k++) {
            int p = b->pert[i * M + k];
            effect[k] = p ? dose_effect(m, p, (double)b->dose[i * M + k]) : 0;
        }
        for (int l = 0; l < 5; l++) {
            double want =
                effect[0] * (double)e[b->pert[i * M] * 5 + l] + effect[1] * (double)e[b->pert[i * M + 1] * 5 + l];
            assert_true(fabs((double)z[i * 5 + l] - want) < 1e-5);
            assert_true(i != 1 || z[i * 5 + l] == 0);
        }
    }
    free(e);
    cpa_batch_destroy(&b);
    cpa_model_destroy(&m);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
}

// A second lane of the same batch allocates nothing.
// What was said to be final, as it was then.
typedef struct watcher {
    cpa_model *m;
    cpa_range piece[CPA_MODEL_PIECES];
    int n_pieces;
    cpa_real *seen; // [n_grad]
} watcher;

static cpa_status look(void *ctx, int n_pieces)
{
    watcher *w = ctx;
    cpa_params *t = cpa_model_params(w->m);
    for (; w->n_pieces < n_pieces; w->n_pieces++) {
        cpa_range p = w->piece[w->n_pieces];
        cpa_op_download(t->be, w->seen + p.offset, cpa_real_at(t->grad, p.offset), (size_t)p.length * sizeof *w->seen);
    }
    return CPA_OK;
}

// A piece that the model calls final is what it is at the end of the lane; all pieces together are the arena.
static void final_pieces_do_not_change(void **state)
{
    (void)state;
    static const variant variants[] = {
        {.likelihood = "nb", .doser = "mlp", .batch_norm = true, .mixup = true},
        {.likelihood = "zinb", .doser = "sigm", .layer_norm = true, .variational = true},
        {.likelihood = "gauss", .doser = "linear"},
    };
    for (size_t i = 0; i < 2 * (sizeof variants / sizeof variants[0]); i++) {
        cpa_backend *be;
        double sums[MAX_SUMS];
        assert_int_equal(cpa_backend_create("cpu", &be), CPA_OK);
        cpa_model *m = make_model(be, &variants[i / 2]);
        cpa_batch *b = batch_of(&variants[i / 2]);
        size_t n = (size_t)cpa_model_params(m)->n_grad, bytes = n * sizeof(cpa_real);
        watcher w = {.m = m, .seen = malloc(bytes)};
        memset(w.seen, 0xff, bytes); // NaN: a place that no piece covers would show
        cpa_lane_plan plan = plan_for(b, true, i % 2 == 1);
        plan.final = look;
        plan.final_ctx = &w;
        cpa_model_pieces(m, w.piece);
        assert_int_equal(cpa_model_lane(m, b, &plan, sums), CPA_OK);
        assert_int_equal(w.n_pieces, 3);
        look(&w, CPA_MODEL_PIECES);
        assert_memory_equal(w.seen, cpa_backend_host(be, cpa_model_params(m)->grad), bytes);
        free(w.seen);
        cpa_batch_destroy(&b);
        cpa_model_destroy(&m);
        assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
    }
}

static void a_step_allocates_nothing(void **state)
{
    (void)state;
    cpa_backend *be;
    double sums[MAX_SUMS];
    assert_int_equal(cpa_backend_create("cpu", &be), CPA_OK);
    cpa_model *m = make_model(be, &plain);
    cpa_batch *b = make_cells(0, B, B);
    cpa_lane_plan plan = plan_for(b, true, true);
    plan.want_metrics = true;
    assert_int_equal(cpa_model_lane(m, b, &plan, sums), CPA_OK);
    long before = cpa_alloc_count();
    assert_int_equal(cpa_model_lane(m, b, &plan, sums), CPA_OK);
    assert_int_equal(cpa_alloc_count(), before);
    cpa_batch_destroy(&b);
    cpa_model_destroy(&m);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifdef CPA_DOUBLE // in float a step small enough to miss the kinks of ReLU drowns in rounding; golden fixtures judge float gradients
        cmocka_unit_test(gradients_behind_memory_guards), cmocka_unit_test(gradients_of_kernels),
        cmocka_unit_test(gradients_of_every_combination), cmocka_unit_test(adversary_gradients_of_every_combination),
        cmocka_unit_test(gradients_of_dose_networks),     cmocka_unit_test(gradients_of_mended_rows),
#endif
        cmocka_unit_test(partners_count_for_covariates),  cmocka_unit_test(decoder_dropout_of_counts),
        cmocka_unit_test(control_adds_nothing),           cmocka_unit_test(dose_networks_scale_embeddings),
        cmocka_unit_test(final_pieces_do_not_change),     cmocka_unit_test(a_step_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
