// Owns: tests of what a sum over devices does without one: how ranges become messages, when these leave, what a failure means.
// Never needs a device or a second rank: what would carry the messages is made up here.
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/platform/device_sum_impl.h"

enum { MOST = 64 };

// An adder that notes what it is asked for, and fails or waits as it is told.
typedef struct noting {
    cpa_adder base;
    int64_t at[MOST], n[MOST];
    int n_started, n_closed, n_polled, n_aborted, n_destroyed;
    int fails_at; // message that cannot be started, -1: none
    int polls;    // that find something still under way
    bool breaks;  // polling then finds a failure
} noting;

static noting the;

// Where the array would be on the device; nobody looks.
#define ARRAY ((cpa_dev_real *)(uintptr_t)(1 << 20))

static cpa_status note_start(cpa_adder *a, cpa_dev_real *v, int64_t n)
{
    assert_ptr_equal(a, &the.base);
    if (the.n_started == the.fails_at) {
        return cpa_fail(CPA_INTERNAL, "the wire is cut");
    }
    the.at[the.n_started] = (int64_t)((uintptr_t)v - (uintptr_t)ARRAY) / (int64_t)sizeof(cpa_real);
    the.n[the.n_started++] = n;
    return CPA_OK;
}

static cpa_status note_close(cpa_adder *a)
{
    (void)a;
    the.n_closed++;
    return CPA_OK;
}

static cpa_status note_poll(cpa_adder *a, bool *over)
{
    (void)a;
    *over = the.n_polled++ >= the.polls;
    return *over && the.breaks ? cpa_fail(CPA_LOST_PEER, "a peer is gone") : CPA_OK;
}

static void note_abort(cpa_adder *a)
{
    (void)a;
    the.n_aborted++;
}

static void note_destroy(cpa_adder *a)
{
    (void)a;
    the.n_destroyed++;
}

static const cpa_adder_ops ops = {note_start, note_close, note_poll, note_abort, note_destroy};

static cpa_device_sum *make(void)
{
    cpa_device_sum *s;
    the = (noting){.base = {&ops}, .fails_at = -1};
    assert_int_equal(cpa_device_sum_of(&the.base, &s), CPA_OK);
    return s;
}

static void destroy(cpa_device_sum *s)
{
    cpa_device_sum_destroy(&s);
    assert_null(s);
    assert_int_equal(the.n_destroyed, 1);
}

// Every real of every range is in one message, in order; short neighbours go together, long ones are cut.
static void ranges_become_messages(void **state)
{
    (void)state;
    static cpa_bucket m[CPA_MESSAGES];
    const int64_t s = CPA_MESSAGE_SHORT, l = CPA_MESSAGE_LONG;
    const cpa_range ranges[] = {{0, 10}, {10, 20}, {40, 5}, {45, s}, {45 + s, 3}, {1 << 20, 2 * l + 1}, {5 << 20, 0}};
    const cpa_bucket expected[] = {{0, 30, 1},      {40, 5 + s, 3},        {45 + s, 3, 4},
                                   {1 << 20, l, 5}, {(1 << 20) + l, l, 5}, {(1 << 20) + 2 * l, 1, 5}};
    assert_int_equal(cpa_cut_messages(ranges, 7, m), 6);
    assert_memory_equal(m, expected, sizeof expected);
    assert_int_equal(cpa_cut_messages(NULL, 0, m), 0);
    const cpa_range endless = {0, (int64_t)CPA_MESSAGES * l + 1};
    assert_int_equal(cpa_cut_messages(&endless, 1, m), -1);
}

