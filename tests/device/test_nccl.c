// Owns: the sum over GPUs by NCCL itself; skipped, saying so, where there is no GPU. Ranks may share one.
// Never looks at speed.
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpa/platform/device_sum.h"

enum { N = 5000000, SKIPPED = 77 };

static cpa_comm *comm;
static cpa_backend *be;

// Element i of rank r, an integer, so that every order of additions gives the same.
static cpa_real value(int r, int64_t i)
{
    return (cpa_real)((i * 7 + r * 3) % 1000);
}

// Ranges of all lengths, in another order than they lie; several sums, of which the first said something ahead.
static void sums_over_ranks(void **state)
{
    (void)state;
    const cpa_range ranges[] = {{4000000, 999999}, {10, 5}, {15, 100}, {200, 3000000}};
    cpa_device_sum *sum = NULL;
    cpa_real *host;
    cpa_dev_real *device;
    int rank = cpa_comm_rank(comm), size = cpa_comm_size(comm);
    assert_int_equal(cpa_alloc(N, sizeof *host, &host), CPA_OK);
    assert_int_equal(cpa_op_alloc(be, N * sizeof *host, (void **)&device), CPA_OK);
    assert_int_equal(cpa_device_sum_create(comm, be, &sum), CPA_OK);
    for (int step = 0; step < 3; step++) {
        for (int64_t i = 0; i < N; i++) {
            host[i] = value(rank, i + step);
        }
        assert_int_equal(cpa_op_upload(be, device, host, N * sizeof *host), CPA_OK);
        assert_int_equal(cpa_device_sum_begin(sum, device, ranges, 4), CPA_OK);
        assert_int_equal(step == 0 ? cpa_device_sum_ahead(sum, 1 + rank % 3) : CPA_OK, CPA_OK);
        assert_int_equal(cpa_device_sum_finish(sum), CPA_OK);
        assert_int_equal(cpa_op_download(be, host, device, N * sizeof *host), CPA_OK);
        for (int64_t i = 0; i < N; i++) {
            bool covered = (i >= 10 && i < 115) || (i >= 200 && i < 3000200) || (i >= 4000000 && i < 4999999);
            cpa_real expected = covered ? 0 : value(rank, i + step);
            for (int r = 0; covered && r < size; r++) {
                expected += value(r, i + step);
            }
            assert_true(host[i] == expected);
        }
    }
    cpa_device_sum_destroy(&sum);
    assert_int_equal(cpa_op_release(be, device), CPA_OK);
    cpa_free(&host);
}

// NCCL refuses two ranks on one GPU unless each says that it is on a host of its own; they then talk through sockets.
static void pretend_to_be_elsewhere(int rank)
{
    char host[32];
    const char *const settings[][2] = {{"NCCL_NET", "Socket"},
                                       {"NCCL_SOCKET_IFNAME", "lo"},
                                       {"NCCL_MAX_CTAS", "1"},
                                       {"NCCL_P2P_DISABLE", "1"},
                                       {"NCCL_SHM_DISABLE", "1"}};
    snprintf(host, sizeof host, "rank%d", rank);
    setenv("NCCL_HOSTID", host, 1);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        setenv(settings[i][0], settings[i][1], 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(sums_over_ranks)};
    cpa_comm_timeout(60);
    if (cpa_comm_create(NULL, NULL, &comm) != CPA_OK) {
        return 1;
    }
    pretend_to_be_elsewhere(cpa_comm_rank(comm));
    int failed = SKIPPED;
    if (cpa_comm_agree(comm, cpa_backend_create("cuda", &be)) == CPA_OK) {
        failed = cmocka_run_group_tests(tests, NULL, NULL);
        failed += cpa_backend_destroy(&be) != CPA_OK;
    } else if (cpa_comm_rank(comm) == 0) {
        printf("skipped: %s\n", cpa_message());
    }
    cpa_comm_destroy(&comm);
    return failed;
}
