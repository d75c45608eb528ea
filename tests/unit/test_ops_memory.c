// Owns: conformance of the memory operations, the shape checks, the backends as objects, and the manners that `check`
// enforces. Never numerics.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../support/ops.h"

// Does not compile when ops.def has an operation that no list of cases names.
enum covered {
#define X(op) COVERED_##op,
    OPS_MEMORY(X) OPS_DENSE(X) OPS_SPARSE(X) OPS_NORM(X) OPS_LAYER(X) OPS_EMBED(X) OPS_LOSS(X) OPS_SCORE(X)
        OPS_LIKELIHOOD(X) OPS_LATENT(X) OPS_GROUP(X) OPS_CELLS(X)
#undef X
            N_COVERED
};
enum in_ops_def {
#define CPA_OP(name, params, args) IN_OPS_DEF_##name = COVERED_##name + 0 * N_COVERED,
#include "cpa/platform/ops.def"
#undef CPA_OP
};

static void case_alloc(void)
{
    void *p[4] = {0};
    const size_t sizes[] = {0, 1, 64, 5000000};
    for (int i = 0; i < 4; i++) {
        OK(cpa_op_alloc(be, sizes[i], &p[i]));
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 64, 0);
    }
    if (strcmp(cpa_backend_name(be), "check") == 0) { // fresh memory must not look like zeros there
        float x = 0;
        OK(cpa_op_download(be, &x, p[2], sizeof x));
        assert_true(isnan(x));
    }
    for (int i = 0; i < 4; i++) {
        OK(cpa_op_release(be, p[i]));
    }
    assert_int_equal(cpa_op_alloc(be, 1, NULL), CPA_INTERNAL);
}

static void case_release(void)
{
    void *p;
    OK(cpa_op_release(be, NULL));
    OK(cpa_op_alloc(be, 100, &p));
    OK(cpa_op_release(be, p));
    if (strcmp(cpa_backend_name(be), "check") == 0) {
        assert_int_equal(cpa_op_release(be, p), CPA_INTERNAL); // a second time
        assert_non_null(strstr(cpa_message(), "released"));
    }
}

static void case_upload(void)
{
    char from[300], to[300];
    for (int i = 0; i < 300; i++) {
        from[i] = (char)(i * 7);
    }
    void *p;
    OK(cpa_op_alloc(be, sizeof from, &p));
    OK(cpa_op_upload(be, p, from, sizeof from));
    OK(cpa_op_upload(be, p, NULL, 0));
    OK(cpa_op_download(be, to, p, sizeof to));
    assert_memory_equal(from, to, sizeof from);
    assert_int_equal(cpa_op_upload(be, p, NULL, 4), CPA_INTERNAL);
    OK(cpa_op_release(be, p));
}

static void case_download(void)
{
    mat a = put_uniform(3, 5, 2, -1, 1);
    near("download", get(a), a.h, 15, 0);
    float x;
    assert_int_equal(cpa_op_download(be, &x, NULL, sizeof x), CPA_INTERNAL);
    OK(cpa_op_download(be, NULL, NULL, 0));
    DROP(a);
}

static void case_zero(void)
{
    mat a = put_uniform(1, 40, 0, 1, 2);
    OK(cpa_op_zero(be, cpa_real_at(a.m.data, 3), 30 * sizeof(cpa_real)));
    double *got = get(a);
    for (int i = 0; i < 40; i++) {
        assert_true((got[i] == 0) == (i >= 3 && i < 33));
    }
    DROP(a);
}

static void test_names(void **state)
{
    (void)state;
    cpa_backend *b = NULL;
    assert_int_equal(cpa_backend_create("abacus", &b), CPA_USAGE);
    assert_null(b);
    assert_non_null(strstr(cpa_message(), "'abacus'"));
    assert_non_null(strstr(cpa_message(), "cpu"));
    assert_non_null(strstr(cpa_message(), "check"));
    OK(cpa_backend_destroy(&b)); // nothing to destroy
    OK(cpa_backend_create("cpu", &b));
    assert_string_equal(cpa_backend_name(b), "cpu");
    OK(cpa_backend_destroy(&b));
    assert_null(b);
}

// Wrong shapes are refused, with the operation, the argument and the shapes in the message.
static void test_shapes(void **state)
{
    (void)state;
    OK(cpa_backend_create("check", &be));
    mat a = put_uniform(3, 4, 0, 0, 1), b = put_uniform(5, 6, 0, 0, 1), v = put_uniform(1, 4, 0, 0, 1);
    assert_int_equal(cpa_op_gemm(be, b.m, a.m, false, a.m, true, 1, 0), CPA_INTERNAL);
    assert_non_null(strstr(cpa_message(), "operation gemm: a is [3, 4]"));
    assert_non_null(strstr(cpa_message(), "must be [5, 4]"));
    assert_int_equal(cpa_op_gemm(be, a.m, a.m, false, a.m, true, 1, 0), CPA_INTERNAL);
    mat square = put_uniform(4, 4, 0, 0, 1);
    assert_int_equal(cpa_op_gemm(be, square.m, square.m, false, square.m, true, 1, 0), CPA_INTERNAL);
    assert_non_null(strstr(cpa_message(), "aliases"));
    assert_int_equal(cpa_op_add_row(be, b.m, v.m), CPA_INTERNAL);
    assert_int_equal(cpa_op_add_row(be, a.m, CPA_NO_MAT), CPA_INTERNAL);
    cpa_mat narrow = a.m;
    narrow.ld = 2;
    assert_int_equal(cpa_op_add_row(be, narrow, v.m), CPA_INTERNAL);
    assert_non_null(strstr(cpa_message(), "leading dimension 2"));
    cpa_mat lost = a.m;
    lost.data = NULL;
    assert_int_equal(cpa_op_axpby(be, lost, 1, a.m, 0), CPA_INTERNAL);
    assert_int_equal(cpa_op_csr_expand(be, a.m, (cpa_csr){.rows = 3, .cols = 5}, false), CPA_INTERNAL);
    assert_int_equal(cpa_op_csr_expand(be, a.m, (cpa_csr){.rows = 3, .cols = 4}, false), CPA_INTERNAL);
    assert_int_equal(cpa_op_argmax(be, NULL, a.m), CPA_INTERNAL);
    assert_int_equal(cpa_op_dropout_mask(be, a.m, (const cpa_dev_int *)(const void *)v.m.data, 1, cpa_number_of(0), 0, 1),
                     CPA_INTERNAL);
    OK(cpa_op_add_row(be, a.m, v.m));
    DROP(a, b, v, square);
    OK(cpa_backend_destroy(&be));
    for (int i = 0; i < n_owned; i++) {
        free(owned[i]);
    }
    n_owned = 0;
}

