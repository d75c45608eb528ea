// Owns: the order in which training cells come. Keeps two arrays of the cells; never knows of ranks, threads or memory.
#include "cpa/data/sampler.h"

#include <string.h>

#include "cpa/base/rng.h"

enum {
    FULL_UP_TO = 65536, // cells that are still shuffled one by one
};

struct cpa_sampler {
    int n_lanes, batch_size, block;
    int64_t window; // blocks of one lane whose cells are mixed
    uint64_t seed;
    int64_t n;
    int64_t *first; // [n_lanes+1] where a lane's cells begin in `cell` and `order`
    uint32_t *cell; // [n] by lane, ascending
    int64_t *order; // [n] by lane, in the order of the current epoch
    int64_t *last;  // [n_lanes] place of the lane's last block, which may be a short one, among its shuffled blocks
    int64_t *taken; // scratch: the blocks of the longest lane
};

// Cells of block j of `n` cells: all blocks are full but the last.
static int64_t block_size(const cpa_sampler *s, int64_t n, int64_t j)
{
    int64_t rest = n - j * s->block;
    return rest < s->block ? rest : s->block;
}

static int64_t lane_size(const cpa_sampler *s, int lane)
{
    return s->first[lane + 1] - s->first[lane];
}

static int64_t lane_blocks(const cpa_sampler *s, int lane)
{
    return (lane_size(s, lane) + s->block - 1) / s->block;
}

// Whether the last cells of a lane are too few for a batch of their own.
static bool joins_last(const cpa_sampler *s, int64_t n)
{
    int64_t rest = n % s->batch_size;
    return rest > 0 && rest < CPA_MIN_BATCH && n > s->batch_size;
}

static int64_t lane_steps(const cpa_sampler *s, int64_t n)
{
    return (n + s->batch_size - 1) / s->batch_size - joins_last(s, n);
}

// Deals block j to lane place[j] mod n_lanes, where `place` (scratch in `order`) is a seeded permutation.
static void deal(cpa_sampler *s, const int64_t *cell)
{
    int64_t n_blocks = (s->n + s->block - 1) / s->block, *place = s->order, *first = s->first;
    for (int64_t j = 0; j < n_blocks; j++) {
        place[j] = j;
    }
    cpa_shuffle(s->seed, CPA_STREAM_DEAL, 0, 0, place, n_blocks);
    for (int64_t j = 0; j < n_blocks; j++) {
        first[place[j] % s->n_lanes + 1] += block_size(s, s->n, j);
    }
    for (int lane = 0; lane < s->n_lanes; lane++) {
        first[lane + 1] += first[lane];
    }
    for (int64_t j = 0; j < n_blocks; j++) { // moves each lane's beginning to its end
        int64_t *at = &first[place[j] % s->n_lanes], size = block_size(s, s->n, j);
        for (int64_t i = 0; i < size; i++) {
            s->cell[*at + i] = (uint32_t)cell[j * s->block + i];
        }
        *at += size;
    }
    memmove(first + 1, first, (size_t)s->n_lanes * sizeof *first);
    first[0] = 0;
}

static int64_t most_blocks(const cpa_sampler *s)
{
    int64_t most = 0;
    for (int lane = 0; lane < s->n_lanes; lane++) {
        most = lane_blocks(s, lane) > most ? lane_blocks(s, lane) : most;
    }
    return most;
}

