// Owns: the tests of the communicator over MPI, at any number of ranks.
// Must never let a rank skip a collective that the others call, unless the test fails.
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "../../src/platform/comm_impl.h"
#include "cpa/base/mem.h"
#include "cpa/platform/comm.h"

static cpa_comm *comm;
static int rank, size;

static int setup(void **state)
{
    (void)state;
    cpa_status st = cpa_comm_create(NULL, NULL, &comm);
    if (st == CPA_OK) {
        rank = cpa_comm_rank(comm);
        size = cpa_comm_size(comm);
    }
    return (int)st;
}

static int teardown(void **state)
{
    (void)state;
    cpa_comm_destroy(&comm);
    return (int)cpa_alloc_balance();
}

static unsigned char pattern(int r, size_t i)
{
    return (unsigned char)((size_t)r * 71 + i * 13 + i / 256);
}

static void fill(unsigned char *buf, size_t bytes, int r)
{
    for (size_t i = 0; i < bytes; i++) {
        buf[i] = pattern(r, i);
    }
}

static void assert_filled(const unsigned char *buf, size_t bytes, int r)
{
    for (size_t i = 0; i < bytes; i++) {
        if (buf[i] != pattern(r, i)) {
            fail_msg("byte %zu of rank %d's %zu bytes is %d", i, r, bytes, buf[i]);
        }
    }
}

static void ranks_are_numbered(void **state)
{
    (void)state;
    int mine[2] = {rank, cpa_comm_node_rank(comm)}, *all = NULL;
    assert_string_equal(cpa_comm_name(comm), "mpi");
    assert_true(rank >= 0 && rank < size);
    assert_int_equal(cpa_comm_node_size(comm), size); // the tests run on one node
    const char *launched = getenv("OMPI_COMM_WORLD_SIZE") ? getenv("OMPI_COMM_WORLD_SIZE") : getenv("PMI_SIZE");
    assert_int_equal(size, atoi(launched));
    assert_int_equal(cpa_alloc((size_t)size, sizeof mine, &all), CPA_OK);
    assert_int_equal(cpa_comm_allgather(comm, mine, all, sizeof mine), CPA_OK);
    for (int r = 0; r < size; r++) {
        assert_int_equal(all[2 * r], r);
        assert_int_equal(all[2 * r + 1], r);
    }
    cpa_free(&all);
    assert_int_equal(cpa_comm_barrier(comm), CPA_OK);
}

// Whole messages and messages cut into pieces, the last one short, full, or absent.
static const size_t lengths[] = {0, 1, 999, 1000, 1001, 3000, 200001};
static const size_t pieces[] = {1000, (size_t)1 << 30};
enum { N_LENGTHS = sizeof lengths / sizeof lengths[0], N_PIECES = sizeof pieces / sizeof pieces[0] };

static void broadcast_reaches_all(void **state)
{
    (void)state;
    unsigned char *buf = NULL;
    assert_int_equal(cpa_alloc(lengths[N_LENGTHS - 1], 1, &buf), CPA_OK);
    for (int p = 0; p < N_PIECES; p++) {
        comm->piece = pieces[p];
        for (int k = 0; k < N_LENGTHS; k++) {
            for (int root = 0; root < size; root++) {
                fill(buf, lengths[k], rank);
                assert_int_equal(cpa_comm_bcast(comm, buf, lengths[k], root), CPA_OK);
                assert_filled(buf, lengths[k], root);
            }
        }
    }
    cpa_free(&buf);
}

static void gather_is_in_rank_order(void **state)
{
    (void)state;
    unsigned char *mine = NULL, *all = NULL;
    assert_int_equal(cpa_alloc(lengths[N_LENGTHS - 1], 1, &mine), CPA_OK);
    assert_int_equal(cpa_alloc(lengths[N_LENGTHS - 1] * (size_t)size, 1, &all), CPA_OK);
    for (int p = 0; p < N_PIECES; p++) {
        comm->piece = pieces[p];
        for (int k = 0; k < N_LENGTHS; k++) {
            fill(mine, lengths[k], rank);
            memset(all, 0, lengths[k] * (size_t)size);
            assert_int_equal(cpa_comm_allgather(comm, mine, all, lengths[k]), CPA_OK);
            for (int r = 0; r < size; r++) {
                assert_filled(all + lengths[k] * (size_t)r, lengths[k], r);
            }
        }
    }
    cpa_free(&mine);
    cpa_free(&all);
}

