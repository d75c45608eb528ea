// Owns: tests of HDF5 files written and read: every type and rank, strings, attributes, equal bytes, full disks,
// refusals. Must never need Python: what other programs write is tested in test_h5ad.c and test_cells.c.
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpa/platform/h5.h"

static char folder[] = "/tmp/cpa-h5-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[2][256];
    static int turn;
    turn = 1 - turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static void ok(cpa_status st)
{
    if (st != CPA_OK) {
        fail_msg("%s", cpa_message());
    }
}

static void refused(cpa_status st, cpa_status wanted, const char *words)
{
    if (st != wanted || strstr(cpa_message(), words) == NULL) {
        fail_msg("status %d instead of %d, or no \"%s\" in: %s", st, wanted, words, cpa_message());
    }
}

static const double reals[6] = {0, -1.5, 1e300, 3, 0.1, 7};

// A file with a bit of everything.
static void write_everything(const char *path)
{
    cpa_h5 *f = NULL;
    cpa_strings list = {0}, none = {0};
    float floats[24];
    for (int i = 0; i < 24; i++) {
        floats[i] = (float)i / 8;
    }
    int64_t integer = -5, many[2] = {1, INT64_C(1) << 40};
    ok(cpa_strings_add(&list, "Ärger"));
    ok(cpa_strings_add(&list, ""));
    ok(cpa_strings_add(&list, "a longer text"));
    ok(cpa_h5_create(path, &f));
    ok(cpa_h5_write_attr_string(f, "/", "config", "{\"old\": 1}"));
    ok(cpa_h5_write_attr_string(f, "/", "config", "{\"new\": 2}")); // replaced
    ok(cpa_h5_write_group(f, "empty/inner"));
    ok(cpa_h5_write(f, "a/b/f64", CPA_H5_F64, 2, (const int64_t[]){2, 3}, reals, 0));
    ok(cpa_h5_write(f, "a/b/layer 0.weight", CPA_H5_F32, 4, (const int64_t[]){2, 3, 2, 2}, floats, 6));
    ok(cpa_h5_write(f, "a/i64", CPA_H5_I64, 1, (const int64_t[]){2}, many, 0));
    ok(cpa_h5_write(f, "a/i32", CPA_H5_I32, 1, (const int64_t[]){3}, (const int32_t[]){-1, 2, 3}, 0));
    ok(cpa_h5_write(f, "a/i16", CPA_H5_I16, 1, (const int64_t[]){1}, (const int16_t[]){-300}, 0));
    ok(cpa_h5_write(f, "a/i8", CPA_H5_I8, 1, (const int64_t[]){1}, (const int8_t[]){-3}, 0));
    ok(cpa_h5_write(f, "a/u8", CPA_H5_U8, 1, (const int64_t[]){2}, (const uint8_t[]){200, 1}, 0));
    ok(cpa_h5_write(f, "a/bool", CPA_H5_BOOL, 1, (const int64_t[]){2}, (const uint8_t[]){0, 1}, 0));
    ok(cpa_h5_write(f, "a/scalar", CPA_H5_F64, 0, NULL, &reals[4], 0));
    ok(cpa_h5_write(f, "a/none", CPA_H5_F32, 2, (const int64_t[]){0, 3}, floats, 4));
    ok(cpa_h5_write_strings(f, "text/list", &list));
    ok(cpa_h5_write_strings(f, "text/none", &none));
    ok(cpa_h5_write_string(f, "text/one", "x"));
    ok(cpa_h5_create_rows(f, "rows", CPA_H5_F32, 5, 2));
    ok(cpa_h5_write_rows(f, "rows", CPA_H5_F32, 3, 2, floats + 6));
    ok(cpa_h5_write_rows(f, "rows", CPA_H5_F64, 0, 3, reals + 0));
    refused(cpa_h5_write_rows(f, "rows", CPA_H5_F32, 4, 2, floats), CPA_INTERNAL, "rows 4 to 6");
    ok(cpa_h5_write_attr_strings(f, "a", "names", &list));
    ok(cpa_h5_write_attr_strings(f, "a", "nothing", &none));
    ok(cpa_h5_write_attr_numbers(f, "a/i64", "one", CPA_H5_I64, -1, &integer));
    ok(cpa_h5_write_attr_numbers(f, "a/i64", "two", CPA_H5_I64, 2, many));
    ok(cpa_h5_write_attr_numbers(f, "a/i64", "half", CPA_H5_F64, -1, &(double){0.5}));
    refused(cpa_h5_write(f, "a/i64/below", CPA_H5_F64, 0, NULL, reals, 0), CPA_IO, "a/i64/below cannot be written");
    ok(cpa_h5_finish(&f));
    assert_null(f);
    cpa_strings_fini(&list);
}

