// Owns: tests of the rows of docs/semantics.md that are options: the switch and what beats it, what a run says of them,
// and what those of the data, the schedule and the history do. Those of the model are in test_model.c.
#include "../support/obs_files.h"

#include "cpa/app/semantics.h"
#include "cpa/train/history.h"
#include "cpa/train/schedule.h"

// Parses words; the first is a command.
static void parse(cpa_options *o, char **words)
{
    int n = 0;
    while (words[n] != NULL) {
        n++;
    }
    if (cpa_options_parse(n, words, o) != CPA_OK) {
        fail_msg("%s", cpa_message());
    }
}

#define PARSE(o, ...) parse(o, (char *[]){"cpa-hpc", "train", "a", "--out", "r", __VA_ARGS__, NULL})

// Every row is a flag or a choice whose values are all ones it takes.
static void test_rows_are_sound(void **state)
{
    (void)state;
    int n = 0;
    for (int i = 0; i < CPA_N_OPTIONS; i++) {
        const cpa_option *p = &cpa_option_table()[i];
        if (p->row == NULL) {
            assert_true(p->upstream == NULL && p->fixed == NULL);
            continue;
        }
        n++;
        assert_true(p->type == CPA_OPTION_BOOL || (p->type == CPA_OPTION_STRING && p->choices != NULL));
        assert_true(p->def != NULL &&
                    (p->fixed != NULL) != (p->upstream != NULL)); // a choice, or an error kept for show
        assert_string_not_equal(p->def, p->fixed != NULL ? p->fixed : p->upstream);
    }
    assert_true(n >= 9);
}

// Whether all rows are at what --semantics fixed makes of them.
static bool all_fixed(const cpa_options *o)
{
    for (int i = 0; i < CPA_N_OPTIONS; i++) {
        const cpa_option *p = &cpa_option_table()[i];
        if (p->fixed != NULL && !cpa_option_is(o, i, p->fixed)) {
            return false;
        }
    }
    return true;
}

static void test_switch(void **state)
{
    (void)state;
    cpa_options o;
    PARSE(&o, "--quiet");
    assert_string_equal(o.semantics, "cpa-0.8.8");
    assert_string_equal(o.train.lr_schedule, "upstream");
    assert_true(!all_fixed(&o) && !o.model.control_zero && !o.data.compat_dose_order);
    cpa_options_fini(&o);
    PARSE(&o, "--semantics", "fixed");
    assert_true(all_fixed(&o) && !o.data.compat_dose_order);
    cpa_options_fini(&o);
}

// What is said of a row beats the switch, wherever either is said.
static void test_precedence(void **state)
{
    (void)state;
    cpa_options o;
    FILE *f = fopen(path, "w");
    fprintf(f, "semantics: fixed\nlr_schedule: upstream\ncontrol_zero: false\nstep_unit: optimizer\n");
    fclose(f);
    PARSE(&o, "--config", path, "--step-unit", "batch");
    assert_string_equal(o.train.lr_schedule, "upstream");
    assert_string_equal(o.train.step_unit, "batch");
    assert_string_equal(o.train.class_weights, "train");
    assert_true(!o.model.control_zero && o.model.nb_decoder_dropout);
    cpa_options_fini(&o);
    PARSE(&o, "--config", path, "--semantics", "cpa-0.8.8");
    assert_string_equal(o.train.class_weights, "all");
    cpa_options_fini(&o);
    PARSE(&o, "--control-zero", "false", "--preset", "norman", "--semantics", "fixed", "--mixup-warmup", "upstream");
    assert_true(!o.model.control_zero && o.train.mixup_alpha == 0.1);
    assert_string_equal(o.train.mixup_warmup, "upstream");
    assert_string_equal(o.train.epoch_means, "exact");
    cpa_options_fini(&o);
}

// A registry in which every row of the data matters.
static const table rich = {.obs = {{"condition", "B+A,ctrl,A,ctrl,A,ctrl,A,B+A"},
                                   {"dose", "0.1+1,0,1,0,1,0,1,0.1+1"},
                                   {"cell_type", "T,T,T,B,B,T,B,T"},
                                   {"split", "ood,train,train,train,test,train,train,ood"}}};

static void rows_of(cpa_options *o, cpa_text *different, cpa_text *upstream)
{
    cpa_registry *r = NULL;
    assert_int_equal(registry_of(&rich, &o->data, true, &r), CPA_OK);
    assert_int_equal(cpa_semantics_rows(o, r, different, upstream), CPA_OK);
    cpa_registry_destroy(&r);
    cpa_options_fini(o);
}

