// Owns: tests of the base layer: status, memory, text, log and random numbers. Never needs a backend or a file.
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpa/base/hash.h"
#include "cpa/base/leavings.h"
#include "cpa/base/log.h"
#include "cpa/base/mem.h"
#include "cpa/base/rng.h"
#include "cpa/base/signals.h"
#include "cpa/base/status.h"
#include "cpa/base/text.h"

static void test_status(void **state)
{
    (void)state;
    assert_int_equal(CPA_OK, 0);
    assert_int_equal(cpa_fail(CPA_BAD_DATA, "row %d of '%s'", 7, "obs"), CPA_BAD_DATA);
    assert_string_equal(cpa_message(), "row 7 of 'obs'");
    cpa_fail(CPA_IO, "reading: %s", cpa_message()); // the old message may be part of the new one
    assert_string_equal(cpa_message(), "reading: row 7 of 'obs'");
    char *big = malloc(100001);
    assert_non_null(big);
    memset(big, 'x', 100000);
    big[100000] = '\0';
    cpa_fail(CPA_IO, "%s", big);
    assert_int_equal(strlen(cpa_message()), 100000);
    free(big);
}

// How a process ends that has been told twice to stop, the second time at its end or before.
static int code_of_stopped(bool at_its_end)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        unsetenv("SLURM_JOB_END_TIME");
        cpa_stop_hold();
        kill(getpid(), SIGUSR1);
        cpa_stop_listen();
        while (!cpa_stop_wanted()) {
            usleep(1000);
        }
        if (at_its_end) {
            cpa_stop_ignore();
        }
        kill(getpid(), SIGTERM);
        usleep(at_its_end ? 200000 : 10000000);
        _exit(75);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_signals(void **state)
{
    (void)state;
    assert_int_equal(code_of_stopped(false), 128 + SIGTERM);
    assert_int_equal(code_of_stopped(true), 75);
}

static void test_leavings(void **state)
{
    (void)state;
    char folder[] = "/tmp/cpa-leavings-XXXXXX", kept[64], file[64];
    assert_non_null(mkdtemp(folder));
    snprintf(kept, sizeof kept, "%s.kept", folder);
    snprintf(file, sizeof file, "%s/file", folder);
    cpa_leavings_add(folder);
    cpa_leavings_add(kept);
    cpa_leavings_add(file);
    fclose(fopen(kept, "w"));
    fclose(fopen(file, "w"));
    cpa_leavings_drop(kept);
    cpa_leavings_remove();
    assert_int_equal(access(kept, F_OK), 0);
    assert_int_not_equal(access(folder, F_OK), 0); // what it held went first
    assert_int_equal(mkdir(folder, 0777), 0);
    cpa_leavings_drop(folder); // with what lies below
    fclose(fopen(file, "w"));
    cpa_leavings_remove();
    assert_int_equal(access(file, F_OK), 0);
    int fd = open(kept, O_RDONLY);
    cpa_leavings_add(kept);
    cpa_leavings_made(kept, fd);
    assert_true(cpa_leavings_are_ours(kept) && cpa_leavings_are_ours(file));
    unlink(kept);
    assert_false(cpa_leavings_are_ours(kept));
    fclose(fopen(kept, "w")); // by another process
    assert_false(cpa_leavings_are_ours(kept));
    cpa_leavings_remove();
    assert_int_equal(access(kept, F_OK), 0);
    close(fd);
    cpa_leavings_drop(kept);
    for (int i = 0; i < 100; i++) {
        cpa_leavings_add(kept); // more than it remembers
    }
    cpa_leavings_drop(kept);
    unlink(file);
    unlink(kept);
    rmdir(folder);
}

static void test_memory(void **state)
{
    (void)state;
    long balance = cpa_alloc_balance(), count = cpa_alloc_count(), bytes = cpa_alloc_bytes();
    int *a = NULL;
    assert_int_equal(cpa_alloc(3, sizeof *a, &a), CPA_OK);
    assert_int_equal(a[0] | a[1] | a[2], 0);
    a[2] = 9;
    assert_int_equal(cpa_realloc(1000, sizeof *a, &a), CPA_OK);
    assert_int_equal(a[2], 9);
    assert_int_equal(cpa_alloc_balance(), balance + 1);
    assert_true(cpa_alloc_count() > count);
    assert_true(cpa_alloc_bytes() >= bytes + 1000 * (long)sizeof *a);
    int *before = a;
    assert_int_equal(cpa_realloc(SIZE_MAX / 2, sizeof *a, &a), CPA_INTERNAL);
    assert_ptr_equal(a, before);
    cpa_free(&a);
    assert_null(a);
    cpa_free(&a);
    void *none = NULL;
    assert_int_equal(cpa_alloc(0, 8, &none), CPA_OK);
    assert_non_null(none);
    cpa_free(&none);
    void *huge = NULL;
    assert_int_equal(cpa_alloc(SIZE_MAX / 2, 8, &huge), CPA_INTERNAL);
    assert_non_null(strstr(cpa_message(), "9223372036854775807"));
    assert_int_equal(cpa_alloc_bytes(), bytes);
    assert_int_equal(cpa_alloc_balance(), balance);
    size_t now, high;
    cpa_rss(&now, &high);
    assert_true(now > 0 && high >= now);
}

