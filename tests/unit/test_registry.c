// Owns: tests of the meaning of cells: names and doses, tables, inference, splits, lists of genes, and everything that can be
// wrong with them. Small files are written here; never needs counts.
#include "../support/obs_files.h"

#ifndef CPA_TESTS_DIR
#define CPA_TESTS_DIR "tests"
#endif

static void check_strings(const cpa_strings *got, const char *want)
{
    cpa_text joined = {0};
    for (int64_t i = 0; i < got->n; i++) {
        assert_int_equal(cpa_text_add(&joined, "%s%s", i > 0 ? "," : "", got->s[i]), CPA_OK);
    }
    assert_string_equal(cpa_text_str(&joined), want);
    cpa_text_fini(&joined);
}

static void check_says(const char *part)
{
    if (strstr(cpa_message(), part) == NULL) {
        fail_msg("'%s' is not in:\n%s", part, cpa_message());
    }
}

static void check_bad_parse(const cpa_strings *perts, const char *name, const char *dose, const char *why)
{
    int pert[2], n = 7;
    double value[2];
    assert_int_equal(cpa_condition_parse(perts, name, dose, 2, pert, value, &n), CPA_BAD_DATA);
    assert_int_equal(n, 0);
    check_says(why);
}

static void test_parse(void **state)
{
    (void)state;
    long balance = cpa_alloc_balance();
    cpa_strings perts = {0};
    int pert[2], n;
    double dose[2];
    assert_int_equal(cpa_strings_split(&perts, "<PAD>,ctrl,A,Belinostat,C", ','), CPA_OK);
    assert_int_equal(cpa_condition_parse(&perts, "C+ctrl", NULL, 2, pert, dose, &n), CPA_OK);
    assert_true(n == 2 && pert[0] == 4 && pert[1] == CPA_CONTROL && dose[0] == 1 && dose[1] == 1);
    assert_int_equal(cpa_condition_parse(&perts, "C+A", "0.5+2", 2, pert, dose, &n), CPA_OK);
    assert_true(n == 2 && pert[0] == 4 && pert[1] == 2 && dose[0] == 0.5 && dose[1] == 2); // by position
    assert_int_equal(cpa_condition_parse(&perts, "A", "1e+05", 2, pert, dose, &n), CPA_OK);
    assert_true(n == 1 && dose[0] == 1e5);
    assert_int_equal(cpa_condition_parse(&perts, "A + C", "1e-3 + .5", 2, pert, dose, &n), CPA_OK);
    assert_true(n == 2 && dose[0] == 1e-3 && dose[1] == 0.5);
    assert_int_equal(cpa_condition_parse(&perts, "A", "-0", 2, pert, dose, &n), CPA_OK);
    assert_true(dose[0] == 0 && !signbit(dose[0]));
    const char *bad_doses[] = {"", "x", "1.0x", "1,0", "nan", "inf", "-1", "1e999", "1e300", "0x10", "+1", "1+", "-"};
    for (size_t i = 0; i < sizeof bad_doses / sizeof *bad_doses; i++) {
        check_bad_parse(&perts, "A", bad_doses[i], "is not a finite number of at least 0");
    }
    check_bad_parse(&perts, "A", "1+1", "2 doses for 1 components");
    check_bad_parse(&perts, "A+C", "1", "1 doses for 2 components");
    check_bad_parse(&perts, "A+A", "1+2", "names 'A' twice");
    check_bad_parse(&perts, "A+", NULL, "an empty component");
    check_bad_parse(&perts, "", NULL, "an empty name");
    check_bad_parse(&perts, "A+C+ctrl", NULL, "has 3 components, more than the 2 of max_comb_len");
    check_bad_parse(&perts, "belinostatt", NULL,
                    "'belinostatt' is none of the 4 known perturbations; nearest: 'Belinostat'");
    check_bad_parse(&perts, "<PAD>", NULL, "is none of the 4");
    cpa_strings_fini(&perts);
    assert_int_equal(cpa_alloc_balance(), balance);
}

