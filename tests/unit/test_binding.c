// Owns: tests of what is said about where ranks run. Never assumes how many cores the machine has.
#define _GNU_SOURCE
#include <omp.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cpa/platform/binding.h"

static cpa_comm *comm;

// The first core that this process may use, and nothing else afterwards.
static int keep_one_core(void)
{
    cpu_set_t set, one;
    int core = 0;
    assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
    while (!CPU_ISSET(core, &set)) {
        core++;
    }
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    return core;
}

static void one_core_and_one_thread_are_fine(void **state)
{
    (void)state;
    cpa_text table = {0}, problems = {0};
    char expected[64];
    int core = keep_one_core();
    omp_set_num_threads(1);
    assert_int_equal(cpa_binding_describe(comm, &table, &problems), CPA_OK);
    snprintf(expected, sizeof expected, ": cores %d", core);
    assert_non_null(strstr(cpa_text_str(&table), "rank 0 on "));
    assert_non_null(strstr(cpa_text_str(&table), expected));
    assert_non_null(strstr(cpa_text_str(&table), ", 1 thread\n"));
    assert_string_equal(cpa_text_str(&problems), "");
    cpa_text_fini(&table);
    cpa_text_fini(&problems);
}

static void more_threads_than_cores_are_named(void **state)
{
    (void)state;
    cpa_text table = {0}, problems = {0};
    keep_one_core();
    omp_set_num_threads(3);
    assert_int_equal(cpa_binding_describe(comm, &table, &problems), CPA_OK);
    assert_non_null(strstr(cpa_text_str(&problems), "3 threads on 1 core;"));
    cpa_text_fini(&table);
    cpa_text_fini(&problems);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(one_core_and_one_thread_are_fine),
                                       cmocka_unit_test(more_threads_than_cores_are_named)};
    if (cpa_comm_create(&argc, &argv, &comm) != CPA_OK) {
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cpa_comm_destroy(&comm);
    return failed;
}
