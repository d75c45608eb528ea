// Owns: that ranks whose parameters differ in one bit find it out, name the tensor, and agree; over MPI at any number of ranks.
// Must never let a rank skip the check that the others make.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cpa/base/mem.h"
#include "cpa/train/soundness.h"

static cpa_comm *comm;
static cpa_backend *be;
static cpa_params t;
static int id[3];

static int setup(void **state)
{
    (void)state;
    cpa_status st = CPA_OK;
    CPA_TRY(cpa_comm_create(NULL, NULL, &comm));
    CPA_TRY(cpa_backend_create("check", &be));
    CPA_TRY(cpa_params_add(&t, CPA_GROUP_AUTOENCODER, 7, 5, 2, CPA_INIT_UNIFORM, 1, &id[0], "module/weight"));
    CPA_TRY(cpa_params_add(&t, CPA_GROUP_ADVERSARY, 1, 9, 1, CPA_INIT_UNIFORM, 1, &id[1], "adversary/bias"));
    CPA_TRY(cpa_params_add(&t, CPA_GROUP_STAT_MODULE, 1, 5, 1, CPA_INIT_ONE, 0, &id[2], "module/running_var"));
    CPA_TRY(cpa_params_place(&t, be, true));
    CPA_TRY(cpa_params_init(&t, 3));
cleanup:
    return (int)st;
}

static int teardown(void **state)
{
    (void)state;
    cpa_params_fini(&t);
    cpa_status st = cpa_backend_destroy(&be);
    cpa_comm_destroy(&comm);
    return (int)st + (int)cpa_alloc_balance();
}

// Turns the lowest bit of one element over.
static void flip(int which, int64_t at)
{
    cpa_real v[35];
    assert_int_equal(cpa_params_get(&t, t.value, id[which], v), CPA_OK);
    unsigned char *bytes = (unsigned char *)&v[at];
    bytes[0] ^= 1; // little-endian or not, it is some bit of the number
    assert_int_equal(cpa_params_set(&t, id[which], v), CPA_OK);
}

static void equal_parameters_pass(void **state)
{
    (void)state;
    assert_int_equal(cpa_soundness_replicas(comm, &t), CPA_OK);
}

static void one_bit_is_found(void **state)
{
    (void)state;
    static const char *const name[] = {"'module/weight'", "'adversary/bias'", "'module/running_var'"};
    static const int64_t last[] = {34, 8, 4};
    char who[32];
    for (int bad = 1; bad < cpa_comm_size(comm); bad++) {
        for (int which = 0; which < 3; which++) {
            int64_t at = bad % 2 == 0 ? 0 : last[which];
            if (cpa_comm_rank(comm) == bad) {
                flip(which, at);
            }
            assert_int_equal(cpa_soundness_replicas(comm, &t), CPA_INTERNAL);
            snprintf(who, sizeof who, "rank %d ", bad);
            assert_non_null(strstr(cpa_message(), who));
            assert_non_null(strstr(cpa_message(), name[which]));
            if (cpa_comm_rank(comm) == bad) {
                flip(which, at);
            }
            assert_int_equal(cpa_soundness_replicas(comm, &t), CPA_OK);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_parameters_pass),
        cmocka_unit_test(one_bit_is_found),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