static const table small = {
    .obs = {{"condition", "B+A,ctrl,A,ctrl,A,B,ctrl,B+A,A,ctrl,!C,!D+A"},
            {"dose", "0.1+1,0,0.5,0,1,1,0,0.1+1,0.5,0"},
            {"cell_type", "T,T,T,B,B,T,B,T,T,T,!NK"},
            {"donor", "d2,d1,d1,d1,d2,d2,d1,d2,d2,d1"},
            {"split", "ood,train,train,test,train,train,train,ood,unused,test"}},
};

static void test_meaning(void **state)
{
    (void)state;
    cpa_registry *r = NULL;
    cpa_data_spec spec = {0};
    assert_int_equal(cpa_strdup("donor", &spec.batch_key), CPA_OK);
    assert_int_equal(registry_of(&small, &spec, true, &r), CPA_OK);
    assert_true(r->n_cells == 10 && r->n_genes == 40 && r->max_comb_len == 2);
    check_strings(&r->pert, "<PAD>,ctrl,A,B");
    check_strings(&r->label, "A,B,B+A,ctrl");
    const double weight[] = {10.0 / 3 - 1, 9, 4, 1.5};
    assert_memory_equal(r->label_weight, weight, sizeof weight);
    assert_int_equal(r->n_conditions, 5); // sorted by name, then dose
    const cpa_condition *c = r->condition;
    assert_true(c[0].n == 1 && c[0].pert[0] == 2 && c[0].dose[0] == 0.5 && c[0].label == 0 && c[0].n_cells == 2);
    assert_true(c[1].n == 1 && c[1].dose[0] == 1 && c[1].label == 0 && c[1].n_cells == 1);
    assert_true(c[2].pert[0] == 3 && c[2].label == 1 && !c[2].is_control);
    assert_true(c[3].n == 2 && c[3].pert[0] == 3 && c[3].pert[1] == 2 && c[3].dose[0] == 0.1 && c[3].dose[1] == 1);
    assert_string_equal(c[3].name, "B+A");
    assert_string_equal(c[3].dose_text, "0.1+1");
    assert_true(c[4].is_control && c[4].pert[0] == CPA_CONTROL && c[4].dose[0] == 0 && c[4].n_cells == 4);
    assert_memory_equal(r->condition_of, ((int32_t[]){3, 4, 0, 4, 1, 2, 4, 3, 0, 4}), 40);
    assert_int_equal(r->n_covs, 2);
    assert_string_equal(r->cov[0].name, "cell_type");
    check_strings(&r->cov[0].value, "B,T");
    assert_memory_equal(r->cov[0].code, ((uint16_t[]){1, 1, 1, 0, 0, 1, 0, 1, 1, 1}), 20);
    assert_string_equal(r->cov[1].name, "donor");
    assert_memory_equal(r->cov[1].code, ((uint16_t[]){1, 0, 0, 0, 1, 1, 0, 1, 1, 0}), 20);
    check_strings(&r->category, "d1_B_ctrl,d1_T_A,d1_T_ctrl,d2_B_A,d2_T_A,d2_T_B,d2_T_B+A");
    assert_int_equal(r->n_categories, 7);
    assert_memory_equal(r->category_of, ((int32_t[]){6, 2, 1, 0, 3, 5, 0, 6, 4, 2}), 40);
    assert_memory_equal(r->split, ((uint8_t[]){3, 1, 1, 2, 1, 1, 1, 3, 0, 2}), 10);
    assert_true(r->n_train == 5 && r->n_valid == 2 && r->n_test == 2);
    assert_true(r->deg[0] == NULL && r->deg_list[0].n == 0);
    assert_string_equal(r->spec.batch_key, "donor");
    cpa_registry_destroy(&r);
    assert_null(r);
    cpa_registry_destroy(&r);
    cpa_data_spec_fini(&spec);
}