static void check_split(const char *s, int n, const char *const *want)
{
    cpa_strings list = {0};
    assert_int_equal(cpa_strings_split(&list, s, ','), CPA_OK);
    assert_int_equal(list.n, n);
    for (int i = 0; i < n; i++) {
        assert_string_equal(list.s[i], want[i]);
    }
    cpa_strings_fini(&list);
}

static void test_strings(void **state)
{
    (void)state;
    long balance = cpa_alloc_balance();
    check_split("", 0, NULL);
    check_split(" a b ,c", 2, (const char *[]){"a b", "c"});
    check_split(",x,", 3, (const char *[]){"", "x", ""});
    check_split("one", 1, (const char *[]){"one"});
    cpa_strings list = {0}, copy = {0};
    for (int i = 0; i < 100; i++) {
        char name[16];
        snprintf(name, sizeof name, "gene%d", i);
        assert_int_equal(cpa_strings_add(&list, name), CPA_OK);
    }
    assert_int_equal(cpa_strings_find(&list, "gene37"), 37);
    assert_int_equal(cpa_strings_find(&list, "gene100"), -1);
    assert_int_equal(cpa_strings_copy(&list, &copy), CPA_OK);
    cpa_strings_fini(&list);
    assert_int_equal(list.n, 0);
    assert_int_equal(copy.n, 100);
    assert_string_equal(copy.s[99], "gene99");
    cpa_strings_fini(&copy);
    char *s = NULL, *t = NULL;
    assert_int_equal(cpa_sprintf(&s, "%d/%s", 3, "x"), CPA_OK);
    assert_string_equal(s, "3/x");
    assert_int_equal(cpa_strdup(s, &t), CPA_OK);
    assert_string_equal(t, "3/x");
    cpa_free(&s);
    cpa_free(&t);
    assert_int_equal(cpa_strdup(NULL, &t), CPA_OK);
    assert_null(t);
    assert_int_equal(cpa_alloc_balance(), balance);
}

static void test_text(void **state)
{
    (void)state;
    long balance = cpa_alloc_balance();
    cpa_text text = {0};
    assert_string_equal(cpa_text_str(&text), "");
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(cpa_text_add(&text, "%03d,", i), CPA_OK);
    }
    assert_int_equal(text.n, 4000);
    assert_memory_equal(cpa_text_str(&text) + 3996, "999,", 5);
    cpa_text_fini(&text);
    cpa_problems p = {0};
    assert_int_equal(cpa_problems_status(&p, CPA_BAD_DATA), CPA_OK);
    assert_int_equal(cpa_problems_add(&p, "column '%s' is missing", "dose"), CPA_OK);
    assert_int_equal(cpa_problems_add(&p, "row %d", 5), CPA_OK);
    assert_int_equal(cpa_problems_status(&p, CPA_BAD_DATA), CPA_BAD_DATA);
    assert_string_equal(cpa_message(), "column 'dose' is missing\nrow 5");
    cpa_problems_fini(&p);
    assert_int_equal(cpa_alloc_balance(), balance);
}

// Runs `write` with standard error in a file and gives back what arrived there.
static void capture(void (*write)(void), char *text, size_t size)
{
    fflush(stderr);
    FILE *f = tmpfile();
    assert_non_null(f);
    int saved = dup(STDERR_FILENO);
    assert_true(saved >= 0 && dup2(fileno(f), STDERR_FILENO) >= 0);
    write();
    fflush(stderr);
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    rewind(f);
    size_t n = fread(text, 1, size - 1, f);
    text[n] = '\0';
    fclose(f);
}

static void speak(void)
{
    cpa_log_init(0, false);
    cpa_info("plain %d", 1);
    cpa_warn("cells without counts: %d", 2);
    cpa_error("first\nsecond");
    cpa_progress(false, "not kept");
    cpa_progress(true, "kept");
    cpa_log_init(0, true);
    cpa_info("quiet");
    cpa_log_init(3, false);
    cpa_info("other rank");
    cpa_warn("other rank");
    cpa_error("any rank");
    cpa_log_init(0, false);
}

