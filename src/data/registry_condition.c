// Owns: names and doses of perturbations: "A+B" with "1+0.5", paired by position. Works once per distinct pair of texts,
// never per cell.
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpa/base/log.h"
#include "registry_impl.h"

enum { MAX_EXAMPLES = 5 }; // conditions described one by one before the rest are only counted

// Reads "1+0.5" into out[n]. A plus sign inside a number ("1e+05") does not separate.
static cpa_status parse_doses(const char *name, const char *text, int n, double *out)
{
    cpa_status st = CPA_OK;
    int k = 0;
    for (const char *p = text;; p++) {
        p += strspn(p, " \t");
        const char *digits = p + (*p == '-');
        bool number = isdigit((unsigned char)*digits) || *digits == '.';
        number = number && !(digits[0] == '0' && tolower((unsigned char)digits[1]) == 'x');
        char *end;
        double value = strtod(p, &end);
        end += strspn(end, " \t");
        number = number && end != p && (*end == '+' || *end == '\0') && isfinite((float)value) && value >= 0;
        CPA_REQUIRE(number, CPA_BAD_DATA,
                    "dose '%s' of perturbation '%s': '%.*s' is not a finite number of at least 0; write a number for "
                    "every component, joined by '+'",
                    text, name, (int)strcspn(p, "+"), p);
        if (k < n) {
            out[k] = fabs(value); // -0 is 0
        }
        k++;
        p = end;
        if (*p == '\0') {
            break;
        }
    }
    CPA_REQUIRE(
        k == n, CPA_BAD_DATA,
        "dose '%s' of perturbation '%s': %d doses for %d components; write one for every component, joined by '+'",
        text, name, k, n);
cleanup:
    return st;
}

static cpa_status find_component(const cpa_strings *perts, const char *name, const char *component, int *id)
{
    cpa_status st = CPA_OK;
    cpa_text near = {0};
    CPA_REQUIRE(component[0] != '\0', CPA_BAD_DATA,
                "perturbation '%s' has an empty component; write names joined by '+'", name);
    int64_t at = CPA_CONTROL;
    if (strcmp(component, perts->s[CPA_CONTROL]) != 0) {
        at = cpa_sorted_find(perts, CPA_CONTROL + 1, component);
    }
    if (at < 0) {
        CPA_TRY(cpa_text_add_near(&near, perts, CPA_CONTROL, component));
        CPA_REQUIRE(false, CPA_BAD_DATA, "perturbation '%s': '%s' is none of the %lld known perturbations; nearest: %s",
                    name, component, (long long)(perts->n - CPA_CONTROL), cpa_text_str(&near));
    }
    *id = (int)at;
cleanup:
    cpa_text_fini(&near);
    return st;
}

cpa_status cpa_condition_parse(const cpa_strings *perts, const char *name, const char *dose, int max, int *pert,
                               double *dose_out, int *n)
{
    cpa_status st;
    cpa_strings component = {0};
    *n = 0;
    CPA_TRY(cpa_strings_split(&component, name, '+'));
    CPA_REQUIRE(component.n > 0, CPA_BAD_DATA, "a perturbation has an empty name; name it, or the control");
    CPA_REQUIRE(
        component.n <= max, CPA_BAD_DATA,
        "perturbation '%s' has %lld components, more than the %d of max_comb_len; raise it or leave those cells out",
        name, (long long)component.n, max);
    for (int i = 0; i < component.n; i++) {
        CPA_TRY(find_component(perts, name, component.s[i], &pert[i]));
        for (int j = 0; j < i; j++) {
            CPA_REQUIRE(pert[j] != pert[i], CPA_BAD_DATA,
                        "perturbation '%s' names '%s' twice; name it once, with the sum of its doses", name,
                        component.s[i]);
        }
        dose_out[i] = 1;
    }
    if (dose != NULL) {
        CPA_TRY(parse_doses(name, dose, (int)component.n, dose_out));
    }
    *n = (int)component.n;
cleanup:
    cpa_strings_fini(&component);
    return st;
}

// The perturbations, and the length of the longest combination.
static cpa_status gather_components(cpa_registry_build *b, int *longest)
{
    cpa_status st = CPA_OK;
    cpa_registry *r = b->r;
    const char *control = r->spec.control_group != NULL ? r->spec.control_group : "";
    cpa_strings all = {0}, component = {0};
    *longest = 1;
    for (int64_t l = 0; l < b->pert.level.n; l++) {
        CPA_TRY(cpa_strings_split(&component, b->pert.level.s[l], '+'));
        *longest = component.n > *longest ? (int)component.n : *longest;
        for (int64_t i = 0; i < component.n; i++) {
            if (component.s[i][0] != '\0' && strcmp(component.s[i], control) != 0) {
                CPA_TRY(cpa_strings_add(&all, component.s[i]));
            }
        }
        cpa_strings_fini(&component);
    }
    cpa_strings_sort_unique(&all);
    CPA_TRY(cpa_strings_add(&r->pert, "<PAD>"));
    CPA_TRY(cpa_strings_add(&r->pert, control));
    for (int64_t i = 0; i < all.n; i++) {
        CPA_TRY(cpa_strings_add(&r->pert, all.s[i]));
    }
cleanup:
    cpa_strings_fini(&component);
    cpa_strings_fini(&all);
    return st;
}