// A batch that is also named as a covariate stays where it is named; without doses every dose is 1.
static void test_batch_among_covariates(void **state)
{
    (void)state;
    static const table t = {.obs = {{"perturbation", "NT,A+B,A"}, {"donor", "x,y,x"}, {"kind", "k_1,k,k"}}};
    cpa_registry *r = NULL;
    cpa_data_spec spec = {0};
    assert_int_equal(cpa_strdup("donor", &spec.batch_key), CPA_OK);
    assert_int_equal(cpa_strings_split(&spec.categorical_covariate_keys, "donor,kind", ','), CPA_OK);
    assert_int_equal(registry_of(&t, &spec, true, &r), CPA_OK);
    assert_int_equal(r->n_covs, 2);
    assert_string_equal(r->cov[0].name, "donor");
    check_strings(&r->category, "x_k_1_NT,x_k_A,y_k_A+B");
    assert_string_equal(r->condition[1].dose_text, "1.0+1.0");
    assert_true(r->condition[1].dose[0] == 1 && r->condition[1].dose[1] == 1);
    assert_string_equal(r->spec.control_group, "NT");
    assert_string_equal(r->spec.dosage_key, "");
    cpa_registry_destroy(&r);
    cpa_data_spec_fini(&spec);
}

static void check_covariate(const table *t, const char *want)
{
    cpa_registry *r = NULL;
    assert_int_equal(registry_of(t, &(cpa_data_spec){0}, true, &r), CPA_OK);
    check_strings(&r->spec.categorical_covariate_keys, want);
    assert_int_equal(r->n_covs, want[0] != '\0');
    cpa_registry_destroy(&r);
}

static void test_covariates_inferred(void **state)
{
    (void)state;
    // Found by its values, also when they hold an underscore, and rather than cell_type.
    check_covariate(&(table){.obs = {{"condition", "ctrl,A,ctrl,A,A"},
                                     {"cell_type", "T,T,T,T,T"},
                                     {"almost", "p_1,p_1,p_2,p_2,p_1"},
                                     {"donor", "p_1,p_1,p_2,p_2,p_2"},
                                     {"cov_cond", "p_1_ctrl,p_1_A,p_2_ctrl,p_2_A,p_2_A"}}},
                    "donor");
    check_covariate(&(table){.obs = {{"condition", "ctrl,A"}, {"cell_type", "T,T"}, {"cov_cond", "x,y"}}}, "cell_type");
    check_covariate(&(table){.obs = {{"condition", "ctrl,A"}, {"cell_type", "T,T"}, {"cov_cond", "T_ctrl,?"}}},
                    "cell_type");
    check_covariate(&(table){.obs = {{"condition", "ctrl,A"}, {"donor", "T,T"}}}, "");
}

// What was resolved leaves nothing to infer: another file with more columns is read in the same way.
static void test_resolved_spec(void **state)
{
    (void)state;
    static const table bare = {.obs = {{"condition", "A,ctrl,mock"}}};
    static const table rich = {.obs = {{"condition", "A,ctrl,mock"},
                                       {"dose", "2,0,1"},
                                       {"cell_type", "T,T,T"},
                                       {"split", "train,test,ood"},
                                       {"cov_cond", "T_A,T_ctrl,T_mock"}},
                               .lists = {{"T_A", "g1,g2"}}};
    cpa_registry *r = NULL, *again = NULL;
    assert_int_equal(registry_of(&bare, &(cpa_data_spec){0}, true, &r), CPA_OK);
    assert_string_equal(r->spec.perturbation_key, "condition");
    assert_string_equal(r->spec.control_group, "ctrl");
    assert_true(r->spec.max_comb_len == 1 && r->spec.train_size == 0.9 && r->n_train == 3);
    assert_int_equal(registry_of(&rich, &r->spec, true, &again), CPA_OK);
    assert_true(again->n_covs == 0 && again->n_train == 3 && again->condition[0].dose[0] == 1 && again->deg[0] == NULL);
    cpa_registry_destroy(&again);
    assert_int_equal(registry_of(&rich, &(cpa_data_spec){0}, true, &again), CPA_OK);
    assert_true(again->n_covs == 1 && again->n_train == 1 && again->condition[0].dose[0] == 2 && again->deg[0] != NULL);
    cpa_registry_destroy(&again);
    cpa_registry_destroy(&r);
}

