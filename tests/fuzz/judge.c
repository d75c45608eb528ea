// Owns: reading files in a process of its own and judging how that ends. HDF5 may have broken its own state and the heap when it falls
// over, so nothing is read after it in the same process.
// Must never take a crash outside of HDF5 for a refusal.
#define _GNU_SOURCE // memfd_create
#include <errno.h>
#include <fcntl.h>
#include <omp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cpa/base/log.h"
#include "cpa/data/cells.h"
#include "cpa/data/registry.h"
#include "cpa/platform/comm.h"
#include "cpa/platform/h5.h"

#include "fuzz.h"

enum {
    PATIENCE_MS = 500, // of computing, for one call of HDF5
    LIMIT_S = 10,      // of computing, for all
    WAIT_S = 300,      // of waiting
    WRONG = 3,         // exit code: a status or a message that should not be
    PER_WORKER = 200,
    REPORT_BYTES = 1 << 16,
};

// The process that reads; 0: there is none.
static struct {
    pid_t process;
    int orders, answers; // pipes
    int report;          // a file, what it says on standard error
    int n;               // inputs so far
    char path[64];       // of the input
} worker;

// libFuzzer's counters of covered code, where it is there, and how a worker hands over its own.
extern uint8_t __start___sancov_cntrs[] __attribute__((weak));
extern uint8_t __stop___sancov_cntrs[] __attribute__((weak));
static uint8_t *counters;
static size_t n_counters;

// What HDF5, which is not built with it, does to its own memory is no finding; AddressSanitizer asks for this.
const char *__asan_default_suppressions(void);

const char *__asan_default_suppressions(void)
{
    return "interceptor_via_lib:libhdf5\n";
}

// ---- In the child

static void check_status(cpa_status st, const char *path)
{
    if (st != CPA_OK && st != CPA_BAD_DATA && st != CPA_IO) {
        fprintf(stderr, "status %d: %s\n", (int)st, cpa_message());
        _exit(WRONG);
    }
    if (st != CPA_OK && strstr(cpa_message(), path) == NULL) {
        fprintf(stderr, "the file is not named: %s\n", cpa_message());
        _exit(WRONG);
    }
}

// Loads every count, and looks at them without keeping any where that can be done. What one accepts the other does.
static void read_counts(cpa_comm *comm, cpa_h5ad *file, const char *layer, const char *path)
{
    cpa_matrix *m = NULL;
    cpa_cells *cells = NULL;
    cpa_status judged = cpa_matrix_open(comm, file, layer, &m);
    bool both = judged == CPA_OK && m->raw != NULL;
    judged = both ? cpa_matrix_judge(m) : judged;
    judged = both && judged == CPA_OK ? cpa_matrix_warn(m) : judged; // which loading does, too
    check_status(judged, path);
    cpa_matrix_close(&m);
    cpa_status loaded = cpa_cells_load(comm, file, layer, &cells);
    check_status(loaded, path);
    if (both && judged != loaded) {
        fprintf(stderr, "judged %d, loaded %d: %s\n", (int)judged, (int)loaded, cpa_message());
        _exit(WRONG);
    }
    cpa_cells_destroy(&cells);
}

static void read_file(const char *path)
{
    static const struct {
        const char *layer, *genes;
    } ways[] = {{NULL, NULL}, {"raw", "highly_variable"}};
    int argc = 0;
    cpa_comm *comm = NULL;
    check_status(cpa_comm_create(&argc, NULL, &comm), path);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        cpa_h5ad *file = NULL;
        cpa_registry *registry = NULL;
        const cpa_data_spec spec = {.train_size = 0.9};
        cpa_status st = cpa_h5ad_open(path, &file);
        check_status(st, path);
        if (st == CPA_OK) {
            st = cpa_h5ad_select(file, ways[i].layer, ways[i].genes);
            check_status(st, path);
        }
        if (st == CPA_OK) {
            check_status(cpa_registry_create(file, &spec, true, &registry), path);
            read_counts(comm, file, ways[i].layer, path);
        }
        cpa_registry_destroy(&registry);
        cpa_h5ad_close(&file);
    }
    cpa_comm_destroy(&comm);
}