// The text of the doses that a name has when there is no column of doses, as upstream writes it: "1.0+1.0".
static cpa_status unit_doses(const char *name, char **out)
{
    cpa_status st;
    cpa_text text = {0};
    CPA_TRY(cpa_text_add(&text, "1.0"));
    for (const char *p = strchr(name, '+'); p != NULL; p = strchr(p + 1, '+')) {
        CPA_TRY(cpa_text_add(&text, "+1.0"));
    }
    CPA_TRY(cpa_strdup(cpa_text_str(&text), out));
cleanup:
    cpa_text_fini(&text);
    return st;
}

// Fills condition `c` from pair `k`; *parsed tells whether its texts have a meaning (if not, cpa_message says why).
static cpa_status fill_condition(const cpa_registry_build *b, const cpa_pairs *pairs, int k, cpa_condition *c,
                                 bool *parsed)
{
    cpa_status st;
    int max = b->r->max_comb_len;
    const char *dose = b->dose.code != NULL ? b->dose.level.s[pairs->b[k]] : NULL;
    c->label = pairs->a[k];
    c->n_cells = pairs->count[k];
    CPA_TRY(cpa_strdup(b->pert.level.s[pairs->a[k]], &c->name));
    if (dose != NULL) {
        CPA_TRY(cpa_strdup(dose, &c->dose_text));
    } else {
        CPA_TRY(unit_doses(c->name, &c->dose_text));
    }
    CPA_TRY(cpa_alloc((size_t)max, sizeof *c->pert, &c->pert));
    CPA_TRY(cpa_alloc((size_t)max, sizeof *c->dose, &c->dose));
    st = cpa_condition_parse(&b->r->pert, c->name, dose, max, c->pert, c->dose, &c->n);
    *parsed = st == CPA_OK;
    st = st == CPA_BAD_DATA ? CPA_OK : st;
    c->is_control = c->n == 1 && c->pert[0] == CPA_CONTROL;
cleanup:
    return st;
}

// The doses that upstream gives the components: the first to the one with the smallest number, and so on. dose[c->n];
// returns whether that is another meaning than pairing by position.
static bool dose_by_rank(const cpa_condition *c, double *dose)
{
    bool differs = false;
    for (int i = 0; i < c->n; i++) {
        int rank = 0;
        for (int j = 0; j < c->n; j++) {
            rank += c->pert[j] < c->pert[i];
        }
        dose[i] = c->dose[rank];
        differs = differs || dose[i] != c->dose[i];
    }
    return differs;
}

// Counts cells whose doses upstream pairs differently, and does the same if asked to.
static cpa_status settle_dose_order(cpa_registry *r, cpa_condition *c)
{
    double *dose = NULL;
    cpa_status st = cpa_alloc((size_t)r->max_comb_len, sizeof *dose, &dose);
    if (st == CPA_OK && dose_by_rank(c, dose)) {
        r->n_reordered += c->n_cells;
        if (r->spec.compat_dose_order) {
            memcpy(c->dose, dose, (size_t)c->n * sizeof *dose);
        }
    }
    cpa_free(&dose);
    return st;
}

static void warn_of_dose_order(const cpa_registry *r)
{
    if (r->n_reordered > 0 && r->spec.compat_dose_order) {
        cpa_warn("obs/%s: in %lld cells --compat-dose-order gives doses to other components than they stand for",
                 r->spec.dosage_key, (long long)r->n_reordered);
    } else if (r->n_reordered > 0) {
        cpa_warn("obs/%s: doses belong to components by position; in %lld cells upstream pairs them differently "
                 "(--compat-dose-order does too)",
                 r->spec.dosage_key, (long long)r->n_reordered);
    }
}

cpa_status cpa_registry_conditions(cpa_registry_build *b)
{
    cpa_status st;
    cpa_registry *r = b->r;
    cpa_pairs pairs = {0};
    int longest, n_bad = 0;
    CPA_TRY(gather_components(b, &longest));
    r->max_comb_len = r->spec.max_comb_len > 0 ? r->spec.max_comb_len : longest;
    CPA_TRY(cpa_pairs_create(b->pert.code, b->dose.code, b->pert.n, &pairs));
    CPA_TRY(cpa_alloc((size_t)pairs.n, sizeof *r->condition, &r->condition));
    r->n_conditions = pairs.n;
    for (int k = 0; k < pairs.n; k++) {
        bool parsed;
        if (pairs.a[k] < 0 || pairs.b[k] < 0) { // a missing value, already a problem
            continue;
        }
        CPA_TRY(fill_condition(b, &pairs, k, &r->condition[k], &parsed));
        if (!parsed && ++n_bad <= MAX_EXAMPLES) {
            int64_t row;
            const char *file = cpa_h5ad_cell(b->f, pairs.first[k], &row);
            CPA_TRY(cpa_problems_add(&b->problems, "%s: obs: %s (%lld cells, the first in row %lld)", file,
                                     cpa_message(), (long long)pairs.count[k], (long long)row));
        }
        CPA_TRY(settle_dose_order(r, &r->condition[k]));
    }
    if (n_bad > MAX_EXAMPLES) {
        CPA_TRY(cpa_problems_add(&b->problems, "%s: obs: %d more pairs of perturbation and dose are wrong", b->path,
                                 n_bad - MAX_EXAMPLES));
    }
    if (r->spec.max_comb_len <= 0) {
        cpa_info("max_comb_len: %d (inferred)", longest);
    }
    r->spec.max_comb_len = r->max_comb_len;
    warn_of_dose_order(r);
    r->condition_of = pairs.of;
    pairs.of = NULL;
cleanup:
    cpa_pairs_fini(&pairs);
    return st;
}
