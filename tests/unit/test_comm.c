// Owns: the tests of the communicator of a single process.
// Must never start MPI: that is what is tested.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <mpi.h>

#include "cpa/base/mem.h"
#include "cpa/platform/comm.h"

static void create_alone(cpa_comm **comm)
{
    const char *const launcher[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE",
                                    "SLURM_STEP_NUM_TASKS"};
    for (size_t i = 0; i < sizeof launcher / sizeof launcher[0]; i++) {
        unsetenv(launcher[i]);
    }
    assert_int_equal(cpa_comm_create(NULL, NULL, comm), CPA_OK);
}

static void alone_mpi_is_not_started(void **state)
{
    (void)state;
    int started = -1;
    cpa_comm *comm = NULL;
    setenv("SLURM_PROCID", "0", 1); // a batch script has this one without srun
    create_alone(&comm);
    assert_string_equal(cpa_comm_name(comm), "self");
    assert_int_equal(cpa_comm_rank(comm), 0);
    assert_int_equal(cpa_comm_size(comm), 1);
    assert_int_equal(cpa_comm_node_rank(comm), 0);
    assert_int_equal(cpa_comm_node_size(comm), 1);
    MPI_Initialized(&started);
    assert_int_equal(started, 0);
    cpa_comm_destroy(&comm);
    assert_null(comm);
    cpa_comm_destroy(&comm);
    assert_int_equal(cpa_alloc_balance(), 0);
}

static void collectives_give_back_what_they_get(void **state)
{
    (void)state;
    cpa_comm *comm = NULL;
    create_alone(&comm);
    int64_t i[2] = {INT64_MIN, 5};
    double d = -3.5, out = 0;
    assert_int_equal(cpa_comm_barrier(comm), CPA_OK);
    assert_true(cpa_comm_alone(comm));
    cpa_comm_get_on();
    assert_int_equal(cpa_comm_agree_rested(comm, CPA_OK), CPA_OK);
    assert_int_equal(cpa_comm_agree_rested(comm, cpa_fail(CPA_IO, "disk")), CPA_IO);
    cpa_comm *part = NULL;
    assert_int_equal(cpa_comm_part(comm, 2, &part), CPA_INTERNAL);
    assert_int_equal(cpa_comm_part(comm, 1, &part), CPA_OK);
    assert_int_equal(cpa_comm_size(part), 1);
    cpa_comm_destroy(&part);
    assert_int_equal(cpa_comm_node_barrier(comm), CPA_OK);
    assert_int_equal(cpa_comm_bcast(comm, &d, sizeof d, 0), CPA_OK);
    assert_int_equal(cpa_comm_sum_i64(comm, i, 2), CPA_OK);
    assert_int_equal(cpa_comm_max_f64(comm, &d, 1), CPA_OK);
    assert_true(i[0] == INT64_MIN && i[1] == 5 && d == -3.5);
    assert_int_equal(cpa_comm_allgather(comm, &d, &out, sizeof d), CPA_OK);
    assert_true(out == -3.5);
    assert_int_equal(cpa_comm_agree(comm, CPA_OK), CPA_OK);
    assert_int_equal(cpa_comm_agree(comm, cpa_fail(CPA_IO, "disk %d", 3)), CPA_IO);
    assert_string_equal(cpa_message(), "disk 3");
    cpa_comm_destroy(&comm);
}

static void shared_memory_is_zeroed_memory(void **state)
{
    (void)state;
    cpa_comm *comm = NULL;
    create_alone(&comm);
    void *p = NULL, *empty = NULL;
    assert_int_equal(cpa_comm_shared_alloc(comm, 1000, &p), CPA_OK);
    assert_int_equal(cpa_comm_shared_alloc(comm, 0, &empty), CPA_OK);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(((char *)p)[i], 0);
    }
    cpa_comm_shared_free(comm, &p);
    assert_null(p);
    cpa_comm_shared_free(comm, &p);
    cpa_comm_shared_free(comm, &empty);
    cpa_comm_destroy(&comm);
    assert_int_equal(cpa_alloc_balance(), 0);
}

static void wrong_ranks_are_refused(void **state)
{
    (void)state;
    cpa_comm *comm = NULL;
    create_alone(&comm);
    char c = 0;
    assert_int_equal(cpa_comm_bcast(comm, &c, 1, 1), CPA_INTERNAL);
    cpa_flight *flight = NULL;
    assert_int_equal(cpa_flight_create(comm, 1, 1, &flight), CPA_INTERNAL);
    assert_null(flight);
    assert_int_equal(cpa_comm_sum_i64(comm, NULL, -1), CPA_INTERNAL);
    assert_int_equal(cpa_comm_max_f64(comm, NULL, -1), CPA_INTERNAL);
    cpa_comm_destroy(&comm);
}

static void abort_ends_with_the_status(void **state)
{
    (void)state;
    cpa_comm *comm = NULL;
    create_alone(&comm);
    pid_t child = fork();
    if (child == 0) {
        cpa_comm_abort(comm, CPA_LOST_PEER);
        _exit(1);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), CPA_LOST_PEER);
    cpa_comm_destroy(&comm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone_mpi_is_not_started),       cmocka_unit_test(collectives_give_back_what_they_get),
        cmocka_unit_test(shared_memory_is_zeroed_memory), cmocka_unit_test(wrong_ranks_are_refused),
        cmocka_unit_test(abort_ends_with_the_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