static void sums_are_exact(void **state)
{
    (void)state;
    // 2^62 + small numbers: a sum in floating point would lose the small ones.
    int64_t v[3] = {rank == 0 ? INT64_C(1) << 62 : rank + 1, -rank, 1};
    assert_int_equal(cpa_comm_sum_i64(comm, v, 3), CPA_OK);
    assert_true(v[0] == (INT64_C(1) << 62) + (int64_t)size * (size + 1) / 2 - 1);
    assert_true(v[1] == -(int64_t)size * (size - 1) / 2);
    assert_true(v[2] == size);
    assert_int_equal(cpa_comm_sum_i64(comm, v, 0), CPA_OK);
    double d[3] = {-1.0 - rank, (double)(rank * rank), rank == size - 1 ? 0x1p-1060 : -1e300};
    assert_int_equal(cpa_comm_max_f64(comm, d, 3), CPA_OK);
    assert_true(d[0] == -1.0 && d[1] == (double)((size - 1) * (size - 1)) && d[2] == 0x1p-1060);
}

static void sums_of_reals_are_the_same_everywhere(void **state)
{
    (void)state;
    enum { N = 1001 };
    cpa_real v[N], *all = NULL;
    double d[N];
    for (int p = 0; p < N_PIECES; p++) {
        comm->piece = pieces[p];
        for (int i = 0; i < N; i++) {
            v[i] = (cpa_real)(rank + 1) / (cpa_real)(i + 3);
            d[i] = i == 0 ? (double)rank : 0x1p60;
        }
        assert_int_equal(cpa_comm_add_reals(comm, v, N), CPA_OK);
        assert_int_equal(cpa_comm_add_f64(comm, d, N), CPA_OK);
        assert_true(d[0] == size * (size - 1) / 2.0 && d[N - 1] == 0x1p60 * size);
        assert_true(v[0] > 0.999 * size * (size + 1) / 6 && v[0] < 1.001 * size * (size + 1) / 6);
        comm->piece = (size_t)1 << 30;
        assert_int_equal(cpa_alloc((size_t)size, sizeof v, &all), CPA_OK);
        assert_int_equal(cpa_comm_allgather(comm, v, all, sizeof v), CPA_OK);
        for (int r = 0; r < size; r++) {
            assert_memory_equal(all + r * N, v, sizeof v);
        }
        cpa_free(&all);
    }
    assert_int_equal(cpa_comm_add_reals(comm, v, 0), CPA_OK);
}

static void messages_arrive_whole_and_in_order(void **state)
{
    (void)state;
    if (size == 1) {
        skip();
    }
    unsigned char *out = NULL, *in = NULL;
    cpa_flight *flight = NULL;
    size_t longest = lengths[N_LENGTHS - 1];
    int to = (rank + 1) % size, from = (rank + size - 1) % size;
    assert_int_equal(cpa_alloc(N_LENGTHS * longest, 1, &out), CPA_OK);
    assert_int_equal(cpa_alloc(N_LENGTHS * longest, 1, &in), CPA_OK);
    for (int p = 0; p < 2 * N_PIECES; p++) {
        bool over = false;
        comm->piece = pieces[p / 2];
        assert_int_equal(cpa_flight_create(comm, 2 * N_LENGTHS, longest, &flight), CPA_OK);
        for (int k = 0; k < N_LENGTHS; k++) {
            fill(out + (size_t)k * longest, lengths[k], rank + k);
            memset(in + (size_t)k * longest, 0, lengths[k]);
        }
        // Two tags, whose messages each rank starts in another order.
        for (int k = 0; k < 2 * N_LENGTHS; k++) {
            int i = rank % 2 == 0 ? k % N_LENGTHS : N_LENGTHS - 1 - k % N_LENGTHS;
            bool sends = (k < N_LENGTHS) == (rank % 2 == 0);
            unsigned char *at = (sends ? out : in) + (size_t)i * longest;
            assert_int_equal(sends ? cpa_flight_send(flight, to, i, at, lengths[i])
                                   : cpa_flight_receive(flight, from, i, at, lengths[i]),
                             CPA_OK);
        }
        while (p % 2 == 0 && !over) {
            assert_int_equal(cpa_flight_test(flight, &over), CPA_OK);
        }
        assert_int_equal(cpa_flight_wait(flight), CPA_OK);
        assert_int_equal(cpa_flight_test(flight, &over), CPA_OK);
        assert_true(over);
        for (int k = 0; k < N_LENGTHS; k++) {
            assert_filled(in + (size_t)k * longest, lengths[k], from + k);
        }
        cpa_flight_destroy(&flight);
    }
    cpa_free(&out);
    cpa_free(&in);
}

