// Owns: gradient checkpointing: the same bits as without it - losses, gradients, statistics - in every kind of stack, and what it saves; and
// that the adversaries take no room beside the autoencoder. Must never allow a tolerance.
#include "../support/on_kernels.h"
#include "../support/small_model.h"

enum { N_LANES = 3, CELLS = 11, STEPS = 3 };

static const int first_cell[N_LANES + 1] = {0, 4, 5, CELLS};

// A model and how it is run.
typedef struct setting {
    int n_encoder, n_decoder;
    double dropout;
    variant v;
    bool meet; // its lanes side by side, with common batch statistics
} setting;

static cpa_model *make(cpa_backend *be, const setting *s, bool checkpointing)
{
    cpa_model_config c = {.recon_loss = (char *)(uintptr_t)s->v.likelihood,
                          .doser_type = (char *)(uintptr_t)s->v.doser,
                          .use_batch_norm_encoder = s->v.batch_norm,
                          .use_layer_norm_encoder = s->v.layer_norm,
                          .use_batch_norm_decoder = s->v.batch_norm,
                          .use_layer_norm_decoder = s->v.layer_norm,
                          .use_batch_norm_adv = true,
                          .dropout_rate_encoder = s->dropout,
                          .dropout_rate_decoder = s->dropout / 2,
                          .nb_decoder_dropout = true,
                          .variational = s->v.variational,
                          .n_latent = 5,
                          .n_hidden_encoder = 7,
                          .n_layers_encoder = s->n_encoder,
                          .n_hidden_decoder = 6,
                          .n_layers_decoder = s->n_decoder,
                          .n_hidden_adv = 6,
                          .n_layers_adv = 2,
                          .dropout_rate_adv = s->dropout};
    cpa_shape shape = shape_of(CELLS, G, CELLS * G);
    shape.checkpointing = checkpointing;
    cpa_model *m;
    assert_int_equal(cpa_model_create(be, &c, &shape, true, label_weight, NULL, &m), CPA_OK);
    assert_int_equal(cpa_params_init(cpa_model_params(m), 3), CPA_OK);
    return m;
}

// All lanes are at hand.
static cpa_status add_up(void *ctx, int n)
{
    add_up_lanes(ctx, N_LANES, n);
    return CPA_OK;
}

// The bits of sums, and gradients with the batch statistics behind them, of all lanes.
typedef struct outcome {
    double sums[N_LANES * MAX_SUMS], recon_loss;
    cpa_real *grad;
    size_t n;
} outcome;

// Twice, for what a first step leaves must not matter to a second; then a validation. Steps allocate nothing.
static outcome run(const char *backend, const setting *s, bool checkpointing, bool autoencoder, bool adversary)
{
    cpa_backend *be;
    cpa_batch *batch[N_LANES];
    const cpa_batch *in[N_LANES];
    cpa_scores scores;
    int n_lanes = s->meet ? N_LANES : 1;
    assert_int_equal(cpa_backend_create(backend, &be), CPA_OK);
    cpa_model *m = make(be, s, checkpointing);
    cpa_params *t = cpa_model_params(m);
    cpa_meeting meeting = {.rows = CELLS, .add_up = add_up, .ctx = &meeting};
    int width = cpa_model_n_pooled(m);
    meeting.own = calloc((size_t)(N_LANES * width), sizeof(double));
    meeting.all = calloc((size_t)width, sizeof(double));
    for (int k = 0; k < n_lanes; k++) {
        in[k] = batch[k] = make_cells(s->meet ? first_cell[k] : 0, s->meet ? first_cell[k + 1] : CELLS, CELLS);
    }
    cpa_batch *whole = make_cells(0, CELLS, CELLS);
    cpa_lane_plan plan = plan_for(whole, autoencoder, adversary);
    plan.want_metrics = autoencoder;
    plan.meeting = s->meet ? &meeting : NULL;
    assert_int_equal(cpa_model_widen(m, n_lanes), CPA_OK);
    outcome o = {.n = (size_t)n_lanes * (size_t)t->n_grad};
    o.grad = calloc(o.n, sizeof *o.grad);
    long before = 0;
    for (int i = 0; i < STEPS; i++) {
        before = cpa_alloc_count();
        assert_int_equal(cpa_model_lanes(m, in, n_lanes, &plan, o.sums), CPA_OK);
    }
    assert_int_equal(cpa_alloc_count(), before);
    for (int k = 0; k < n_lanes; k++) {
        cpa_op_download(be, o.grad + (size_t)k * (size_t)t->n_grad, cpa_model_lane_grad(m, k),
                        (size_t)t->n_grad * sizeof *o.grad);
        cpa_batch_destroy(&batch[k]);
    }
    assert_int_equal(cpa_model_validate(m, whole, &scores), CPA_OK);
    o.recon_loss = scores.recon_loss;
    cpa_batch_destroy(&whole);
    free(meeting.own);
    free(meeting.all);
    cpa_model_destroy(&m);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
    return o;
}

static void same_bits(const char *backend, const setting *s)
{
    for (int what = 1; what < 4; what++) { // the autoencoder, the adversaries, both
        outcome kept = run(backend, s, false, what & 1, what & 2), again = run(backend, s, true, what & 1, what & 2);
        double most = 0;
        for (size_t i = 0; i < kept.n; i++) {
            most = fmax(most, fabs((double)kept.grad[i]));
        }
        assert_true(isfinite(most) && most > 0 && isfinite(kept.recon_loss));
        if (memcmp(kept.sums, again.sums, sizeof kept.sums) != 0 ||
            memcmp(kept.grad, again.grad, kept.n * sizeof *kept.grad) != 0 || kept.recon_loss != again.recon_loss) {
            fail_msg(
                "%s, %d and %d layers, updates %d: other bits (batch norm %d, layer norm %d, dropout %g, variational "
                "%d, lanes that meet %d)",
                backend, s->n_encoder, s->n_decoder, what, s->v.batch_norm, s->v.layer_norm, s->dropout,
                s->v.variational, s->meet);
        }
        free(kept.grad);
        free(again.grad);
    }
}