#define EVERYTHING                                                                                                     \
    "--max-epochs", "9", "--mixup-alpha", "0.2", "--n-epochs-mixup-warmup", "2", "--n-epochs-pretrain-ae", "2",        \
        "--step-size-lr", "2", "--dropout-rate-decoder", "0.1", "--n-steps-adv-warmup", "5"

// No option with a row goes unmentioned where it matters, on the one side or the other.
static void test_every_row_is_told(void **state)
{
    (void)state;
    for (int fixed = 0; fixed < 2; fixed++) {
        cpa_options o;
        cpa_text different = {0}, upstream = {0};
        PARSE(&o, EVERYTHING, "--semantics", fixed ? "fixed" : "cpa-0.8.8", "--compat-dose-order", fixed ? "0" : "1",
              "--freeze-pert-projection", fixed ? "0" : "1", "--pert-embeddings", "vectors.h5",
              fixed ? "--quiet" : "--mixup-warmup=linear"); // L4 needs mixup
        rows_of(&o, &different, &upstream);
        for (int i = 0; i < CPA_N_OPTIONS; i++) {
            const cpa_option *p = &cpa_option_table()[i];
            char row[40];
            if (p->row == NULL || (p->commands & CPA_FOR_TRAIN) == 0) {
                continue;
            }
            bool differs = fixed || strcmp(p->row, "T11") == 0;
            snprintf(row, sizeof row, differs ? "%s %s " : "%s ", p->row, p->name);
            if (strstr(cpa_text_str(differs ? &different : &upstream), row) == NULL) {
                fail_msg("%s, row '%s': not in '%s'", fixed ? "fixed" : "upstream", row,
                         cpa_text_str(differs ? &different : &upstream));
            }
        }
        assert_true(!fixed || upstream.n == 0);
        assert_non_null(strstr(cpa_text_str(&different), "E6 ")); // nine epochs are too few for upstream
        cpa_text_fini(&different);
        cpa_text_fini(&upstream);
    }
}

// Expects a row in one of the two texts, or in neither.
static void check_row(cpa_options *o, const char *row, bool in_different, bool in_upstream)
{
    cpa_text different = {0}, upstream = {0};
    rows_of(o, &different, &upstream);
    if ((strstr(cpa_text_str(&different), row) != NULL) != in_different ||
        (strstr(cpa_text_str(&upstream), row) != NULL) != in_upstream) {
        fail_msg("%s: different '%s', upstream '%s'", row, cpa_text_str(&different), cpa_text_str(&upstream));
    }
    cpa_text_fini(&different);
    cpa_text_fini(&upstream);
}

// What cannot act in a run is not told.
static void test_rows_without_effect(void **state)
{
    (void)state;
    cpa_options o;
    PARSE(&o, "--max-epochs", "44", "--semantics", "fixed"); // the first decay would be that of epoch 45
    check_row(&o, "T15", false, false);
    PARSE(&o, "--max-epochs", "46", "--semantics", "fixed");
    check_row(&o, "T15 lr_schedule every", true, false);
    PARSE(&o, "--max-epochs", "46");
    check_row(&o, "T15", false, true);
    PARSE(&o, "--max-epochs", "9", "--mixup-alpha", "0.1", "--n-epochs-pretrain-ae", "3");
    check_row(&o, "T11", false, false); // without a warm-up it mixes from the beginning
    PARSE(&o, "--max-epochs", "3", "--mixup-alpha", "0.1", "--n-epochs-pretrain-ae", "3", "--n-epochs-mixup-warmup",
          "1");
    check_row(&o, "T11", false, false); // too short to have begun
    PARSE(&o, EVERYTHING);
    check_row(&o, "T11 mixup never happens", false, true);
    PARSE(&o, EVERYTHING);
    check_row(&o, "L4", false, false); // hence nothing to forget
    PARSE(&o, EVERYTHING, "--mixup-warmup", "linear", "--categorical-covariate-keys=");
    check_row(&o, "L4", false, false); // nor without covariates
    PARSE(&o, EVERYTHING, "--recon-loss", "gauss");
    check_row(&o, "M10", false, false);
    PARSE(&o, "--n-steps-kl-warmup", "5");
    check_row(&o, "T8", false, false); // no variational latent
    PARSE(&o, "--n-steps-kl-warmup", "5", "--variational");
    check_row(&o, "T8", false, true);
    PARSE(&o, "--max-epochs", "10");
    check_row(&o, "E6", false, false); // upstream validates the tenth
    PARSE(&o, "--max-epochs", "1", "--check-val-every-n-epoch", "1");
    check_row(&o, "E6", true, false); // the first does not count there
    PARSE(&o, "--pert-embeddings", "vectors.h5");
    check_row(&o, "M14 freeze_pert_projection false", true, false);
    PARSE(&o, "--dosage-key=");
    check_row(&o, "M14", false, false);
    PARSE(&o, "--dosage-key=");
    check_row(&o, "D4", false, false);
    PARSE(&o, "--split-key=", "--train-size", "1");
    check_row(&o, "T17", false, false); // every cell trains
}