static void test_many_problems_at_once(void **state)
{
    (void)state;
    static const table t = {.obs = {{"condition", "A,A+A,A+B+C,?,A,ctr,B+A,?"},
                                    {"dose", "1,1+1,1+1+1,1,abc,1,1,1"},
                                    {"cell_type", "T,T,T,T,?,T,T,T"},
                                    {"split", "trian,test,ood,?,ood,ood,ood,ood"}}};
    cpa_registry *r = NULL;
    cpa_data_spec spec = {.max_comb_len = 2};
    assert_int_equal(cpa_strdup("ctrl", &spec.control_group), CPA_OK);
    assert_int_equal(cpa_strdup("donr", &spec.batch_key), CPA_OK);
    assert_int_equal(cpa_strdup("nosuch", &spec.deg_uns_key), CPA_OK);
    assert_int_equal(registry_of(&t, &spec, true, &r), CPA_BAD_DATA);
    check_says(path);
    check_says("obs/condition: no cell is the control 'ctrl'; nearest of 5 values: 'ctr'");
    check_says("obs/condition: 2 of 8 cells have no value, the first in row 3");
    check_says("names 'A' twice; name it once, with the sum of its doses (1 cells, the first in row 1)");
    check_says("'A+B+C' has 3 components, more than the 2 of max_comb_len");
    check_says("dose 'abc' of perturbation 'A': 'abc' is not a finite number");
    check_says("dose '1' of perturbation 'B+A': 1 doses for 2 components");
    check_says("obs/cell_type: 1 of 8 cells have no value, the first in row 4");
    check_says("obs/split: 1 of 8 cells have no value");
    check_says("obs/split: no cell has the value 'train' of --train-split; nearest of 3 values: 'trian'");
    check_says("'donr'");
    check_says("uns has no 'nosuch'");
    check_says("'cov_cond'");
    int lines = 1;
    for (const char *s = cpa_message(); *s != '\0'; s++) {
        lines += *s == '\n';
    }
    assert_int_equal(lines, 12);
    cpa_data_spec_fini(&spec);
}

static void check_refused(const table *t, const cpa_data_spec *spec, cpa_status code, const char *why)
{
    cpa_registry *r = NULL;
    assert_int_equal(registry_of(t, spec, true, &r), code);
    check_says(why);
}

static void test_refusals(void **state)
{
    (void)state;
    const cpa_data_spec none = {0};
    check_refused(
        &(table){.obs = {{"drug", "A,ctrl"}, {"batch", "1,2"}}}, &none, CPA_BAD_DATA,
        "obs has neither 'condition' nor 'perturbation'; name the column of perturbations with --perturbation-key; "
        "there are: drug, batch");
    check_refused(&(table){.obs = {{"condition", "A,B"}}}, &none, CPA_BAD_DATA, "name it with --control-group");
    // Control only as a component: there is no control cell.
    check_refused(&(table){.obs = {{"condition", "A+ctrl,B"}}}, &(cpa_data_spec){.control_group = "ctrl"}, CPA_BAD_DATA,
                  "no cell is the control 'ctrl'");
    check_refused(&(table){.obs = {{"condition", "A,ctrl"}}}, &(cpa_data_spec){.split_key = "fold"}, CPA_BAD_DATA,
                  "'fold'");
    check_refused(&(table){.obs = {{"condition", "A,ctrl"}}}, &(cpa_data_spec){.dosage_key = "dosis"}, CPA_BAD_DATA,
                  "'dosis'");
    check_refused(&(table){.obs = {{"condition", "A,ctrl"}}}, &(cpa_data_spec){.train_size = 1.5}, CPA_CONFIG,
                  "train_size is 1.5");
    const table split = {.obs = {{"condition", "A,ctrl"}, {"split", "train,test"}}};
    check_refused(&split, &(cpa_data_spec){.test_split = "held"}, CPA_BAD_DATA,
                  "no cell has the value 'held' of --test-split");
    check_refused(&split, &(cpa_data_spec){.valid_split = "train"}, CPA_CONFIG,
                  "'train' of obs/split is named for two splits");
    check_refused(&split, &(cpa_data_spec){.train_split = ""}, CPA_BAD_DATA,
                  "the training split has no cell by obs/split");
    char *twice[] = {"split", "split"};
    check_refused(&split, &(cpa_data_spec){.categorical_covariate_keys = {2, twice}}, CPA_CONFIG, "named twice");
    cpa_text many = {0}, conditions = {0};
    for (int i = 0; i < 30; i++) {
        assert_int_equal(cpa_text_add(&many, "bad%d,", i), CPA_OK);
        assert_int_equal(cpa_text_add(&conditions, "A,"), CPA_OK);
    }
    assert_int_equal(cpa_text_add(&many, "1"), CPA_OK);
    assert_int_equal(cpa_text_add(&conditions, "ctrl"), CPA_OK);
    check_refused(&(table){.obs = {{"condition", cpa_text_str(&conditions)}, {"dose", cpa_text_str(&many)}}}, &none,
                  CPA_BAD_DATA, "25 more pairs of perturbation and dose are wrong");
    cpa_text_fini(&many);
    cpa_text_fini(&conditions);
}

