// Owns: the test that files are read with few descriptors, and never another file in the place of one. Reading itself is in
// test_cells.c. Must never depend on how many descriptors the machine allows.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpa/base/mem.h"
#include "cpa/platform/source.h"

enum { N = 200, FEW = 64 };

static char folder[] = "/tmp/cpa_source_XXXXXX";
static cpa_source *source[N];

static char *name_of(int i)
{
    static char name[64];
    snprintf(name, sizeof name, "%s/%d", folder, i);
    return name;
}

static void write_number(int i, int number)
{
    FILE *f = fopen(name_of(i), "w");
    fprintf(f, "%03d", number);
    fclose(f);
}

// The number that a source's file holds.
static int number_of(int i)
{
    char text[4] = "";
    int fd = cpa_source_hold(source[i]);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, text, 3, 0), 3);
    cpa_source_let_go(source[i]);
    return atoi(text);
}

static int set_up(void **state)
{
    (void)state;
    struct stat info;
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < N; i++) {
        write_number(i, i);
        assert_int_equal(cpa_source_open(name_of(i), &source[i], &info), CPA_OK);
        assert_int_equal(info.st_size, 3);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++) {
        cpa_source_close(&source[i]);
        unlink(name_of(i));
    }
    assert_int_equal(cpa_source_n_open(), 0);
    assert_int_equal(cpa_alloc_balance(), 0);
    return rmdir(folder);
}

static void few_descriptors(void **state)
{
    (void)state;
    assert_int_equal(cpa_source_n_open(), FEW);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N; i++) {
            assert_int_equal(number_of(i * 7 % N), i * 7 % N);
            assert_true(cpa_source_n_open() <= FEW);
        }
    }
}

static void what_is_held_stays(void **state)
{
    (void)state;
    int fd[N];
    for (int i = 0; i < N; i++) {
        fd[i] = cpa_source_hold(source[i]);
        assert_true(fd[i] >= 0);
    }
    assert_int_equal(cpa_source_n_open(), N);
    for (int i = 0; i < N; i++) {
        char text[4] = "";
        assert_int_equal(pread(fd[i], text, 3, 0), 3);
        assert_int_equal(atoi(text), i);
        cpa_source_let_go(source[i]);
    }
    assert_int_equal(cpa_source_n_open(), FEW);
}

static void another_file_is_not_read(void **state)
{
    (void)state;
    struct stat info;
    cpa_source *none = NULL;
    for (int i = 1; i < N; i++) { // the others take the descriptors
        (void)number_of(i);
    }
    char kept[64];
    snprintf(kept, sizeof kept, "%s", name_of(N));
    assert_int_equal(rename(name_of(0), kept), 0);
    assert_int_equal(cpa_source_hold(source[0]), -1);
    assert_int_equal(errno, ENOENT);
    write_number(0, 999);
    assert_int_equal(cpa_source_hold(source[0]), -1);
    assert_int_equal(errno, ESTALE);
    assert_int_equal(rename(kept, name_of(0)), 0);
    assert_int_equal(number_of(0), 0);
    assert_int_equal(cpa_source_open(kept, &none, &info), CPA_IO);
    assert_null(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_descriptors),
        cmocka_unit_test(what_is_held_stays),
        cmocka_unit_test(another_file_is_not_read),
    };
    return cmocka_run_group_tests_name("source", tests, set_up, tear_down);
}