// T17: classes counted over the cells that train; one that no such cell has weighs nothing.
static void test_class_weights(void **state)
{
    (void)state;
    cpa_registry *r = NULL;
    double weight[3];
    const double all[] = {8.0 / 3 - 1, 3, 8.0 / 3 - 1}, train[] = {1.5, 0, 5.0 / 3 - 1};
    assert_int_equal(registry_of(&rich, &(cpa_data_spec){0}, true, &r), CPA_OK);
    assert_memory_equal(r->label_weight, all, sizeof all); // of A, B+A and ctrl
    assert_int_equal(cpa_registry_class_weights(r, true, weight), CPA_OK);
    assert_memory_equal(weight, train, sizeof train);
    cpa_registry_destroy(&r);
}

// D4: doses by position, or as upstream gives them to the sorted components; the control comes first in its order.
static void test_dose_order(void **state)
{
    (void)state;
    static const table t = {
        .obs = {{"condition", "ctrl,B+A,A+B,B+A,A+ctrl,C+A+B"}, {"dose", "0,2+1,2+1,3+3,2+1,1+2+3"}}};
    static const double dose[2][6][3] = {{{2, 1}, {2, 1}, {2, 1}, {3, 3}, {1, 2, 3}, {0}},
                                         {{2, 1}, {1, 2}, {1, 2}, {3, 3}, {3, 1, 2}, {0}}};
    for (int compat = 0; compat < 2; compat++) {
        cpa_registry *r = NULL;
        assert_int_equal(registry_of(&t, &(cpa_data_spec){.compat_dose_order = compat == 1}, true, &r), CPA_OK);
        assert_true(r->n_reordered == 3 && r->n_conditions == 6 && r->spec.compat_dose_order == (compat == 1));
        for (int k = 0; k < 6; k++) { // sorted by name, then dose
            const cpa_condition *c = &r->condition[k];
            assert_memory_equal(c->dose, dose[compat][k], (size_t)c->n * sizeof(double));
        }
        cpa_registry_destroy(&r);
    }
}

// T11 and T15 over epochs, in both ways.
static void test_schedules(void **state)
{
    (void)state;
    cpa_options o;
    PARSE(&o, EVERYTHING);
    for (int64_t e = 0; e < 9; e++) {
        cpa_phase p = cpa_schedule(&o.train, e, 0, 0);
        assert_true(p.mixup_alpha == 0);
        assert_true(p.lr_factor == (e < 5 ? 1 : 0.9)); // the schedule steps after epochs 2 and 4, every second decays
    }
    cpa_options_fini(&o);
    PARSE(&o, EVERYTHING, "--semantics", "fixed");
    for (int64_t e = 0; e < 9; e++) {
        cpa_phase p = cpa_schedule(&o.train, e, 0, 0);
        assert_true(p.mixup_alpha == (e < 3 ? 0 : e == 3 ? 0.1 : 0.2));
        assert_true(fabs(p.lr_factor - pow(0.9, (double)(e / 2))) < 1e-15);
    }
    cpa_options_fini(&o);
}

// E4: means over the batches of an epoch.
static void test_epoch_means(void **state)
{
    (void)state;
    cpa_registry *r = NULL;
    assert_int_equal(registry_of(&rich, &(cpa_data_spec){0}, true, &r), CPA_OK);
    for (int exact = 0; exact < 2; exact++) {
        cpa_history *h = NULL;
        assert_int_equal(cpa_history_create(r, exact == 1, &h), CPA_OK);
        cpa_history_take(h, "acc_perts", 0.5);
        cpa_history_take(h, "acc_perts", 0);
        cpa_history_take(h, "KL", 0);
        assert_true(cpa_history_mean(h, "acc_perts") == (exact ? 0.25 : 0.5));
        assert_true(exact ? cpa_history_mean(h, "KL") == 0 : isnan(cpa_history_mean(h, "KL")));
        assert_true(isnan(cpa_history_mean(h, "r2_mean"))); // nothing came
        cpa_history_destroy(&h);
    }
    cpa_registry_destroy(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows_are_sound),      cmocka_unit_test(test_switch),
        cmocka_unit_test(test_precedence),          cmocka_unit_test(test_every_row_is_told),
        cmocka_unit_test(test_rows_without_effect), cmocka_unit_test(test_class_weights),
        cmocka_unit_test(test_dose_order),          cmocka_unit_test(test_schedules),
        cmocka_unit_test(test_epoch_means),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