static void test_splits(void **state)
{
    (void)state;
    static const table t = {.obs = {{"condition", "A,ctrl,A,ctrl,A"}, {"fold", "f1,f2,f3,f4,f5"}}};
    cpa_registry *r = NULL;
    cpa_data_spec spec = {.split_key = "fold", .train_split = "f3, f1", .valid_split = "f2", .test_split = "f5"};
    assert_int_equal(registry_of(&t, &spec, true, &r), CPA_OK);
    assert_memory_equal(r->split, ((uint8_t[]){1, 2, 1, 0, 3}), 5);
    assert_true(r->n_train == 2 && r->n_valid == 1 && r->n_test == 1);
    cpa_registry_destroy(&r);
    // Only training needs training cells.
    spec = (cpa_data_spec){.split_key = "fold"};
    assert_int_equal(registry_of(&t, &spec, true, &r), CPA_BAD_DATA);
    assert_int_equal(registry_of(&t, &spec, false, &r), CPA_OK);
    assert_true(r->n_train == 0 && r->split[4] == CPA_SPLIT_NONE);
    cpa_registry_destroy(&r);
}

static void test_random_split(void **state)
{
    (void)state;
    static const table t = {.obs = {{"condition", "A,ctrl,A,ctrl,A,A,A,A,A,A,A"}}};
    uint8_t first[11];
    int n_same = 0;
    for (int64_t seed = 0; seed < 20; seed++) {
        cpa_registry *r = NULL, *again = NULL;
        cpa_data_spec spec = {.train_size = 0.5, .seed = seed};
        assert_int_equal(registry_of(&t, &spec, true, &r), CPA_OK);
        assert_true(r->n_train == 6 && r->n_valid == 5 && r->n_test == 0); // the ceiling of 5.5
        assert_int_equal(registry_of(&t, &spec, true, &again), CPA_OK);
        assert_memory_equal(r->split, again->split, 11);
        if (seed == 0) {
            memcpy(first, r->split, 11);
            assert_memory_equal(first, ((uint8_t[]){2, 2, 1, 2, 2, 1, 1, 1, 2, 1, 1}), 11); // frozen
        } else {
            n_same += memcmp(first, r->split, 11) == 0;
        }
        cpa_registry_destroy(&r);
        cpa_registry_destroy(&again);
    }
    assert_in_range(n_same, 0, 1);
}

