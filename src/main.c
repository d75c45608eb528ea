// Owns: the process: start, command line, dispatch, the one message of a failure, the exit code. Nothing else exits, but a
// rank that waits in vain (platform/comm_watch.c) and one whose HDF5 falls over a damaged file (platform/h5_guard.c).
// Never does a command's work.
#include <fcntl.h>
#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cpa/app/commands.h"
#include "cpa/base/log.h"
#include "cpa/base/signals.h"
#include "cpa/platform/h5.h"

static const struct {
    cpa_command command;
    cpa_status (*run)(cpa_comm *comm, const cpa_options *o);
} commands[] = {
#define X(name, NAME, usage, summary) {CPA_COMMAND_##NAME, cpa_cmd_##name},
    CPA_COMMAND_LIST(X)
#undef X
};

// Prints what was asked for about the program itself, from rank 0.
static cpa_status print_about(const cpa_comm *comm, const cpa_options *o)
{
    cpa_status st = CPA_OK;
    cpa_text text = {0};
    if (o->request == CPA_REQUEST_VERSION) {
        CPA_TRY(cpa_text_add(&text, "cpa-hpc %s\n", CPA_VERSION));
    } else if (o->request == CPA_REQUEST_OPTIONS) {
        CPA_TRY(cpa_options_page(&text));
    } else {
        CPA_TRY(cpa_options_help(o->command, &text));
    }
    if (cpa_comm_rank(comm) == 0) {
        fputs(cpa_text_str(&text), stdout);
    }
cleanup:
    cpa_text_fini(&text);
    return st;
}

// Appends an argument, in quotes where a shell would need them.
static cpa_status add_argument(cpa_text *t, const char *arg)
{
    cpa_status st;
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./,:@%";
    if (*arg != '\0' && strspn(arg, plain) == strlen(arg)) {
        return cpa_text_add(t, " %s", arg);
    }
    CPA_TRY(cpa_text_add(t, " '"));
    for (; *arg != '\0'; arg++) {
        CPA_TRY(*arg == '\'' ? cpa_text_add(t, "'\\''") : cpa_text_add(t, "%c", *arg));
    }
    CPA_TRY(cpa_text_add(t, "'"));
cleanup:
    return st;
}

// More ranks than lanes: some would have nothing to do, and adding lanes makes another model, which only the user may.
static cpa_status check_ranks(const cpa_comm *comm, const cpa_options *o, int argc, char **argv)
{
    int ranks = cpa_comm_size(comm), lanes = o->train.lanes;
    if (o->command != CPA_COMMAND_TRAIN || ranks <= lanes) {
        return CPA_OK;
    }
    cpa_status st;
    cpa_text again = {0};
    for (int i = 1; i < argc; i++) {
        CPA_TRY(add_argument(&again, argv[i]));
    }
    int enough = lanes;
    while (enough < ranks) {
        enough *= 2;
    }
    st = cpa_fail(CPA_USAGE,
                  "%d ranks are more than the %d lane%s of a step; start %d: mpirun -n %d cpa-hpc%s\n"
                  "(--lanes %d would use all ranks, but is another model: its step has %d x %d cells)",
                  ranks, lanes, lanes == 1 ? "" : "s", lanes, lanes, cpa_text_str(&again), enough, enough,
                  o->train.batch_size);
cleanup:
    cpa_text_fini(&again);
    return st;
}

static cpa_status run(cpa_comm *comm, const cpa_options *o, int argc, char **argv)
{
    cpa_status st;
    if (o->request != CPA_REQUEST_RUN) {
        return print_about(comm, o);
    }
    CPA_TRY(check_ranks(comm, o, argc, argv));
    cpa_log_init(cpa_comm_rank(comm), o->quiet);
    if (o->threads > 0) {
        omp_set_num_threads(o->threads);
    }
    st = cpa_fail(CPA_INTERNAL, "no function for the command '%s'", cpa_command_name(o->command));
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (commands[i].command == o->command) {
            st = commands[i].run(comm, o);
        }
    }
cleanup:
    return st;
}

// After an error of MPI this rank cannot know where the others are, so nothing can be agreed on any more.
static void give_up_if_lost(cpa_comm *comm, cpa_status st)
{
    if (st == CPA_LOST_PEER) {
        cpa_error(cpa_message());
        cpa_comm_abort(comm, st);
    }
}

// Streams that the caller has closed must not become files of ours, nor the end of a file that may not grow the end of the process.
static void prepare_process(void)
{
    int fd;
    while ((fd = open("/dev/null", O_RDONLY)) >= 0 && fd <= STDERR_FILENO) {
    }
    if (fd >= 0) {
        close(fd);
    }
    signal(SIGXFSZ, SIG_IGN);
}

int main(int argc, char **argv)
{
    prepare_process();
    cpa_comm *comm = NULL;
    cpa_options options = {0};
    // Before MPI starts, because that waits for other ranks too.
    cpa_status parsed = cpa_options_parse(argc, argv, &options), st;
    if (parsed == CPA_OK && options.command == CPA_COMMAND_TRAIN) {
        cpa_stop_hold(); // of a job that is stopped while it starts
    }
    if (parsed == CPA_OK) {
        cpa_comm_timeout(options.timeout);
        cpa_h5_patience(options.timeout / 2); // the rank at fault is to speak before those that wait for it
    }
    st = cpa_comm_create(&argc, &argv, &comm);
    if (st != CPA_OK) {
        cpa_error(cpa_message());
        cpa_options_fini(&options);
        return (int)st;
    }
    cpa_log_init(cpa_comm_rank(comm), false);
    st = cpa_comm_agree(comm, parsed);
    if (st == CPA_OK) {
        st = run(comm, &options, argc, argv);
        give_up_if_lost(comm, st);
        // What looked like bad data may be a file that could not be read.
        st = cpa_h5_failure() != NULL ? cpa_fail(CPA_IO, "%s", cpa_h5_failure()) : st;
        st = cpa_comm_agree(comm, st);
    }
    cpa_comm_phase("ending");
    // A launcher may end the other ranks as soon as the first one has ended with a code.
    cpa_stop_ignore();
    bool is_written = fflush(stdout) == 0 && ferror(stdout) == 0;
    if (st == CPA_OK && !is_written) {
        st = cpa_fail(CPA_IO, "cannot write to standard output");
    }
    st = cpa_comm_agree(comm, st);
    if (st == CPA_AGAIN) {
        cpa_warn("%s", cpa_message()); // as was wished
    } else if (st != CPA_OK && cpa_comm_rank(comm) == 0) {
        cpa_error(cpa_message());
    }
    cpa_options_fini(&options);
    cpa_comm_destroy(&comm);
    return (int)st;
}
