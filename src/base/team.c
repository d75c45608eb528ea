// Owns: threads, the lock between them and the items they take. Never allocates once it runs.
#include "cpa/base/team.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "cpa/base/mem.h"

typedef struct seat {
    cpa_team *team;
    int number;
} seat;

struct cpa_team {
    pthread_mutex_t lock;
    pthread_cond_t has_work, has_ended;
    int n; // threads that run
    pthread_t *thread;
    seat *seat;
    cpa_work work;
    bool busy, quit;
    int phase, n_running;
    int64_t next; // item of the phase
};

// The phase is over: on to the next one that has items, or to the end.
static void next_phase(cpa_team *t)
{
    do {
        t->phase++;
        t->next = 0;
    } while (t->phase < CPA_TEAM_PHASES && t->work.n_items[t->phase] == 0);
    t->busy = t->phase < CPA_TEAM_PHASES;
    pthread_cond_broadcast(t->busy ? &t->has_work : &t->has_ended);
}

static void *thread_main(void *arg)
{
    cpa_team *t = ((seat *)arg)->team;
    int number = ((seat *)arg)->number;
    pthread_mutex_lock(&t->lock);
    while (!t->quit) {
        if (!t->busy || t->next >= t->work.n_items[t->phase]) {
            pthread_cond_wait(&t->has_work, &t->lock);
            continue;
        }
        int phase = t->phase;
        int64_t item = t->next++;
        t->n_running++;
        pthread_mutex_unlock(&t->lock);
        bool go_on = t->work.run(t->work.ctx, phase, item, number);
        pthread_mutex_lock(&t->lock);
        t->n_running--;
        if (!go_on) {
            memset(t->work.n_items, 0, sizeof t->work.n_items);
        }
        if (t->n_running == 0 && t->next >= t->work.n_items[t->phase]) {
            next_phase(t);
        }
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

cpa_status cpa_team_create(int n, cpa_team **out)
{
    cpa_status st;
    cpa_team *t = NULL;
    sigset_t all, before;
    CPA_TRY(cpa_alloc(1, sizeof *t, &t));
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->has_work, NULL);
    pthread_cond_init(&t->has_ended, NULL);
    CPA_TRY(cpa_alloc((size_t)n, sizeof *t->thread, &t->thread));
    CPA_TRY(cpa_alloc((size_t)n, sizeof *t->seat, &t->seat));
    sigfillset(&all); // signals are the main thread's
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (int i = 0; i < n && t->n == i; i++) {
        t->seat[i] = (seat){t, i};
        t->n += pthread_create(&t->thread[i], NULL, thread_main, &t->seat[i]) == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    CPA_REQUIRE(t->n == n, CPA_INTERNAL, "only %d of %d threads could be started; use fewer --threads", t->n, n);
    *out = t;
    t = NULL;
cleanup:
    cpa_team_destroy(&t);
    return st;
}

void cpa_team_destroy(cpa_team **team)
{
    cpa_team *t = *team;
    if (t == NULL) {
        return;
    }
    pthread_mutex_lock(&t->lock);
    t->quit = true;
    pthread_cond_broadcast(&t->has_work);
    pthread_mutex_unlock(&t->lock);
    for (int i = 0; i < t->n; i++) {
        pthread_join(t->thread[i], NULL);
    }
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->has_work);
    pthread_cond_destroy(&t->has_ended);
    cpa_free(&t->thread);
    cpa_free(&t->seat);
    cpa_free(team);
}

int cpa_team_size(const cpa_team *team)
{
    return team->n;
}

void cpa_team_start(cpa_team *t, const cpa_work *work)
{
    pthread_mutex_lock(&t->lock);
    t->work = *work;
    t->phase = -1;
    next_phase(t);
    pthread_mutex_unlock(&t->lock);
}

bool cpa_team_is_busy(cpa_team *t)
{
    pthread_mutex_lock(&t->lock);
    bool busy = t->busy;
    pthread_mutex_unlock(&t->lock);
    return busy;
}

void cpa_team_wait(cpa_team *t)
{
    pthread_mutex_lock(&t->lock);
    while (t->busy) {
        pthread_cond_wait(&t->has_ended, &t->lock);
    }
    pthread_mutex_unlock(&t->lock);
}