cpa_status cpa_sampler_create(const int64_t *cell, int64_t n, int n_lanes, int batch_size, int block, int64_t window,
                              uint64_t seed, cpa_sampler **out)
{
    cpa_status st;
    cpa_sampler *s = NULL;
    *out = NULL;
    CPA_REQUIRE(n >= 0 && n_lanes > 0 && (n_lanes & (n_lanes - 1)) == 0 && batch_size > 0 && block > 0 && window >= 0,
                CPA_INTERNAL, "no order for %lld cells, %d lanes, batches of %d, blocks of %d, a window of %lld",
                (long long)n, n_lanes, batch_size, block, (long long)window);
    CPA_REQUIRE(n == 0 || cell[n - 1] <= UINT32_MAX, CPA_BAD_DATA, "cell %lld: at most %lld cells can be trained on",
                (long long)cell[n - 1], (long long)UINT32_MAX + 1);
    CPA_TRY(cpa_alloc(1, sizeof *s, &s));
    *s = (cpa_sampler){.n_lanes = n_lanes, .batch_size = batch_size, .block = block, .seed = seed, .n = n};
    s->window = window == 0 ? n : window / n_lanes > 0 ? window / n_lanes : 1;
    CPA_TRY(cpa_alloc((size_t)n_lanes + 1, sizeof *s->first, &s->first));
    CPA_TRY(cpa_alloc((size_t)n, sizeof *s->cell, &s->cell));
    CPA_TRY(cpa_alloc((size_t)n, sizeof *s->order, &s->order));
    CPA_TRY(cpa_alloc((size_t)n_lanes, sizeof *s->last, &s->last));
    deal(s, cell);
    CPA_REQUIRE(n_lanes > 1 || n >= CPA_MIN_BATCH, CPA_BAD_DATA,
                "%lld training cells are too few: batch normalisation needs at least %d", (long long)n, CPA_MIN_BATCH);
    for (int lane = 0; lane < n_lanes; lane++) {
        CPA_REQUIRE(
            lane_size(s, lane) >= CPA_MIN_BATCH, CPA_BAD_DATA,
            "%lld training cells in blocks of %d leave lane %d of %d with %lld cells; batch normalisation needs at "
            "least %d in each: use fewer --lanes, or a smaller shuffle block",
            (long long)n, block, lane, n_lanes, (long long)lane_size(s, lane), CPA_MIN_BATCH);
    }
    CPA_TRY(cpa_alloc((size_t)most_blocks(s), sizeof *s->taken, &s->taken));
    CPA_TRY(cpa_sampler_epoch(s, 0));
    *out = s;
    s = NULL;
cleanup:
    cpa_sampler_destroy(&s);
    return st;
}

void cpa_sampler_destroy(cpa_sampler **out)
{
    cpa_sampler *s = *out;
    if (s == NULL) {
        return;
    }
    cpa_free(&s->first);
    cpa_free(&s->cell);
    cpa_free(&s->order);
    cpa_free(&s->last);
    cpa_free(&s->taken);
    cpa_free(out);
}

int64_t cpa_sampler_steps(const cpa_sampler *s)
{
    int64_t most = 0;
    for (int lane = 0; lane < s->n_lanes; lane++) {
        int64_t steps = lane_steps(s, lane_size(s, lane));
        most = steps > most ? steps : most;
    }
    return most;
}

int cpa_sampler_max_batch(const cpa_sampler *s)
{
    int64_t most = 0;
    for (int lane = 0; lane < s->n_lanes; lane++) {
        int64_t n = lane_size(s, lane);
        int64_t largest = joins_last(s, n) ? s->batch_size + n % s->batch_size : n < s->batch_size ? n : s->batch_size;
        most = largest > most ? largest : most;
    }
    return (int)most;
}

// The blocks of a lane in the order of an epoch, in s->taken; their number.
static int64_t shuffle_blocks(cpa_sampler *s, int lane, uint32_t epoch)
{
    int64_t n_blocks = lane_blocks(s, lane);
    for (int64_t k = 0; k < n_blocks; k++) {
        s->taken[k] = k;
    }
    cpa_shuffle(s->seed, CPA_STREAM_SHUFFLE, epoch, (uint32_t)lane, s->taken, n_blocks);
    return n_blocks;
}

// Mixes the n cells of a window; single cells are mixed already.
static void mix_window(const cpa_sampler *s, uint32_t epoch, int lane, int64_t window, int64_t *cell, int64_t n)
{
    if (s->block > 1) {
        cpa_shuffle(s->seed, CPA_STREAM_SHUFFLE, epoch, (uint32_t)(lane + s->n_lanes * (window + 1)), cell, n);
    }
}

