// Owns: the one status type, the message that goes with a failure, and the clean-up idiom. Never prints, never exits.
#ifndef CPA_BASE_STATUS_H
#define CPA_BASE_STATUS_H

// A status is also the exit code of the program: X(name, code, sentence).
#define CPA_STATUS_LIST(X)                                                                                             \
    X(OK, 0, "done")                                                                                                   \
    X(USAGE, 64, "the command line is wrong")                                                                          \
    X(BAD_DATA, 65, "the data, or options they cannot satisfy")                                                        \
    X(NO_INPUT, 66, "no such path")                                                                                    \
    X(INTERNAL, 70, "internal error")                                                                                  \
    X(IO, 74, "input or output failed")                                                                                \
    X(AGAIN, 75, "checkpointed, run me again")                                                                         \
    X(LOST_PEER, 76, "another rank was lost")                                                                          \
    X(NONFINITE, 77, "the loss is not finite")                                                                         \
    X(CONFIG, 78, "options or configuration contradict each other")

typedef enum cpa_status {
#define X(name, code, sentence) CPA_##name = code,
    CPA_STATUS_LIST(X)
#undef X
} cpa_status;

/** Records a message (printf style, may hold several lines) for the failure and returns `st`.
 *
 *  The message replaces an earlier one. It lives in the process until the next failure. */
cpa_status cpa_fail(cpa_status st, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** The message of the last failure, "" if there was none. Borrowed until the next cpa_fail. */
const char *cpa_message(void);

// Jumps to `cleanup` when a call fails. Needs a local `cpa_status st` and a label `cleanup`.
#define CPA_TRY(call)                                                                                                  \
    do {                                                                                                               \
        if ((st = (call)) != CPA_OK) {                                                                                 \
            goto cleanup;                                                                                              \
        }                                                                                                              \
    } while (0)

// Fails with a message that names the offending values, then jumps to `cleanup`.
#define CPA_REQUIRE(cond, code, ...)                                                                                   \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            st = cpa_fail(code, __VA_ARGS__);                                                                          \
            goto cleanup;                                                                                              \
        }                                                                                                              \
    } while (0)

#endif