// Reads one input after the other as they are announced, as the commands would each in a process of its own.
static void be_worker(int orders, int answers, int report)
{
    char word;
    int nowhere = open("/dev/null", O_WRONLY);
    dup2(nowhere, STDOUT_FILENO);
    dup2(report, STDERR_FILENO);
    signal(SIGALRM, SIG_DFL);
    signal(SIGPROF, SIG_DFL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    cpa_log_init(0, true);
    cpa_h5_patience(PATIENCE_MS / 1e3);
    while (read(orders, &word, 1) == 1) {
        alarm(WAIT_S);
        setitimer(ITIMER_PROF, &(struct itimerval){.it_value = {.tv_sec = LIMIT_S}}, NULL);
        for (size_t i = 0; i < n_counters; i++) {
            __start___sancov_cntrs[i] = 0;
        }
        read_file(worker.path);
        for (size_t i = 0; i < n_counters; i++) {
            counters[i] = __start___sancov_cntrs[i];
        }
        if (write(answers, &word, 1) != 1 || cpa_h5_failure() != NULL) {
            break; // a failure to read stays one
        }
    }
    _exit(0);
}

// ---- In the parent

// Whether a report of AddressSanitizer is about HDF5: the innermost frame that is not the C library's or its own.
static bool blames_hdf5(char *report)
{
    char *rest = NULL;
    for (char *line = strtok_r(report, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        const char *frame = strstr(line, "    #");
        if (frame != NULL && strstr(line, "libc.so") == NULL && strstr(line, "asan") == NULL &&
            strstr(line, "sanitizer") == NULL && strstr(line, "__interceptor") == NULL) {
            return strstr(line, "libhdf5") != NULL;
        }
    }
    return false;
}

static void give_verdict(int status)
{
    static char text[REPORT_BYTES];
    bool refused = WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == (int)CPA_BAD_DATA);
    if (refused) {
        return;
    }
    ssize_t n = pread(worker.report, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    fprintf(stderr, "%s, read whose reader ended with status %#x:\n%s\n", worker.path, (unsigned)status, text);
    if (!blames_hdf5(text)) {
        abort();
    }
}

static void must(bool good, const char *what)
{
    if (!good) {
        perror(what);
        exit(1);
    }
}

static void hire(void)
{
    int orders[2], answers[2];
    must(pipe(orders) == 0 && pipe(answers) == 0, "pipe");
    must(ftruncate(worker.report, 0) == 0 && lseek(worker.report, 0, SEEK_SET) == 0, worker.path);
    worker.process = fork();
    must(worker.process >= 0, "fork");
    if (worker.process == 0) {
        close(orders[1]);
        close(answers[0]);
        be_worker(orders[0], answers[1], worker.report);
    }
    close(orders[0]);
    close(answers[1]);
    worker.orders = orders[1];
    worker.answers = answers[0];
    worker.n = 0;
}

// Its status as waitpid gives it.
static int dismiss(void)
{
    int status = 0;
    close(worker.orders); // which ends it, if nothing has
    while (waitpid(worker.process, &status, 0) != worker.process) {
        must(errno == EINTR, "waitpid"); // libFuzzer has an alarm of its own
    }
    close(worker.answers);
    worker.process = 0;
    return status;
}

// Whether the input in worker.path was read to the end.
static bool give(void)
{
    char word = 0;
    worker.n++;
    ssize_t n = write(worker.orders, &word, 1) == 1 ? -1 : 0;
    while (n < 0) {
        n = read(worker.answers, &word, 1);
        must(n >= 0 || errno == EINTR, "read");
    }
    for (size_t i = 0; n == 1 && i < n_counters; i++) {
        __start___sancov_cntrs[i] |= counters[i];
    }
    return n == 1;
}

// HDF5 may have broken the memory of the worker with an earlier input, so only what happens in a fresh one counts.
void fuzz_judge(const uint8_t *bytes, size_t n)
{
    int file = open(worker.path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    must(file >= 0 && write(file, bytes, n) == (ssize_t)n && close(file) == 0, worker.path);
    for (bool fresh = false; !fresh;) {
        fresh = worker.process == 0;
        if (fresh) {
            hire();
        }
        if (give()) {
            break;
        }
        int status = dismiss();
        if (fresh) {
            give_verdict(status);
        }
    }
    if (worker.process != 0 && worker.n >= PER_WORKER) {
        dismiss();
    }
}

// Starts the libraries once, and not in every process.
static void warm_up(void)
{
    cpa_h5 *f = NULL;
    if (cpa_h5_image_create("nothing", false, &f) == CPA_OK) {
        cpa_h5_close(&f);
    }
    omp_get_max_threads();
}

static void tidy_up(void)
{
    unlink(worker.path);
}

void fuzz_begin(void)
{
    snprintf(worker.path, sizeof worker.path, "/dev/shm/cpa-fuzz-%d.h5ad", (int)getpid());
    worker.report = memfd_create("report", MFD_CLOEXEC);
    must(worker.report >= 0, "memfd_create");
    signal(SIGPIPE, SIG_IGN);
    atexit(tidy_up);
    warm_up();
    n_counters = (size_t)(__stop___sancov_cntrs - __start___sancov_cntrs);
    if (n_counters > 0) {
        counters = mmap(NULL, n_counters, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        must(counters != MAP_FAILED, "mmap");
    }
}