static void messages_of_one_tag_keep_their_order(void **state)
{
    (void)state;
    if (size == 1) {
        skip();
    }
    enum { N = 5 };
    int out[N], in[N], to = (rank + 1) % size, from = (rank + size - 1) % size;
    cpa_flight *flight = NULL;
    assert_int_equal(cpa_flight_create(comm, 2 * N, sizeof(int), &flight), CPA_OK);
    for (int k = 0; k < N; k++) {
        out[k] = 10 * rank + k;
        assert_int_equal(cpa_flight_send(flight, to, 7, &out[k], sizeof(int)), CPA_OK);
        assert_int_equal(cpa_flight_receive(flight, from, 7, &in[k], sizeof(int)), CPA_OK);
    }
    assert_int_equal(cpa_flight_send(flight, to, 7, out, sizeof(int)), CPA_INTERNAL);
    assert_non_null(strstr(cpa_message(), "has room for 10 messages"));
    assert_int_equal(cpa_flight_wait(flight), CPA_OK);
    for (int k = 0; k < N; k++) {
        assert_int_equal(in[k], 10 * from + k);
    }
    cpa_flight_destroy(&flight);
}

static cpa_status one_message(bool sends, void *buf, size_t bytes)
{
    cpa_flight *flight = NULL;
    assert_int_equal(cpa_flight_create(comm, 1, bytes, &flight), CPA_OK);
    assert_int_equal(sends ? cpa_flight_send(flight, 0, 0, buf, bytes) : cpa_flight_receive(flight, 1, 0, buf, bytes),
                     CPA_OK);
    cpa_status st = cpa_flight_wait(flight);
    cpa_flight_destroy(&flight);
    return st;
}

static void a_message_of_another_length_is_an_error(void **state)
{
    (void)state;
    char buf[8] = "1234567", other[8];
    if (size == 1) {
        skip();
    }
    if (rank == 1) {
        assert_int_equal(one_message(true, buf, 5), CPA_OK);
        assert_int_equal(one_message(true, buf, 8), CPA_OK);
    } else if (rank == 0) {
        assert_int_equal(one_message(false, other, 8), CPA_INTERNAL);
        assert_string_equal(cpa_message(), "rank 0 expected 8 bytes from rank 1 and got 5");
        assert_int_equal(one_message(false, other, 5), CPA_LOST_PEER);
        assert_non_null(strstr(cpa_message(), "MPI_Wait failed"));
        assert_non_null(strcasestr(cpa_message(), "truncate")); // each MPI library says it its own way
    }
    assert_int_equal(cpa_comm_barrier(comm), CPA_OK);
}

static void the_worst_status_wins(void **state)
{
    (void)state;
    char want[64];
    assert_int_equal(cpa_comm_agree(comm, CPA_OK), CPA_OK);
    for (int bad = 0; bad < size; bad++) {
        cpa_status mine = rank == bad ? cpa_fail(CPA_IO, "rank %d cannot write", rank) : CPA_OK;
        assert_int_equal(cpa_comm_agree(comm, mine), CPA_IO);
        snprintf(want, sizeof want, "rank %d cannot write", bad);
        assert_string_equal(cpa_message(), want);
    }
    // All fail alike but the last, which is worse: its message; without it, that of rank 0.
    assert_int_equal(cpa_comm_agree(comm, cpa_fail(rank == size - 1 ? CPA_CONFIG : CPA_BAD_DATA, "row %d", rank)),
                     CPA_CONFIG);
    snprintf(want, sizeof want, "row %d", size - 1);
    assert_string_equal(cpa_message(), want);
    assert_int_equal(cpa_comm_agree(comm, cpa_fail(CPA_BAD_DATA, "row %d", rank)), CPA_BAD_DATA);
    assert_string_equal(cpa_message(), "row 0");
}

static void node_memory_is_shared_and_zeroed(void **state)
{
    (void)state;
    enum { PER_RANK = 1000 };
    int64_t *a = NULL;
    char *b = NULL;
    void *p = NULL, *q = NULL, *empty = NULL;
    for (int round = 0; round < 3; round++) {
        size_t bytes = (size_t)(size * PER_RANK) * sizeof *a;
        assert_int_equal(cpa_comm_shared_alloc(comm, bytes, &p), CPA_OK);
        assert_int_equal(cpa_comm_shared_alloc(comm, 77, &q), CPA_OK);
        assert_int_equal(cpa_comm_shared_alloc(comm, 0, &empty), CPA_OK);
        a = p;
        b = q;
        for (int i = 0; i < size * PER_RANK; i++) {
            assert_true(a[i] == 0);
        }
        assert_int_equal(cpa_comm_node_barrier(comm), CPA_OK);
        for (int i = 0; i < PER_RANK; i++) {
            a[rank * PER_RANK + i] = rank * PER_RANK + i + 1;
        }
        b[rank] = (char)('a' + rank);
        assert_int_equal(cpa_comm_node_barrier(comm), CPA_OK);
        for (int i = 0; i < size * PER_RANK; i++) {
            assert_true(a[i] == i + 1);
        }
        for (int r = 0; r < size; r++) {
            assert_int_equal(b[r], 'a' + r);
        }
        cpa_comm_shared_free(comm, &p);
        assert_null(p);
        cpa_comm_shared_free(comm, &q);
        cpa_comm_shared_free(comm, &empty);
    }
}