// What leaves ahead is what is final, in the order that was agreed; the same messages without a word ahead.
static void messages_leave_when_they_are_final(void **state)
{
    (void)state;
    const int64_t s = CPA_MESSAGE_SHORT;
    const cpa_range ranges[] = {{100, s}, {0, 50}, {50, 20}, {9000000, 7}};
    const int started[] = {0, 1, 1, 2, 3}; // after so many ranges: the second waits for the third, its neighbour
    for (int words = 0; words < 2; words++) {
        cpa_device_sum *sum = make();
        the.polls = 3;
        for (int step = 0; step < 2; step++) {
            the.n_started = the.n_closed = the.n_polled = 0;
            assert_int_equal(cpa_device_sum_begin(sum, ARRAY, ranges, 4), CPA_OK);
            for (int n = 0; n <= 4 && words; n++) {
                assert_int_equal(cpa_device_sum_ahead(sum, n), CPA_OK);
                assert_int_equal(cpa_device_sum_ahead(sum, n / 2), CPA_OK); // said before: nothing new
                assert_int_equal(the.n_started, started[n]);
            }
            assert_int_equal(the.n_closed, 0);
            assert_int_equal(cpa_device_sum_finish(sum), CPA_OK);
            assert_int_equal(the.n_started, 3);
            assert_true(the.n_closed == 1 && the.n_polled == 4 && the.n_aborted == 0);
            assert_true(the.at[0] == 100 && the.at[1] == 0 && the.at[2] == 9000000);
            assert_true(the.n[0] == s && the.n[1] == 70 && the.n[2] == 7);
        }
        destroy(sum);
    }
}

// Whatever fails fails for all ranks and for good; the others' waits are ended once.
static void a_failure_is_final(void **state)
{
    (void)state;
    const cpa_range ranges[] = {{0, CPA_MESSAGE_SHORT}, {9000000, 7}};
    for (int late = 0; late < 2; late++) {
        cpa_device_sum *sum = make();
        the.fails_at = late ? -1 : 1;
        the.breaks = late;
        assert_int_equal(cpa_device_sum_begin(sum, ARRAY, ranges, 2), CPA_OK);
        assert_int_equal(cpa_device_sum_ahead(sum, 1), CPA_OK);
        assert_int_equal(cpa_device_sum_finish(sum), CPA_LOST_PEER);
        assert_non_null(strstr(cpa_message(), late ? "a peer is gone" : "the wire is cut"));
        assert_int_equal(the.n_aborted, 1);
        assert_int_equal(cpa_device_sum_ahead(sum, 2), CPA_LOST_PEER);
        assert_int_equal(cpa_device_sum_finish(sum), CPA_LOST_PEER);
        assert_int_equal(cpa_device_sum_begin(sum, ARRAY, ranges, 2), CPA_INTERNAL);
        assert_int_equal(the.n_aborted, 1);
        destroy(sum);
    }
}

static void sums_do_not_overlap(void **state)
{
    (void)state;
    const cpa_range range = {0, 5};
    cpa_device_sum *sum = make();
    assert_int_equal(cpa_device_sum_finish(sum), CPA_INTERNAL);
    assert_int_equal(cpa_device_sum_begin(sum, ARRAY, &range, 1), CPA_OK);
    assert_int_equal(cpa_device_sum_begin(sum, ARRAY, &range, 1), CPA_INTERNAL);
    assert_int_equal(cpa_device_sum_finish(sum), CPA_OK);
    destroy(sum);
}

// One rank has nobody to add up with, whatever its backend; the host's memory is no device.
static void a_rank_by_itself(void **state)
{
    (void)state;
    cpa_comm *comm;
    cpa_backend *be;
    cpa_device_sum *sum = NULL;
    const cpa_range range = {0, 5};
    assert_int_equal(cpa_comm_create(NULL, NULL, &comm), CPA_OK);
    assert_int_equal(cpa_backend_create("cpu", &be), CPA_OK);
    assert_int_equal(cpa_device_sum_create(comm, be, &sum), CPA_OK);
    assert_int_equal(cpa_device_sum_begin(sum, ARRAY, &range, 1), CPA_OK);
    assert_int_equal(cpa_device_sum_ahead(sum, 1), CPA_OK);
    assert_int_equal(cpa_device_sum_finish(sum), CPA_OK);
    cpa_device_sum_destroy(&sum);
    assert_int_equal(cpa_backend_destroy(&be), CPA_OK);
    cpa_comm_destroy(&comm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_become_messages), cmocka_unit_test(messages_leave_when_they_are_final),
        cmocka_unit_test(a_failure_is_final),     cmocka_unit_test(sums_do_not_overlap),
        cmocka_unit_test(a_rank_by_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
