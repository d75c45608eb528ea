// Owns: the tests of the deadline of waits: what ends a process, what must not, and what it says. Each case is a child process.
// Must never need MPI.
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/platform/comm_impl.h"
#include "../../src/platform/comm_watch_impl.h"
#include "cpa/base/log.h"
#include "cpa/base/mem.h"

static char said[4096]; // by the last child, on standard error

static void pause_for(double seconds)
{
    usleep((useconds_t)(1e6 * seconds));
}

// Starts a child that runs `body` and then exits with 0; its standard error comes out of *from.
static pid_t begin_child(void (*body)(void), int *from)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        body();
        _exit(0);
    }
    close(ends[1]);
    *from = ends[0];
    return child;
}

// The exit code of the child; its words in `said`.
static int end_child(pid_t child, int from)
{
    int how;
    size_t n = 0;
    for (ssize_t k; (k = read(from, said + n, sizeof said - 1 - n)) > 0;) {
        n += (size_t)k;
    }
    said[n] = '\0';
    close(from);
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how));
    return WEXITSTATUS(how);
}

static int code_of(void (*body)(void))
{
    int from;
    pid_t child = begin_child(body, &from);
    return end_child(child, from);
}

static void says(const char *words)
{
    if (strstr(said, words) == NULL) {
        fail_msg("the message lacks '%s': %s", words, said);
    }
}

static void start(double timeout)
{
    cpa_comm_timeout(timeout);
    if (cpa_watch_start() != CPA_OK) {
        _exit(1);
    }
}

static void wait_for_all(void)
{
    start(0.2);
    cpa_comm_phase("testing");
    cpa_watch_begin("barrier", -1);
    pause_for(30);
}

static void wait_for_one(void)
{
    start(0.2);
    cpa_watch_begin("receiving", 3);
    pause_for(30);
}

static void a_wait_that_lasts_ends_the_process(void **state)
{
    (void)state;
    assert_int_equal(code_of(wait_for_all), CPA_LOST_PEER);
    says("testing: no answer from the other ranks (barrier) for 0.2 s (--timeout 0.2)");
    assert_int_equal(code_of(wait_for_one), CPA_LOST_PEER);
    says("starting: no answer from rank 3 (receiving)");
}

static void compute(void)
{
    start(0.2);
    cpa_watch_begin("barrier", -1);
    cpa_watch_end();
    pause_for(1);
    cpa_watch_stop();
}

static void wait_often(void)
{
    start(1);
    for (int i = 0; i < 150; i++) {
        cpa_watch_begin("barrier", -1);
        pause_for(0.01);
        cpa_watch_end();
    }
    cpa_watch_stop();
}

static void stop_and_wait(void)
{
    start(0.2);
    cpa_watch_stop();
    cpa_watch_begin("barrier", -1);
    pause_for(1);
}

static void work_and_short_waits_do_not(void **state)
{
    (void)state;
    assert_int_equal(code_of(compute), 0);
    assert_int_equal(code_of(wait_often), 0);
    assert_int_equal(code_of(stop_and_wait), 0);
}

static void wait_long(void)
{
    start(3);
    cpa_watch_begin("barrier", -1);
    pause_for(1);
    cpa_watch_end();
    cpa_watch_stop();
}

// The whole job suspended and continued: no rank has waited meanwhile.
static void time_while_suspended_does_not_count(void **state)
{
    (void)state;
    int from;
    pid_t child = begin_child(wait_long, &from);
    pause_for(0.3);
    kill(child, SIGSTOP);
    pause_for(3.5);
    kill(child, SIGCONT);
    assert_int_equal(end_child(child, from), 0);
}

// Of rank 0 in the next cases, and for how long it looks.
static pid_t neighbour;
static double looks;

static void look_at_neighbour(void)
{
    cpa_comm *comm = NULL;
    cpa_whereabouts *all = NULL;
    if (cpa_comm_self_create(&comm) != CPA_OK || cpa_alloc(2, sizeof *all, &all) != CPA_OK) {
        _exit(1);
    }
    comm->size = 2;
    cpa_whereabouts_find(&all[0], getpid());
    cpa_whereabouts_find(&all[1], neighbour);
    start(0.2);
    cpa_watch_ranks(comm, all);
    cpa_error("looking");
    pause_for(looks);
    cpa_watch_stop();
}

// Starts a child that looks at its neighbour, and comes back when it does.
static pid_t begin_look(int *from)
{
    char c = '\0';
    pid_t child = begin_child(look_at_neighbour, from);
    while (c != '\n' && read(*from, &c, 1) == 1) {
    }
    return child;
}

// Rank 0 waits for nobody, but the other rank on its machine is in the way of the whole.
static void a_neighbour_that_is_away_ends_the_process(void **state)
{
    (void)state;
    int how, from;
    neighbour = fork();
    assert_true(neighbour >= 0);
    if (neighbour == 0) {
        pause_for(300);
        _exit(0);
    }
    looks = 0.6;
    assert_int_equal(code_of(look_at_neighbour), 0);
    looks = 60;
    pid_t child = begin_look(&from);
    kill(neighbour, SIGSTOP);
    assert_int_equal(end_child(child, from), CPA_LOST_PEER);
    says("rank 0, starting: another rank is away");
    says("rank 1 (process");
    says("is stopped");
    assert_int_equal(waitpid(neighbour, &how, WUNTRACED), neighbour);
    looks = 0.6; // a process that is not seen to run at the start may be any
    assert_int_equal(code_of(look_at_neighbour), 0);
    kill(neighbour, SIGCONT);
    assert_int_equal(waitpid(neighbour, &how, WCONTINUED), neighbour);
    looks = 60;
    child = begin_look(&from);
    kill(neighbour, SIGKILL);
    assert_int_equal(end_child(child, from), CPA_LOST_PEER);
    says("has died");
    assert_int_equal(waitpid(neighbour, &how, 0), neighbour);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wait_that_lasts_ends_the_process),
        cmocka_unit_test(work_and_short_waits_do_not),
        cmocka_unit_test(time_while_suspended_does_not_count),
        cmocka_unit_test(a_neighbour_that_is_away_ends_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
