// Owns: the test that the columns of a file are read once, however many perturbations there are. Never looks at what they mean.
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpa/base/log.h"
#include "cpa/data/h5ad_write.h"
#include "cpa/data/registry.h"

enum { CELLS = 30000 };
static char path[] = "/tmp/cpa_reads_XXXXXX";

static int set_up(void **state)
{
    (void)state;
    int fd = mkstemp(path);
    close(fd);
    cpa_log_init(0, true);
    return fd < 0;
}

static int tear_down(void **state)
{
    (void)state;
    return unlink(path);
}

// What this process has read so far, as the kernel counts it; -1 where it does not.
static int64_t bytes_read(void)
{
    int64_t n = -1;
    FILE *f = fopen("/proc/self/io", "r");
    if (f) {
        if (fscanf(f, "rchar: %" SCNd64, &n) != 1) {
            n = -1;
        }
        fclose(f);
    }
    return n;
}

static void make_factor(const char *prefix, int n_levels, cpa_factor *f)
{
    f->n = CELLS;
    assert_int_equal(cpa_alloc(CELLS, sizeof *f->code, &f->code), CPA_OK);
    for (int i = 0; i < CELLS; i++) {
        f->code[i] = i % n_levels;
    }
    for (int k = 0; k < n_levels; k++) {
        char name[32] = "ctrl";
        if (k > 0 || prefix[0] != 'd') {
            snprintf(name, sizeof name, "%s%d", prefix, k);
        }
        assert_int_equal(cpa_strings_add(&f->level, name), CPA_OK);
    }
}

static void write_file(int n_drugs)
{
    cpa_h5 *h5 = NULL;
    cpa_factor drug = {0}, type = {0};
    cpa_strings cells = {0}, genes = {0};
    make_factor("drug", n_drugs, &drug);
    make_factor("type", 3, &type);
    const cpa_h5ad_column column[] = {{.name = "condition", .factor = &drug}, {.name = "cell_type", .factor = &type}};
    for (int i = 0; i < CELLS; i++) {
        char name[32];
        snprintf(name, sizeof name, "c%d", i);
        assert_int_equal(cpa_strings_add(&cells, name), CPA_OK);
    }
    assert_int_equal(cpa_strings_add(&genes, "g"), CPA_OK);
    assert_int_equal(cpa_h5_create(path, &h5), CPA_OK);
    assert_int_equal(cpa_h5ad_write_root(h5), CPA_OK);
    assert_int_equal(cpa_h5ad_write_frame(h5, "obs", &cells, column, 2), CPA_OK);
    assert_int_equal(cpa_h5ad_write_frame(h5, "var", &genes, NULL, 0), CPA_OK);
    assert_int_equal(cpa_h5_finish(&h5), CPA_OK);
    cpa_factor_fini(&drug);
    cpa_factor_fini(&type);
    cpa_strings_fini(&cells);
    cpa_strings_fini(&genes);
}

// Bytes that the registry of a file with so many drugs reads, over the size of the file.
static double share_read(int n_drugs)
{
    cpa_h5ad *f = NULL;
    cpa_registry *r = NULL;
    const cpa_data_spec spec = {.train_size = 0.9};
    struct stat s;
    write_file(n_drugs);
    assert_int_equal(stat(path, &s), 0);
    int64_t before = bytes_read();
    assert_int_equal(cpa_h5ad_open(path, &f), CPA_OK);
    if (cpa_registry_create(f, &spec, true, &r) != CPA_OK) {
        fail_msg("%s", cpa_message());
    }
    int64_t n = bytes_read() - before;
    assert_int_equal(r->pert.n, n_drugs + 1); // with the padding
    cpa_registry_destroy(&r);
    cpa_h5ad_close(&f);
    if (before < 0) {
        skip();
    }
    return (double)n / (double)s.st_size;
}

static void columns_are_read_once(void **state)
{
    (void)state;
    double few = share_read(10), many = share_read(8000);
    print_message("%.2f of the file read with 10 drugs, %.2f with 8000\n", few, many);
    assert_true(few < 1 && many < 1); // once more for each drug would be thousands of times
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(columns_are_read_once)};
    return cmocka_run_group_tests_name("reads", tests, set_up, tear_down);
}