// Every depth with every norm; the others turn by turn.
static setting setting_of(int i)
{
    static const char *const likelihood[] = {"nb", "zinb", "gauss"};
    int depth = 1 + i % CPA_MAX_LAYERS, norms = i / CPA_MAX_LAYERS % 4, turn = i / CPA_MAX_LAYERS / 4;
    setting s = {.n_encoder = depth,
                 .n_decoder = turn ? CPA_MAX_LAYERS + 1 - depth : depth,
                 .dropout = (i + turn) % 2 ? 0.3 : 0,
                 .meet = (i / 2 + turn) % 2,
                 .v = {.likelihood = likelihood[i % 3],
                       .doser = "logsigm",
                       .batch_norm = norms & 1,
                       .layer_norm = norms & 2,
                       .variational = (i / 3 + turn) % 2}};
    return s;
}

static void the_same_bits_in_every_kind_of_stack(void **state)
{
    (void)state;
    for (int i = 0; i < CPA_MAX_LAYERS * 4 * 2; i++) {
        setting s = setting_of(i);
        same_bits("cpu", &s);
    }
}

static void the_same_bits_behind_memory_guards_and_of_kernels(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        setting s = {.n_encoder = 5,
                     .n_decoder = 8,
                     .dropout = 0.3,
                     .meet = i & 1,
                     .v = {.likelihood = "nb", .doser = "logsigm", .batch_norm = i & 1, .layer_norm = i & 2}};
        same_bits("check", &s);
        same_bits(ON_KERNELS, &s);
    }
}

// Bytes that a model takes on a device, by the backend that counts.
static long planned(const cpa_model_config *c, int cells, int genes, bool checkpointing)
{
    cpa_backend *be;
    cpa_model *m;
    cpa_shape shape = shape_of(cells, genes, cells * genes / 10);
    shape.checkpointing = checkpointing;
    assert_int_equal(cpa_backend_create_counting("cuda", &be), CPA_OK);
    long before = cpa_memory_bytes(CPA_MEMORY_DEVICE);
    assert_int_equal(cpa_model_create(be, c, &shape, true, label_weight, NULL, &m), CPA_OK);
    long bytes = cpa_memory_bytes(CPA_MEMORY_DEVICE) - before;
    cpa_model_destroy(&m);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
    return bytes;
}

static const cpa_model_config wide = {.recon_loss = (char *)(uintptr_t) "nb",
                                      .doser_type = (char *)(uintptr_t) "logsigm",
                                      .use_batch_norm_adv = true,
                                      .n_latent = 128,
                                      .n_hidden_encoder = 512,
                                      .n_hidden_decoder = 512,
                                      .n_hidden_adv = 64,
                                      .n_layers_adv = 3,
                                      .dropout_rate_adv = 0.1};

// Four fifths of what four hidden layers and more leave for the backward - their outputs, and as much for every norm - and three quarters
// where there is no norm to save, but for the mask that is drawn again. A thousandth is statistics of the layer that is computed again.
static void saves_four_fifths_of_hidden_activations(void **state)
{
    (void)state;
    enum { N = 2048, GENES = 5000 };
    for (int i = 0; i < 5 * 8; i++) {
        cpa_model_config c = wide;
        int depth = 4 + i / 8, norms = (i & 1) + (i >> 1 & 1);
        bool dropout = i & 4;
        c.n_layers_encoder = c.n_layers_decoder = depth;
        c.use_batch_norm_encoder = c.use_batch_norm_decoder = i & 1;
        c.use_layer_norm_encoder = c.use_layer_norm_decoder = i & 2;
        c.dropout_rate_encoder = dropout ? 0.1 : 0;
        double matrix = 512.0 * N * sizeof(cpa_real), hidden = 2 * depth * (1 + norms) * matrix;
        double saved = (double)(planned(&c, N, GENES, false) - planned(&c, N, GENES, true));
        double least = norms > 0 ? 0.8 * hidden : 0.75 * hidden - (dropout ? matrix : 0);
        if (saved < least - 0.001 * hidden) {
            fail_msg("%d layers, batch norm %d, layer norm %d, dropout %d: %.1f %% of %.1f MiB saved", depth, i & 1,
                     i >> 1 & 1, dropout, 100 * saved / hidden, hidden / 0x1p20);
        }
    }
}

// Six times the layers in the adversaries: more parameters, and not a byte to compute in.
static void adversaries_take_no_room_of_their_own(void **state)
{
    (void)state;
    enum { N = 2048, GENES = 2000 };
    cpa_model_config c = wide;
    c.n_layers_encoder = c.n_layers_decoder = 3;
    c.n_layers_adv = 1;
    long shallow = planned(&c, N, GENES, false);
    c.n_layers_adv = 6;
    long grown = planned(&c, N, GENES, false) - shallow;
    int adversaries = 1;
    for (int i = 0; i < N_COVS; i++) {
        adversaries += cov_sizes[i] > 1;
    }
    long parameters = 5L * (64 * 64 + 64 * 5), copies = 4,
         most = adversaries * parameters * copies * (long)sizeof(cpa_real);
    assert_true(grown > 0 && grown <= most + 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_bits_in_every_kind_of_stack),
        cmocka_unit_test(the_same_bits_behind_memory_guards_and_of_kernels),
        cmocka_unit_test(saves_four_fifths_of_hidden_activations),
        cmocka_unit_test(adversaries_take_no_room_of_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