static void check_numbers(const cpa_h5 *f, const char *path, const char *dtype, int rank, int64_t n, const double *want)
{
    double *v = NULL;
    cpa_h5_info info;
    ok(cpa_h5_read(f, path, CPA_H5_F64, &v, &info));
    assert_string_equal(info.dtype, dtype);
    assert_int_equal(info.rank, rank);
    assert_int_equal(info.n, n);
    for (int64_t i = 0; i < n; i++) {
        if (v[i] != want[i]) {
            fail_msg("%s: element %d is %g, not %g", path, (int)i, v[i], want[i]);
        }
    }
    cpa_free(&v);
}

static void arrays_come_back(void **state)
{
    (void)state;
    cpa_h5 *f = NULL;
    double eighths[24];
    for (int i = 0; i < 24; i++) {
        eighths[i] = i / 8.0;
    }
    write_everything(in_folder("all.h5"));
    ok(cpa_h5_open(in_folder("all.h5"), &f));
    check_numbers(f, "a/b/f64", "float64", 2, 6, reals);
    check_numbers(f, "/a/b/layer 0.weight", "float32", 4, 24, eighths);
    check_numbers(f, "a/i64", "int64", 1, 2, (const double[]){1, 0x1p40});
    check_numbers(f, "a/i32", "int32", 1, 3, (const double[]){-1, 2, 3});
    check_numbers(f, "a/i16", "int16", 1, 1, (const double[]){-300});
    check_numbers(f, "a/i8", "int8", 1, 1, (const double[]){-3});
    check_numbers(f, "a/u8", "uint8", 1, 2, (const double[]){200, 1});
    check_numbers(f, "a/bool", "bool", 1, 2, (const double[]){0, 1});
    check_numbers(f, "a/scalar", "float64", 0, 1, (const double[]){0.1});
    check_numbers(f, "a/none", "float32", 2, 0, NULL);
    check_numbers(f, "rows", "float32", 2, 10,
                  (const double[]){0, -1.5, INFINITY, 3, (double)0.1f, 7, .75, .875, 1, 1.125});
    int64_t *integers = NULL, two[2];
    float *floats = NULL;
    ok(cpa_h5_read(f, "a/i32", CPA_H5_I64, &integers, NULL));
    assert_true(integers[0] == -1 && integers[2] == 3);
    ok(cpa_h5_read(f, "a/i32", CPA_H5_F32, &floats, NULL));
    assert_true(floats[0] == -1 && floats[2] == 3);
    ok(cpa_h5_read_into(f, "a/i64", CPA_H5_I64, 2, two));
    assert_true(two[1] == INT64_C(1) << 40);
    refused(cpa_h5_read_into(f, "a/i64", CPA_H5_I64, 3, two), CPA_BAD_DATA, "a/i64 has 2 elements, 3 are expected");
    refused(cpa_h5_read(f, "a/scalar", CPA_H5_I64, &integers, NULL), CPA_BAD_DATA, "should hold integers");
    refused(cpa_h5_read(f, "text/one", CPA_H5_F64, &floats, NULL), CPA_BAD_DATA, "should hold numbers");
    refused(cpa_h5_read(f, "a/absent", CPA_H5_F64, &floats, NULL), CPA_BAD_DATA, "there is no dataset 'a/absent'");
    refused(cpa_h5_read(f, "a/b", CPA_H5_F64, &floats, NULL), CPA_BAD_DATA, "there is no dataset 'a/b'");
    cpa_free(&integers);
    cpa_free(&floats);
    cpa_h5_close(&f);
    assert_null(f);
}

