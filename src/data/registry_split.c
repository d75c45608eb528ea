// Owns: which cells train, validate and test: by a column, or at random by the seed, but
// for the groups held out. Never the order in which they come.
#include <math.h>
#include <string.h>

#include "cpa/base/log.h"
#include "cpa/base/rng.h"
#include "registry_impl.h"

// Upstream's split: the first ceil(train_size * n) cells of a permutation train, the others validate.
static cpa_status split_at_random(cpa_registry *r)
{
    cpa_status st;
    int64_t *order = NULL;
    CPA_TRY(cpa_alloc((size_t)r->n_cells, sizeof *order, &order));
    for (int64_t i = 0; i < r->n_cells; i++) {
        order[i] = i;
    }
    cpa_shuffle((uint64_t)r->spec.seed, CPA_STREAM_SPLIT, 0, 0, order, r->n_cells);
    int64_t n_train = (int64_t)ceil(r->spec.train_size * (double)r->n_cells);
    for (int64_t i = 0; i < r->n_cells; i++) {
        r->split[order[i]] = i < n_train ? CPA_SPLIT_TRAIN : CPA_SPLIT_VALID;
    }
cleanup:
    cpa_free(&order);
    return st;
}

// One of the three lists of values.
typedef struct split_rule {
    const char *option, *values, *usual;
    cpa_split split;
} split_rule;

// Gives the levels that the rule names to its split. A value that does not occur is a problem for training, except that
// the usual names of validation and test need not be there.
static cpa_status apply_rule(cpa_registry_build *b, const split_rule *rule, uint8_t *to, bool *noted)
{
    cpa_status st;
    cpa_strings value = {0};
    cpa_text near = {0};
    const cpa_strings *level = &b->split.level;
    const char *column = b->r->spec.split_key;
    bool must_occur = rule->split == CPA_SPLIT_TRAIN || strcmp(rule->values, rule->usual) != 0;
    CPA_TRY(cpa_strings_split(&value, rule->values, ','));
    for (int64_t i = 0; i < value.n; i++) {
        int64_t at = cpa_sorted_find(level, 0, value.s[i]);
        if (at < 0 && must_occur && b->need_training) {
            CPA_TRY(cpa_text_add_near(&near, level, 0, value.s[i]));
            CPA_TRY(cpa_problems_add(
                &b->problems, "%s: obs/%s: no cell has the value '%s' of %s; nearest of %lld values: %s", b->path,
                column, value.s[i], rule->option, (long long)level->n, cpa_text_str(&near)));
            cpa_text_fini(&near);
            *noted = true;
        }
        if (at >= 0) {
            CPA_REQUIRE(
                to[at] == CPA_SPLIT_NONE || to[at] == rule->split, CPA_CONFIG,
                "the value '%s' of obs/%s is named for two splits; give it to one of --train-split, --valid-split "
                "and --test-split",
                value.s[i], column);
            to[at] = (uint8_t)rule->split;
        }
    }
cleanup:
    cpa_text_fini(&near);
    cpa_strings_fini(&value);
    return st;
}

static cpa_status split_by_column(cpa_registry_build *b, bool *noted)
{
    cpa_status st;
    cpa_registry *r = b->r;
    const split_rule rules[] = {
        {"--train-split", r->spec.train_split, "train", CPA_SPLIT_TRAIN},
        {"--valid-split", r->spec.valid_split, "test", CPA_SPLIT_VALID},
        {"--test-split", r->spec.test_split, "ood", CPA_SPLIT_TEST},
    };
    uint8_t *to = NULL; // [levels]
    CPA_TRY(cpa_alloc((size_t)b->split.level.n, sizeof *to, &to));
    for (size_t k = 0; k < sizeof rules / sizeof *rules; k++) {
        CPA_TRY(apply_rule(b, &rules[k], to, noted));
    }
    for (int64_t i = 0; i < r->n_cells; i++) {
        int32_t code = b->split.code[i];
        r->split[i] = code >= 0 ? to[code] : CPA_SPLIT_NONE;
    }
cleanup:
    cpa_free(&to);
    return st;
}