static void order_lane(cpa_sampler *s, int lane, uint32_t epoch)
{
    const uint32_t *cell = s->cell + s->first[lane];
    int64_t *order = s->order + s->first[lane], n = lane_size(s, lane), at = 0;
    int64_t n_blocks = shuffle_blocks(s, lane, epoch);
    for (int64_t k = 0, window = 0; k < n_blocks; window++) {
        int64_t start = at;
        for (int64_t end = n_blocks - k < s->window ? n_blocks : k + s->window; k < end; k++) {
            int64_t j = s->taken[k], size = block_size(s, n, j);
            for (int64_t i = 0; i < size; i++) {
                order[at + i] = cell[j * s->block + i];
            }
            at += size;
            s->last[lane] = j == n_blocks - 1 ? k : s->last[lane];
        }
        mix_window(s, epoch, lane, window, order + start, at - start);
    }
}

cpa_status cpa_sampler_epoch(cpa_sampler *s, int64_t epoch)
{
    for (int lane = 0; lane < s->n_lanes; lane++) {
        order_lane(s, lane, (uint32_t)epoch);
    }
    return CPA_OK;
}

void cpa_sampler_batch(const cpa_sampler *s, int lane, int64_t step, const int64_t **rows, int *n)
{
    int64_t size = lane_size(s, lane), steps = lane_steps(s, size), from = step * s->batch_size;
    int64_t to = step == steps - 1 ? size : from + s->batch_size;
    bool out = step >= steps;
    *rows = s->order + s->first[lane] + (out ? 0 : from);
    *n = out ? 0 : (int)(to - from);
}

void cpa_sampler_list(const cpa_sampler *s, int64_t *cell)
{
    memcpy(cell, s->order, (size_t)s->n * sizeof *cell);
}

cpa_block cpa_sampler_lane(const cpa_sampler *s, int lane)
{
    return (cpa_block){s->cell + s->first[lane], lane_size(s, lane)};
}

int cpa_sampler_block_size(const cpa_sampler *s)
{
    return s->block;
}

int64_t cpa_sampler_window_blocks(const cpa_sampler *s)
{
    int64_t most = most_blocks(s);
    return s->window < most ? s->window : most;
}

int64_t cpa_sampler_windows(const cpa_sampler *s)
{
    return (most_blocks(s) + s->window - 1) / s->window;
}

int64_t cpa_sampler_window(cpa_sampler *s, int64_t epoch, int lane, int64_t window, cpa_block *block, int64_t *n,
                           int64_t *order)
{
    int64_t n_blocks = shuffle_blocks(s, lane, (uint32_t)epoch), size = lane_size(s, lane), cells = 0;
    *n = 0;
    for (int64_t k = window * s->window; k < n_blocks && k < (window + 1) * s->window; k++) {
        int64_t j = s->taken[k];
        block[*n] = (cpa_block){s->cell + s->first[lane] + j * s->block, block_size(s, size, j)};
        for (int64_t i = 0; i < block[*n].n; i++, cells++) {
            order[cells] = cells;
        }
        ++*n;
    }
    mix_window(s, (uint32_t)epoch, lane, window, order, cells);
    return cells;
}

// Where in a lane's order the shuffled block k begins.
static int64_t block_place(const cpa_sampler *s, int lane, int64_t k)
{
    int64_t lacking = s->block - block_size(s, lane_size(s, lane), lane_blocks(s, lane) - 1);
    return k * s->block - (k > s->last[lane] ? lacking : 0);
}

// The window that the cell at `place` of a lane's order lies in.
static int64_t window_at(const cpa_sampler *s, int lane, int64_t place)
{
    int64_t k = place / s->block; // or the block behind it, when the short one came before
    k += k + 1 < lane_blocks(s, lane) && block_place(s, lane, k + 1) <= place;
    return k / s->window;
}

bool cpa_sampler_span(const cpa_sampler *s, int lane, int64_t step, cpa_span *out)
{
    const int64_t *rows;
    int n;
    cpa_sampler_batch(s, lane, step, &rows, &n);
    int64_t place = rows - (s->order + s->first[lane]);
    if (n > 0) {
        out->first = window_at(s, lane, place);
        out->last = window_at(s, lane, place + n - 1);
        out->offset = place - block_place(s, lane, out->first * s->window);
    }
    return n > 0;
}

bool cpa_sampler_is_full(int64_t n)
{
    return n <= FULL_UP_TO;
}