static void blocks(void **state)
{
    (void)state;
    cpa_h5 *f = NULL;
    cpa_h5_data *d = NULL;
    float v[4];
    ok(cpa_h5_open(in_folder("all.h5"), &f));
    ok(cpa_h5_data_open(f, "a/b/layer 0.weight", NULL, &d));
    assert_string_equal(cpa_h5_data_info(d)->filters, "shuffle+gzip");
    ok(cpa_h5_data_read(d, CPA_H5_F32, (const int64_t[]){1, 2, 0, 1}, (const int64_t[]){1, 1, 2, 1}, v));
    assert_true(v[0] == 21 / 8.0f && v[1] == 23 / 8.0f);
    refused(cpa_h5_data_read(d, CPA_H5_F32, (const int64_t[]){1, 2, 0, 1}, (const int64_t[]){1, 2, 1, 1}, v),
            CPA_BAD_DATA, "elements 2 to 4 of dimension 1 were asked for, there are 3");
    ok(cpa_h5_data_read(d, CPA_H5_F32, (const int64_t[]){2, 0, 0, 0}, (const int64_t[]){0, 3, 2, 2}, v));
    cpa_h5_data_close(&d);
    cpa_h5_close(&f);
}

static void texts_and_attributes(void **state)
{
    (void)state;
    cpa_h5 *f = NULL;
    cpa_strings list = {0}, names = {0}, none = {0}, members = {0};
    char *s = NULL;
    int64_t v[2];
    double half;
    int n = -1;
    ok(cpa_h5_open(in_folder("all.h5"), &f));
    ok(cpa_h5_read_strings(f, "text/list", &list));
    ok(cpa_h5_attr_strings(f, "a", "names", &names));
    assert_int_equal(list.n, 3);
    assert_string_equal(list.s[0], "Ärger");
    assert_string_equal(list.s[1], "");
    assert_string_equal(names.s[2], "a longer text");
    ok(cpa_h5_read_strings(f, "text/none", &none));
    ok(cpa_h5_attr_strings(f, "a", "nothing", &none));
    assert_int_equal(none.n, 0);
    ok(cpa_h5_list(f, "", &members));
    assert_int_equal(members.n, 4);
    assert_string_equal(members.s[0], "a");
    assert_string_equal(members.s[3], "text");
    ok(cpa_h5_attr_string(f, "/", "config", &s));
    assert_string_equal(s, "{\"new\": 2}");
    ok(cpa_h5_attr_numbers(f, "a/i64", "one", CPA_H5_I64, 1, v, &n));
    assert_true(n == 1 && v[0] == -5);
    ok(cpa_h5_attr_numbers(f, "a/i64", "two", CPA_H5_I64, 2, v, &n));
    assert_true(n == 2 && v[1] == INT64_C(1) << 40);
    ok(cpa_h5_attr_numbers(f, "a/i64", "half", CPA_H5_F64, 1, &half, &n));
    assert_true(half == 0.5);
    refused(cpa_h5_attr_numbers(f, "a/i64", "two", CPA_H5_I64, 1, v, &n), CPA_BAD_DATA, "has 2 elements, at most 1");
    refused(cpa_h5_attr_numbers(f, "a/i64", "half", CPA_H5_I64, 1, v, &n), CPA_BAD_DATA, "should be integers");
    refused(cpa_h5_attr_string(f, "a", "names", &s), CPA_BAD_DATA, "should be one string");
    refused(cpa_h5_attr_string(f, "a", "absent", &s), CPA_BAD_DATA, "a has no attribute 'absent'");
    assert_true(cpa_h5_has_attr(f, "/", "config"));
    assert_false(cpa_h5_has_attr(f, "nowhere", "config"));
    assert_int_equal(cpa_h5_kind_of(f, "empty/inner"), CPA_H5_GROUP);
    assert_int_equal(cpa_h5_kind_of(f, "empty/inner/x/y"), CPA_H5_NOTHING);
    assert_int_equal(cpa_h5_kind_of(f, "a/i64/y"), CPA_H5_NOTHING);
    assert_int_equal(cpa_h5_kind_of(f, "/"), CPA_H5_GROUP);
    cpa_free(&s);
    cpa_strings_fini(&list);
    cpa_strings_fini(&names);
    cpa_strings_fini(&members);
    cpa_h5_close(&f);
}