static void test_log(void **state)
{
    (void)state;
    char text[1024];
    capture(speak, text, sizeof text);
    assert_string_equal(text, "plain 1\nwarning: cells without counts: 2\ncpa-hpc: error: first\n"
                              "cpa-hpc: error: second\nkept\ncpa-hpc: error: any rank\n");
    double t = cpa_seconds();
    assert_true(cpa_seconds() >= t);
}

// The published vectors of Philox 4x32-10. The stream is folded into the upper key word, so it is folded out here.
static void test_philox(void **state)
{
    (void)state;
    const struct {
        uint32_t key[2], ctr[4], out[4];
    } known[] = {
        {{0, 0}, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0xa4093822, 0x299f31d0},
         {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t fold = (uint32_t)CPA_STREAM_SHUFFLE * 0x9E3779B1u, out[4];
        uint64_t seed = known[i].key[0] | (uint64_t)(known[i].key[1] ^ fold) << 32;
        cpa_philox(seed, CPA_STREAM_SHUFFLE, known[i].ctr, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
    uint32_t a[4], b[4];
    cpa_philox(1, CPA_STREAM_INIT, (const uint32_t[4]){0}, a);
    cpa_philox(1, CPA_STREAM_SPLIT, (const uint32_t[4]){0}, b);
    assert_memory_not_equal(a, b, sizeof a);
    assert_true(cpa_unit(0) == 0.0f && cpa_unit(UINT32_MAX) < 1.0f);
    assert_int_equal(cpa_below(UINT32_MAX, UINT32_MAX, 10), 9);
    assert_int_equal(cpa_below(0, 0, 10), 0);
}

static void test_shuffle(void **state)
{
    (void)state;
    enum { N = 1000 };
    int64_t a[N], b[N];
    int seen[N] = {0}, moved = 0, differ = 0;
    for (int i = 0; i < N; i++) {
        a[i] = i;
        b[i] = i;
    }
    cpa_shuffle(42, CPA_STREAM_SHUFFLE, 3, 1, a, N);
    cpa_shuffle(42, CPA_STREAM_SHUFFLE, 4, 1, b, N);
    for (int i = 0; i < N; i++) {
        assert_in_range(a[i], 0, N - 1);
        seen[a[i]]++;
        moved += a[i] != i;
        differ += a[i] != b[i];
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(seen[i], 1);
    }
    assert_true(moved > N * 9 / 10 && differ > N * 9 / 10);
    // Every place is equally likely: 6 orders of 3 in 6000 draws, each about 1000 times (five deviations: 145).
    int orders[27] = {0};
    for (uint32_t i = 0; i < 6000; i++) {
        int64_t c[3] = {0, 1, 2};
        cpa_shuffle(7, CPA_STREAM_DEAL, i, 0, c, 3);
        orders[c[0] * 9 + c[1] * 3 + c[2]]++;
    }
    const int index[6] = {5, 7, 11, 15, 19, 21};
    for (int i = 0; i < 6; i++) {
        assert_in_range(orders[index[i]], 855, 1145);
    }
    cpa_shuffle(1, CPA_STREAM_DEAL, 0, 0, a, 0);
    cpa_shuffle(1, CPA_STREAM_DEAL, 0, 0, a, 1);
}

// Known values; and any bit that is another, or another length, makes another digest.
static void test_hash(void **state)
{
    (void)state;
    unsigned char byte[100] = {0};
    assert_true(cpa_hash(CPA_HASH_START, "a", 1) == 0xaf63dc4c8601ec8cu);
    assert_true(cpa_hash(CPA_HASH_START, "foobar", 6) == 0x85944171f73967e8u);
    for (size_t n = 0; n <= sizeof byte; n++) {
        uint64_t plain = cpa_hash(CPA_HASH_START, byte, n), fast = cpa_hash_long(CPA_HASH_START, byte, n);
        assert_true(fast != cpa_hash_long(CPA_HASH_START + 1, byte, n));
        assert_true(n == 0 || fast != cpa_hash_long(CPA_HASH_START, byte, n - 1));
        for (size_t bit = 0; bit < 8 * n; bit++) {
            byte[bit / 8] ^= (unsigned char)(1 << bit % 8);
            assert_true(cpa_hash(CPA_HASH_START, byte, n) != plain);
            assert_true(cpa_hash_long(CPA_HASH_START, byte, n) != fast);
            byte[bit / 8] ^= (unsigned char)(1 << bit % 8);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_status), cmocka_unit_test(test_signals), cmocka_unit_test(test_leavings),
        cmocka_unit_test(test_memory), cmocka_unit_test(test_strings), cmocka_unit_test(test_text),
        cmocka_unit_test(test_log),    cmocka_unit_test(test_philox),  cmocka_unit_test(test_shuffle),
        cmocka_unit_test(test_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
