// Owns: what people read on standard error: progress, plain log lines, warnings. Only rank 0 speaks unless told otherwise.
// Never writes to standard output.
#ifndef CPA_BASE_LOG_H
#define CPA_BASE_LOG_H

#include <stdbool.h>

/** Says which rank this is (call once after the communicator exists); other ranks than 0 stay silent. */
void cpa_log_init(int rank, bool quiet);

/** A plain line on standard error, from rank 0. */
void cpa_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/** A line that begins with "warning: ", from rank 0. */
void cpa_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/** A line that begins with "cpa-hpc: error: " for every line of the message, from this very rank. */
void cpa_error(const char *message);

/** One such line made of up to 8 pieces, for a signal handler: calls nothing but write(2). Other ranks than 0 let that one speak first:
 *  where it fails as they do, its launcher ends them before they say the same. */
void cpa_last_words(const char *const *piece, int n);

/** A progress line: rewritten in place on a terminal; elsewhere printed only when `keep`. From rank 0. */
void cpa_progress(bool keep, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** Seconds on a monotonic clock. */
double cpa_seconds(void);

#endif