static void long_attributes(void **state)
{
    (void)state;
    enum { LENGTH = 200000 };
    cpa_h5 *f = NULL;
    char *text = NULL, *back = NULL;
    ok(cpa_alloc(LENGTH + 1, 1, &text));
    memset(text, 'x', LENGTH);
    cpa_strings names = {0}, read = {0};
    for (int i = 0; i < 10000; i++) {
        char name[32];
        snprintf(name, sizeof name, "column number %d", i);
        ok(cpa_strings_add(&names, name));
    }
    ok(cpa_h5_create(in_folder("long.h5"), &f));
    ok(cpa_h5_write_attr_string(f, "/", "text", text));
    ok(cpa_h5_write_attr_strings(f, "/", "names", &names));
    ok(cpa_h5_finish(&f));
    ok(cpa_h5_open(in_folder("long.h5"), &f));
    ok(cpa_h5_attr_string(f, "/", "text", &back));
    assert_string_equal(back, text);
    ok(cpa_h5_attr_strings(f, "/", "names", &read));
    assert_int_equal(read.n, names.n);
    assert_string_equal(read.s[9999], "column number 9999");
    cpa_h5_close(&f);
    cpa_free(&text);
    cpa_free(&back);
    cpa_strings_fini(&names);
    cpa_strings_fini(&read);
}

static void equal_content_gives_equal_bytes(void **state)
{
    (void)state;
    char command[600];
    write_everything(in_folder("first.h5"));
    sleep(1); // HDF5's times have seconds
    write_everything(in_folder("second.h5"));
    snprintf(command, sizeof command, "cmp '%s' '%s'", in_folder("first.h5"), in_folder("second.h5"));
    assert_int_equal(system(command), 0);
}

// Files end at 256 KiB here, as on a full disk.
static void a_write_that_fails_is_told(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    struct rlimit usual, low;
    double *v = NULL;
    ok(cpa_alloc(N, sizeof *v, &v));
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &usual), 0);
    low = usual;
    low.rlim_cur = 256 << 10;
    for (int rows = 0; rows < 2; rows++) {
        cpa_h5 *f = NULL;
        ok(cpa_h5_create(in_folder("full.h5"), &f));
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
        cpa_status st = rows ? cpa_h5_create_rows(f, "v", CPA_H5_F64, N / 2, 2)
                             : cpa_h5_write(f, "v", CPA_H5_F64, 1, (const int64_t[]){N}, v, 0);
        if (rows && st == CPA_OK) {
            st = cpa_h5_write_rows(f, "v", CPA_H5_F64, 0, N / 2, v);
        }
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &usual), 0);
        refused(st, CPA_IO, "full.h5");
        cpa_h5_close(&f);
    }
    cpa_free(&v);
    cpa_h5 *f = NULL;
    refused(cpa_h5_create(in_folder("absent/x.h5"), &f), CPA_IO, "cannot be created: No such file");
}

// From now on every write to this open file finds a full disk.
static void fill_disk_under(const char *path)
{
    int full = open("/dev/full", O_RDWR);
    assert_true(full >= 0);
    bool found = false;
    for (int fd = 3; fd < 64; fd++) {
        char link[64], target[256] = "";
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        if (readlink(link, target, sizeof target - 1) > 0 && strcmp(target, path) == 0) {
            found = dup2(full, fd) == fd;
        }
    }
    assert_true(found);
    close(full);
}