// Runs `misbehave` in a child; gives its exit status as waitpid has it.
static int in_child(void (*misbehave)(void))
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL); // a sanitizer or a test framework may have its own idea
        misbehave();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static volatile float *device_memory;

static void read_device_memory(void)
{
    float x = device_memory[0];
    (void)x;
}

static void write_device_memory(void)
{
    device_memory[0] = 1;
}

static void test_host_access(void **state)
{
    (void)state;
    cpa_backend *b;
    void *p;
    float x = 3;
    OK(cpa_backend_create("check", &b));
    OK(cpa_op_alloc(b, sizeof x, &p));
    OK(cpa_op_upload(b, p, &x, sizeof x));
    device_memory = p;
    int status = in_child(read_device_memory);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    status = in_child(write_device_memory);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    OK(cpa_op_download(b, &x, p, sizeof x));
    assert_true(x == 3);
    OK(cpa_op_release(b, p));
    OK(cpa_backend_destroy(&b));
}

static void test_out_of_bounds(void **state)
{
    (void)state;
    for (int side = 0; side < 2; side++) {
        cpa_backend *b;
        void *p;
        char byte = 0;
        OK(cpa_backend_create("check", &b));
        OK(cpa_op_alloc(b, 100, &p));
        OK(cpa_op_upload(b, (char *)p + (side == 0 ? -1 : 100), &byte, 1));
        assert_int_equal(cpa_op_release(b, p), CPA_INTERNAL);
        assert_non_null(strstr(cpa_message(), "out of bounds"));
        OK(cpa_op_alloc(b, 100, &p));
        OK(cpa_op_upload(b, (char *)p + (side == 0 ? -64 : 163), &byte, 1));
        assert_int_equal(cpa_backend_destroy(&b), CPA_INTERNAL);
        assert_non_null(strstr(cpa_message(), "1 of them were written out of bounds"));
    }
}

static void test_leaks(void **state)
{
    (void)state;
    const char *names[] = {"cpu", "check"};
    for (int i = 0; i < 2; i++) {
        cpa_backend *b;
        void *p, *kept;
        OK(cpa_backend_create(names[i], &b));
        OK(cpa_op_alloc(b, 10, &p));
        OK(cpa_op_alloc(b, 10, &kept));
        OK(cpa_op_release(b, p));
        if (i == 0) { // what the cpu's object leaks, nobody could free any more
            OK(cpa_op_release(b, kept));
            OK(cpa_backend_destroy(&b));
        } else {
            assert_int_equal(cpa_backend_destroy(&b), CPA_INTERNAL);
            assert_non_null(strstr(cpa_message(), "1 blocks"));
        }
        assert_null(b);
    }
}

// The second operation of a size allocates nothing.
static void test_scratch(void **state)
{
    (void)state;
    OK(cpa_backend_create("cpu", &be));
    drawn = 0;
    cells c = put_cells(20, 300, 0.2, false);
    mat wt = put_uniform(300, 40, 0, -1, 1), y = put_nan(20, 40, 0), dwt = put_nan(300, 40, 0);
    mat z = put_uniform(20, 300, 0, -1, 1), g = put_nan(1, 300, 0), d = put_nan(1, 300, 0);
    cpa_dev_f64 *sum = new_sums(1);
    long count = 0;
    for (int i = 0; i < 3; i++) {
        OK(cpa_op_sparse_linear(be, y.m, c.x, wt.m, true));
        OK(cpa_op_sparse_linear_grad(be, dwt.m, c.x, y.m, true));
        OK(cpa_op_nb_loss(be, sum, z.m, g.m, d.m, cpa_mat_row(z.m, 0), cpa_mat_row(z.m, 1), c.x, 1));
        if (i == 0) {
            count = cpa_alloc_count();
        }
    }
    assert_int_equal(cpa_alloc_count(), count);
    drop(sum);
    drop_cells(c);
    DROP(wt, y, dwt, z, g, d);
    OK(cpa_backend_destroy(&be));
    for (int i = 0; i < n_owned; i++) {
        free(owned[i]);
    }
    n_owned = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        OPS_MEMORY(OP_CASE) cmocka_unit_test(test_names),
        cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_host_access),
        cmocka_unit_test(test_out_of_bounds),
        cmocka_unit_test(test_leaks),
        cmocka_unit_test(test_scratch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
