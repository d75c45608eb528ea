// Owns: how a block finds the rows that have a number, so that sums over them need look no further. Never in an order that anything but
// the ids decides.
#ifndef CPA_KERNELS_PICK_H
#define CPA_KERNELS_PICK_H

#include "kernel.h"

// A block picks from at most so many ids at once, in shares of lanes of 32 threads each.
enum { CPA_PICK_MOST = 4096, CPA_PICK_LANES = CPA_THREADS / 32 };

// Positions of what was picked, lane after lane: lane k's are at[k * each ...], n[k] of them.
typedef struct cpa_picked {
    uint16_t *at; // [CPA_PICK_MOST]
    int *n;       // [CPA_PICK_LANES]
    int *found;   // [CPA_THREADS], for the work itself
    int each;     // the ids of a lane, a multiple of 32
} cpa_picked;

// Room for that in the memory of the block.
#define CPA_PICKED(name, ids_of_block)                                                                                 \
    CPA_SHARED(uint16_t, name##_at, CPA_PICK_MOST);                                                                    \
    CPA_SHARED(int, name##_n, CPA_PICK_LANES);                                                                         \
    CPA_SHARED(int, name##_found, CPA_THREADS);                                                                        \
    const cpa_picked name = {name##_at, name##_n, name##_found, (ids_of_block) / CPA_PICK_LANES}

// Picks those of id[0] ... id[n - 1] that are p: a thread looks at every 32nd of its lane's.
CPA_DEVICE void cpa_pick(cpa_picked to, const int *id, int n, int p)
{
    CPA_EACH(t)
    {
        const int begin = t / 32 * to.each, end = begin + to.each < n ? begin + to.each : n;
        int found = 0;
        for (int i = begin + t % 32; i < end; i += 32) {
            found += id[i] == p;
        }
        to.found[t] = found;
    }
    CPA_EACH(t)
    {
        const int begin = t / 32 * to.each, end = begin + to.each < n ? begin + to.each : n;
        int at = begin;
        for (int u = t / 32 * 32; u < t; u++) {
            at += to.found[u];
        }
        for (int i = begin + t % 32; to.found[t] > 0 && i < end; i += 32) {
            if (id[i] == p) {
                to.at[at++] = (uint16_t)i;
            }
        }
        if (t % 32 == 31) {
            to.n[t / 32] = at - begin;
        }
    }
}

#endif