// Groups are held out on top of a column and on top of a random split, which stays as it is for all other cells.
static void test_holdout(void **state)
{
    (void)state;
    static const table t = {.obs = {{"condition", "STIM,ctrl,STIM,ctrl,STIM,STIM,ctrl,A"},
                                    {"cell_type", "B,B,B,NK,NK,NK,T,T"},
                                    {"donor", "1,1,2,?,1,2,2,1"},
                                    {"fold", "train,train,test,train,train,test,train,ood"}}};
    cpa_registry *r = NULL, *plain = NULL;
    char *groups[] = {"cell_type=B, condition=STIM", "donor=2,cell_type=T", ""};
    cpa_data_spec spec = {.split_key = "fold", .holdout = {3, groups}};
    assert_int_equal(registry_of(&t, &spec, true, &r), CPA_OK);
    assert_memory_equal(r->split, ((uint8_t[]){3, 1, 3, 1, 1, 2, 3, 3}), 8);
    assert_true(r->n_train == 3 && r->n_valid == 1 && r->n_test == 4);
    check_strings(&r->spec.holdout, "cell_type=B, condition=STIM,donor=2,cell_type=T,");
    cpa_registry_destroy(&r);
    spec.split_key = "";
    assert_int_equal(registry_of(&t, &spec, true, &r), CPA_OK);
    spec.holdout.n = 0;
    assert_int_equal(registry_of(&t, &spec, true, &plain), CPA_OK);
    assert_int_equal(r->n_test, 3);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(r->split[i], i == 0 || i == 2 || i == 6 ? CPA_SPLIT_TEST : plain->split[i]);
    }
    cpa_registry_destroy(&r);
    cpa_registry_destroy(&plain);
    static const struct {
        const char *group, *says;
        cpa_status st;
    } wrong[] = {
        {"cel_type=B", "obs has no column 'cel_type'", CPA_BAD_DATA},
        {"cel_type=B", "cell_type", CPA_BAD_DATA},
        {"condition=STM", "no cell has the value 'STM' of --holdout condition=STM; nearest of 3 values: 'STIM'",
         CPA_BAD_DATA},
        {"cell_type=B,condition=A", "no cell has all the values of --holdout cell_type=B,condition=A", CPA_BAD_DATA},
        {"cell_type", "write COLUMN=VALUE", CPA_USAGE},
        {"=B", "write COLUMN=VALUE", CPA_USAGE},
    };
    for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
        char *one[] = {(char *)wrong[k].group};
        spec = (cpa_data_spec){.split_key = "fold", .holdout = {1, one}};
        check_refused(&t, &spec, wrong[k].st, wrong[k].says);
        if (wrong[k].st == CPA_BAD_DATA) { // another file than the one trained on need not have the group
            assert_int_equal(registry_of(&t, &spec, false, &r), CPA_OK);
            assert_int_equal(r->n_test, 1);
            cpa_registry_destroy(&r);
        }
    }
}

static void test_deg(void **state)
{
    (void)state;
    static const table t = {.obs = {{"condition", "ctrl,A,A,B,A"},
                                    {"donor", "x,x,y,x,x"},
                                    {"cov_cond", "x_ctrl,y_A,z_A,x_B,x_A"},
                                    {"cell_type", "T,T,T,T,T"}},
                            .lists = {{"y_A", "g39,g0,g31,g32,nosuch"}, {"x_B", "no,none"}}};
    cpa_registry *r = NULL;
    char *keys[] = {"donor"};
    cpa_data_spec spec = {.categorical_covariate_keys = {1, keys}};
    assert_int_equal(registry_of(&t, &spec, true, &r), CPA_OK);
    assert_string_equal(r->spec.deg_uns_key, "rank_genes_groups_cov");
    assert_string_equal(r->spec.deg_uns_cat_key, "cov_cond");
    check_strings(&r->category, "x_A,x_B,x_ctrl,y_A");
    assert_non_null(r->deg[0]); // the first cell's list, although the last cell of x_A says x_A
    assert_true(r->deg[0][0] == (1u | 1u << 31) && r->deg[0][1] == (1u | 1u << 7));
    assert_int_equal(r->deg_list[0].n, 5);
    assert_memory_equal(r->deg_list[0].gene, ((int32_t[]){39, 0, 31, 32, -1}), 20);
    assert_true(r->deg[1] == NULL && r->deg[2] == NULL && r->deg[3] == NULL); // unknown genes only; no list
    assert_int_equal(r->deg_list[1].n, 0);
    cpa_registry_destroy(&r);
}