static void too_much_node_memory_is_an_error_on_all(void **state)
{
    (void)state;
    if (size == 1) {
        skip();
    }
    void *p = NULL;
    assert_int_equal(cpa_comm_shared_alloc(comm, (size_t)1 << 50, &p), CPA_IO);
    assert_null(p);
    assert_non_null(strstr(cpa_message(), "shared memory"));
    assert_int_equal(cpa_comm_barrier(comm), CPA_OK);
}

static void a_part_is_its_first_ranks(void **state)
{
    (void)state;
    for (int n = 1; n <= size; n++) {
        cpa_comm *part = NULL;
        void *memory = NULL;
        assert_int_equal(cpa_comm_part(comm, n, &part), CPA_OK);
        assert_int_equal(part != NULL, rank < n);
        if (part != NULL) {
            int64_t one = 1;
            assert_int_equal(cpa_comm_rank(part), rank);
            assert_int_equal(cpa_comm_size(part), n);
            assert_int_equal(cpa_comm_node_size(part), n);
            assert_int_equal(cpa_comm_sum_i64(part, &one, 1), CPA_OK);
            assert_true(one == n);
            assert_int_equal(cpa_comm_agree(part, rank == n - 1 ? cpa_fail(CPA_IO, "rank %d", rank) : CPA_OK), CPA_IO);
            assert_int_equal(cpa_comm_shared_alloc(part, 100, &memory), CPA_OK);
            cpa_comm_shared_free(part, &memory);
        }
        cpa_comm_destroy(&part);
        assert_null(part);
        assert_int_equal(cpa_comm_agree_rested(comm, CPA_OK), CPA_OK);
    }
    assert_int_equal(cpa_comm_barrier(comm), CPA_OK);
}

static double clock_of(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void ranks_that_rest_take_no_core(void **state)
{
    (void)state;
    double core = clock_of(CLOCK_PROCESS_CPUTIME_ID), wall = clock_of(CLOCK_MONOTONIC);
    bool works = cpa_comm_alone(comm);
    assert_int_equal(works, rank == 0);
    for (int i = 0; works && i < 4; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
        cpa_comm_get_on();
    }
    assert_int_equal(cpa_comm_agree_rested(comm, works ? cpa_fail(CPA_IO, "disk") : CPA_OK), CPA_IO);
    core = clock_of(CLOCK_PROCESS_CPUTIME_ID) - core;
    wall = clock_of(CLOCK_MONOTONIC) - wall;
    assert_true(core < wall / 2);
}

static void wrong_ranks_are_refused(void **state)
{
    (void)state;
    char c = 0;
    assert_int_equal(cpa_comm_bcast(comm, &c, 1, size), CPA_INTERNAL);
    assert_int_equal(cpa_comm_bcast(comm, &c, 1, -1), CPA_INTERNAL);
    cpa_comm *part = NULL;
    assert_int_equal(cpa_comm_part(comm, 0, &part), CPA_INTERNAL);
    assert_int_equal(cpa_comm_part(comm, size + 1, &part), CPA_INTERNAL);
    assert_null(part);
    cpa_flight *flight = NULL;
    assert_int_equal(cpa_flight_create(comm, 1, 1, &flight), CPA_OK);
    assert_int_equal(cpa_flight_send(flight, rank, 0, &c, 1), CPA_INTERNAL);
    assert_int_equal(cpa_flight_receive(flight, size, 0, &c, 1), CPA_INTERNAL);
    cpa_flight_destroy(&flight);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_are_numbered),
        cmocka_unit_test(broadcast_reaches_all),
        cmocka_unit_test(gather_is_in_rank_order),
        cmocka_unit_test(sums_are_exact),
        cmocka_unit_test(sums_of_reals_are_the_same_everywhere),
        cmocka_unit_test(messages_arrive_whole_and_in_order),
        cmocka_unit_test(messages_of_one_tag_keep_their_order),
        cmocka_unit_test(a_message_of_another_length_is_an_error),
        cmocka_unit_test(the_worst_status_wins),
        cmocka_unit_test(node_memory_is_shared_and_zeroed),
        cmocka_unit_test(too_much_node_memory_is_an_error_on_all),
        cmocka_unit_test(a_part_is_its_first_ranks),
        cmocka_unit_test(ranks_that_rest_take_no_core),
        cmocka_unit_test(wrong_ranks_are_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
