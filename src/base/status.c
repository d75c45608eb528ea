// Owns: the message of the last failure, one per process. Never prints, never exits, and is not counted as memory of
// the program, so that failing does not disturb the allocation counts.
#include "cpa/base/status.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_mutex_t message_lock = PTHREAD_MUTEX_INITIALIZER;
static char *message;            // from malloc, or NULL
static char message_short[1024]; // what is left of a message when memory is short

cpa_status cpa_fail(cpa_status st, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    // The old message is freed last: it may be one of the arguments.
    char *fresh = n < 0 ? NULL : malloc((size_t)n + 1);
    pthread_mutex_lock(&message_lock);
    if (fresh != NULL) {
        vsnprintf(fresh, (size_t)n + 1, fmt, again);
    } else {
        vsnprintf(message_short, sizeof message_short, fmt, again);
    }
    va_end(again);
    free(message);
    message = fresh;
    pthread_mutex_unlock(&message_lock);
    return st;
}

const char *cpa_message(void)
{
    pthread_mutex_lock(&message_lock);
    const char *s = message != NULL ? message : message_short;
    pthread_mutex_unlock(&message_lock);
    return s;
}