static void test_spec_copy(void **state)
{
    (void)state;
    long balance = cpa_alloc_balance();
    char *keys[] = {"a", "b"}, *groups[] = {"x=1", "y=2"};
    const cpa_data_spec spec = {.perturbation_key = "p",
                                .control_group = "c",
                                .dosage_key = "d",
                                .categorical_covariate_keys = {2, keys},
                                .batch_key = "e",
                                .layer = "l",
                                .split_key = "s",
                                .train_split = "t",
                                .valid_split = "v",
                                .test_split = "w",
                                .holdout = {2, groups},
                                .train_size = 0.25,
                                .deg_uns_key = "u",
                                .deg_uns_cat_key = "k",
                                .max_comb_len = 3,
                                .seed = 11,
                                .compat_dose_order = true};
    cpa_data_spec copy = {0};
    assert_int_equal(cpa_data_spec_copy(&spec, &copy), CPA_OK);
    const char *text[] = {copy.perturbation_key, copy.control_group,  copy.dosage_key,
                          copy.batch_key,        copy.layer,          copy.split_key,
                          copy.train_split,      copy.valid_split,    copy.test_split,
                          copy.deg_uns_key,      copy.deg_uns_cat_key};
    const char *want = "pcdelstvwuk";
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        assert_true(text[i][0] == want[i] && text[i][1] == '\0');
    }
    check_strings(&copy.categorical_covariate_keys, "a,b");
    check_strings(&copy.holdout, "x=1,y=2");
    assert_true(copy.train_size == 0.25 && copy.max_comb_len == 3 && copy.seed == 11);
    assert_true(copy.compat_dose_order);
    cpa_data_spec_fini(&copy);
    assert_int_equal(cpa_alloc_balance(), balance);
}

static void test_sample(void **state)
{
    (void)state;
    const char *tests = getenv("CPA_TESTS");
    char *sample = NULL;
    cpa_h5ad *f = NULL;
    cpa_registry *r = NULL;
    assert_int_equal(
        cpa_sprintf(&sample, "%s/data/glioblastoma_panobinostat.h5ad", tests != NULL ? tests : CPA_TESTS_DIR), CPA_OK);
    assert_int_equal(cpa_h5ad_open(sample, &f), CPA_OK);
    assert_int_equal(cpa_registry_create(f, &(cpa_data_spec){0}, true, &r), CPA_OK);
    assert_true(r->n_cells == 5000 && r->n_genes == 300 && r->n_conditions == 2 && r->n_covs == 1);
    check_strings(&r->pert, "<PAD>,ctrl,panobinostat");
    assert_string_equal(r->cov[0].name, "patient_id");
    assert_int_equal(r->cov[0].value.n, 5);
    assert_true(r->condition[1].dose[0] == 0.2 && r->condition[0].is_control && r->condition[0].n_cells == 2500);
    assert_true(r->n_train == 3853 && r->n_valid == 647 && r->n_test == 500 && r->n_categories == 10);
    int n_lists = 0;
    for (int c = 0; c < 10; c++) {
        n_lists += r->deg[c] != NULL && r->deg_list[c].n == 50;
    }
    assert_int_equal(n_lists, 5);
    cpa_registry_destroy(&r);
    cpa_h5ad_close(&f);
    cpa_free(&sample);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_meaning),
        cmocka_unit_test(test_batch_among_covariates),
        cmocka_unit_test(test_covariates_inferred),
        cmocka_unit_test(test_resolved_spec),
        cmocka_unit_test(test_many_problems_at_once),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_random_split),
        cmocka_unit_test(test_holdout),
        cmocka_unit_test(test_deg),
        cmocka_unit_test(test_spec_copy),
        cmocka_unit_test(test_sample),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