// Clears the flags of cells without the value; `pair` is "column=value". What does not occur is a problem for training.
static cpa_status keep_value(cpa_registry_build *b, const char *rule, const char *pair, uint8_t *flag, bool *noted)
{
    cpa_status st = CPA_OK;
    cpa_factor factor = {0};
    cpa_text near = {0};
    char *column = NULL;
    const char *equals = strchr(pair, '=');
    CPA_REQUIRE(equals != NULL && equals > pair, CPA_USAGE, "--holdout %s: write COLUMN=VALUE[,COLUMN=VALUE...]", rule);
    CPA_TRY(cpa_sprintf(&column, "%.*s", (int)(equals - pair), pair));
    if (b->need_training || cpa_strings_find(&b->columns, column) >= 0) {
        CPA_TRY(cpa_registry_column(b, column, true, &factor));
    }
    int64_t level = factor.code != NULL ? cpa_sorted_find(&factor.level, 0, equals + 1) : -1;
    if (factor.code != NULL && level < 0 && b->need_training) {
        CPA_TRY(cpa_text_add_near(&near, &factor.level, 0, equals + 1));
        CPA_TRY(cpa_problems_add(&b->problems,
                                 "%s: obs/%s: no cell has the value '%s' of --holdout %s; nearest of %lld values: %s",
                                 b->path, column, equals + 1, rule, (long long)factor.level.n, cpa_text_str(&near)));
    }
    *noted = *noted || level < 0;
    for (int64_t i = 0; i < b->r->n_cells; i++) {
        flag[i] = flag[i] && level >= 0 && factor.code[i] == level;
    }
cleanup:
    cpa_factor_fini(&factor);
    cpa_text_fini(&near);
    cpa_free(&column);
    return st;
}

// Gives the cells that match all pairs of the rule to the test split.
static cpa_status hold_out(cpa_registry_build *b, const char *rule, uint8_t *flag)
{
    cpa_status st;
    cpa_strings pair = {0};
    bool noted = false;
    int64_t n_held = 0;
    memset(flag, 1, (size_t)b->r->n_cells);
    CPA_TRY(cpa_strings_split(&pair, rule, ','));
    for (int64_t k = 0; k < pair.n; k++) {
        CPA_TRY(keep_value(b, rule, pair.s[k], flag, &noted));
    }
    for (int64_t i = 0; i < b->r->n_cells; i++) {
        if (flag[i]) {
            b->r->split[i] = CPA_SPLIT_TEST;
            n_held++;
        }
    }
    if (n_held == 0 && !noted && b->need_training) {
        CPA_TRY(cpa_problems_add(&b->problems, "%s: no cell has all the values of --holdout %s; leave it out", b->path,
                                 rule));
    }
cleanup:
    cpa_strings_fini(&pair);
    return st;
}

static cpa_status hold_out_groups(cpa_registry_build *b)
{
    cpa_status st = CPA_OK;
    const cpa_strings *rule = &b->r->spec.holdout;
    uint8_t *flag = NULL;
    CPA_TRY(cpa_alloc((size_t)b->r->n_cells, sizeof *flag, &flag));
    for (int64_t k = 0; k < rule->n; k++) {
        if (rule->s[k][0] != '\0') {
            CPA_TRY(hold_out(b, rule->s[k], flag));
        }
    }
cleanup:
    cpa_free(&flag);
    return st;
}

cpa_status cpa_registry_split(cpa_registry_build *b)
{
    cpa_status st;
    cpa_registry *r = b->r;
    bool noted = false, by_column = r->spec.split_key[0] != '\0';
    CPA_REQUIRE(r->spec.train_size > 0 && r->spec.train_size <= 1, CPA_CONFIG,
                "train_size is %g; it is a part of the cells, above 0 and at most 1", r->spec.train_size);
    CPA_TRY(cpa_alloc((size_t)r->n_cells, sizeof *r->split, &r->split));
    if (!by_column) {
        CPA_TRY(split_at_random(r));
    } else if (b->split.code != NULL) {
        CPA_TRY(split_by_column(b, &noted));
    } else { // already a problem
        goto cleanup;
    }
    CPA_TRY(hold_out_groups(b));
    for (int64_t i = 0; i < r->n_cells; i++) {
        r->n_train += r->split[i] == CPA_SPLIT_TRAIN;
        r->n_valid += r->split[i] == CPA_SPLIT_VALID;
        r->n_test += r->split[i] == CPA_SPLIT_TEST;
    }
    int64_t n_none = r->n_cells - r->n_train - r->n_valid - r->n_test;
    if (n_none > 0) {
        cpa_info("obs/%s: %lld of %lld cells are in no split; they are not used in training", r->spec.split_key,
                 (long long)n_none, (long long)r->n_cells);
    }
    if (b->need_training && r->n_train == 0 && !noted) {
        CPA_TRY(cpa_problems_add(&b->problems,
                                 "%s: the training split has no cell%s%s; name its values with --train-split", b->path,
                                 by_column ? " by obs/" : "", r->spec.split_key));
    }
cleanup:
    return st;
}