// What HDF5 keeps in memory until the end meets the full disk only then.
static void a_full_disk_is_told_at_the_end(void **state)
{
    (void)state;
    for (int finish = 0; finish < 2; finish++) {
        cpa_h5 *f = NULL;
        ok(cpa_h5_create(in_folder("waits.h5"), &f));
        fill_disk_under(in_folder("waits.h5"));
        ok(cpa_h5_write_attr_string(f, "/", "name", "value"));
        for (int i = 0; i < 100; i++) {
            char name[32];
            snprintf(name, sizeof name, "group %d/inside", i);
            ok(cpa_h5_write_group(f, name));
        }
        if (finish) {
            refused(cpa_h5_finish(&f), CPA_IO, "waits.h5: the file cannot be written: No space left");
        } else {
            cpa_h5_close(&f);
        }
        assert_null(f);
    }
    cpa_h5 *f = NULL;
    ok(cpa_h5_create("/dev/full", &f));
    refused(cpa_h5_finish(&f), CPA_IO, "/dev/full: the file cannot be written");
}

static void nothing_is_left_behind(void **state)
{
    (void)state;
    assert_int_equal(cpa_alloc_balance(), 0);
}

// Pieces of any size, over the borders of chunks and batches; noise, which no compression makes smaller, and what it does.
static void pieces_become_one_array(void **state)
{
    (void)state;
    enum { CHUNK = 1000, N = 300 * CHUNK + 7, WIDTH = 3 };
    cpa_h5 *f = NULL;
    int64_t *v = calloc(N, sizeof *v), *back = NULL;
    cpa_h5_info info;
    uint64_t x = 1;
    for (int i = 0; i < N; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        v[i] = i < N / 2 ? (int64_t)(x ^ x >> 29) : i;
    }
    ok(cpa_h5_create(in_folder("pieces.h5"), &f));
    for (int gzip = 0; gzip <= 4; gzip += 4) {
        cpa_h5_append *list, *table, *none;
        ok(cpa_h5_append_open(f, gzip > 0 ? "packed/list" : "plain/list", CPA_H5_I64, 0, CHUNK, gzip, &list));
        ok(cpa_h5_append_open(f, gzip > 0 ? "packed/table" : "plain/table", CPA_H5_I64, WIDTH, CHUNK, gzip, &table));
        ok(cpa_h5_append_open(f, gzip > 0 ? "packed/none" : "plain/none", CPA_H5_I64, 0, CHUNK, gzip, &none));
        for (int64_t at = 0, n = 1; at < N; at += n, n = n * 5 % 70001) {
            ok(cpa_h5_append_rows(list, at + n < N ? n : N - at, v + at));
        }
        ok(cpa_h5_append_rows(table, N / WIDTH, v));
        ok(cpa_h5_append_finish(&list));
        ok(cpa_h5_append_finish(&table));
        ok(cpa_h5_append_finish(&none));
        assert_null(list);
    }
    ok(cpa_h5_finish(&f));
    ok(cpa_h5_open(in_folder("pieces.h5"), &f));
    static const char *const sets[] = {"plain/list", "packed/list", "plain/table", "packed/table"};
    for (int k = 0; k < 4; k++) {
        ok(cpa_h5_read(f, sets[k], CPA_H5_I64, &back, &info));
        assert_int_equal(info.rank, 1 + k / 2);
        assert_int_equal(info.n, k < 2 ? N : N / WIDTH * WIDTH);
        assert_string_equal(info.filters, k % 2 == 1 ? "shuffle+gzip" : "none");
        assert_memory_equal(back, v, (size_t)info.n * sizeof *v);
        cpa_free(&back);
    }
    ok(cpa_h5_describe(f, "packed/none", &info));
    assert_int_equal(info.n, 0);
    cpa_h5_close(&f);
    free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_come_back),           cmocka_unit_test(blocks),
        cmocka_unit_test(texts_and_attributes),       cmocka_unit_test(long_attributes),
        cmocka_unit_test(pieces_become_one_array),    cmocka_unit_test(equal_content_gives_equal_bytes),
        cmocka_unit_test(a_write_that_fails_is_told), cmocka_unit_test(a_full_disk_is_told_at_the_end),
        cmocka_unit_test(nothing_is_left_behind),
    };
    return cmocka_run_group_tests_name("h5", tests, set_up, tear_down);
}
