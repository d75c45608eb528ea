// Owns: the tests of tables of vectors over ranks: one copy per node, packed bits, failures told by all.
// Must never let a rank skip a collective that the others call, unless the test fails.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cpa/base/log.h"
#include "cpa/data/pert_table.h"
#include "cpa/platform/h5.h"

enum { ROWS = 50, BITS = 2045, BYTES = 256 };

static cpa_comm *comm;
static char path[64];

static uint8_t byte_of(int row, int k)
{
    return (uint8_t)((row * 37 + k * 11) ^ (row >> 1));
}

static float bit_of(int row, int k)
{
    return (float)(byte_of(row, k / 8) >> (7 - k % 8) & 1);
}

// The file by rank 0: names in descending order, `twice` the last one again.
static void make_file(bool twice)
{
    cpa_h5 *f = NULL;
    cpa_strings name = {0};
    static uint8_t bits[ROWS][BYTES];
    const int64_t shape[] = {ROWS, BYTES};
    const int n_bits = BITS;
    cpa_status st = CPA_OK;
    if (cpa_comm_rank(comm) == 0) {
        for (int i = 0; i < ROWS; i++) {
            char text[16];
            snprintf(text, sizeof text, "d%02d", twice && i == 0 ? 1 : ROWS - i);
            st = st == CPA_OK ? cpa_strings_add(&name, text) : st;
            for (int k = 0; k < BYTES; k++) {
                bits[i][k] = byte_of(i, k);
            }
        }
        st = st == CPA_OK ? cpa_h5_create(path, &f) : st;
        st = st == CPA_OK ? cpa_h5_write_strings(f, "names", &name) : st;
        st = st == CPA_OK ? cpa_h5_write(f, "bits", CPA_H5_U8, 2, shape, bits, 4) : st;
        st = st == CPA_OK ? cpa_h5_write_attr_numbers(f, "bits", "n_bits", CPA_H5_I32, -1, &n_bits) : st;
        st = st == CPA_OK ? cpa_h5_finish(&f) : st;
    }
    cpa_strings_fini(&name);
    assert_int_equal(cpa_comm_agree(comm, st), CPA_OK);
}

static int set_up(void **state)
{
    (void)state;
    if (cpa_comm_create(NULL, NULL, &comm) != CPA_OK) {
        return 1;
    }
    cpa_log_init(1, true);
    snprintf(path, sizeof path, "/tmp/cpa_table_%d.h5", (int)getpid());
    return cpa_comm_bcast(comm, path, sizeof path, 0) != CPA_OK;
}

static int tear_down(void **state)
{
    (void)state;
    int rc = cpa_comm_barrier(comm) == CPA_OK && cpa_comm_rank(comm) == 0 ? unlink(path) : 0;
    cpa_comm_destroy(&comm);
    return rc != 0 || cpa_alloc_balance() != 0;
}

static void every_rank_has_all_vectors(void **state)
{
    (void)state;
    cpa_pert_table *t = NULL;
    float row[BITS];
    make_file(false);
    if (cpa_pert_table_read(comm, path, NULL, &t) != CPA_OK) {
        fail_msg("%s", cpa_message());
    }
    assert_int_equal(t->n_features, BITS);
    assert_int_equal(t->bytes, ROWS * BYTES); // they stay packed
    assert_null(t->value);
    for (int i = 0; i < ROWS; i++) {
        char name[16];
        snprintf(name, sizeof name, "d%02d", ROWS - i);
        assert_int_equal(cpa_pert_table_find(t, name), i);
        cpa_pert_table_row(t, i, row);
        for (int k = 0; k < BITS; k++) {
            if (row[k] != bit_of(i, k)) {
                fail_msg("row %d, bit %d: %g", i, k, (double)row[k]);
            }
        }
        assert_int_equal(t->bits[i * BYTES + BYTES - 1] & 7, 0); // behind the last bit
    }
    assert_int_equal(cpa_pert_table_find(t, "d00"), -1);
    assert_int_equal(cpa_pert_table_find(t, "d51"), -1);
    assert_int_equal(cpa_pert_table_find(t, ""), -1);
    cpa_pert_table_destroy(&t);
}

// What one rank writes into the copy of its node, all others of the node see.
static void a_node_has_one_copy(void **state)
{
    (void)state;
    cpa_pert_table *t = NULL;
    make_file(false);
    assert_int_equal(cpa_pert_table_read(comm, path, NULL, &t), CPA_OK);
    uint8_t *copy = t->memory;
    assert_int_equal(copy[5], byte_of(0, 5));
    assert_int_equal(cpa_comm_node_barrier(comm), CPA_OK);
    if (cpa_comm_node_rank(comm) == cpa_comm_node_size(comm) - 1) {
        copy[5] = (uint8_t)~byte_of(0, 5);
    }
    assert_int_equal(cpa_comm_node_barrier(comm), CPA_OK);
    assert_int_equal(copy[5], (uint8_t)~byte_of(0, 5));
    cpa_pert_table_destroy(&t);
}

static void rows_of_names(void **state)
{
    (void)state;
    cpa_pert_table *t = NULL;
    cpa_strings name = {0};
    static float out[4][BITS];
    make_file(false);
    assert_int_equal(cpa_pert_table_read(comm, path, NULL, &t), CPA_OK);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(cpa_strings_add(&name, ((const char *[]){"<PAD>", "ctrl", "d03", "d17"})[i]), CPA_OK);
    }
    out[0][0] = out[1][BITS - 1] = 3;
    assert_int_equal(cpa_pert_table_expand(t, &name, out[0]), CPA_OK);
    for (int k = 0; k < BITS; k++) {
        assert_true(out[0][k] == 0 && out[1][k] == 0); // the padding, a control without a vector
        assert_true(out[2][k] == bit_of(ROWS - 3, k) && out[3][k] == bit_of(ROWS - 17, k));
    }
    cpa_free(&name.s[2]);
    assert_int_equal(cpa_strdup("other", &name.s[2]), CPA_OK);
    assert_int_equal(cpa_pert_table_expand(t, &name, out[0]), CPA_BAD_DATA);
    assert_non_null(strstr(cpa_message(), "1 of the 2 perturbations of the data: 'other'"));
    cpa_strings_fini(&name);
    cpa_pert_table_destroy(&t);
}

static void all_refuse_together(void **state)
{
    (void)state;
    cpa_pert_table *t = NULL;
    make_file(true);
    assert_int_equal(cpa_pert_table_read(comm, path, NULL, &t), CPA_BAD_DATA);
    assert_null(t);
    assert_non_null(strstr(cpa_message(), "'d01' has two vectors, in rows 0 and 49"));
    assert_int_equal(cpa_pert_table_read(comm, "/nowhere/vectors.csv", NULL, &t), CPA_NO_INPUT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rank_has_all_vectors),
        cmocka_unit_test(a_node_has_one_copy),
        cmocka_unit_test(rows_of_names),
        cmocka_unit_test(all_refuse_together),
    };
    return cmocka_run_group_tests_name("tables of vectors over ranks", tests, set_up, tear_down);
}
