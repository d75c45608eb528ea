// Owns: which windows are in memory, which is read now, and which next. Reading is the decoder's.
// Must never give a window up that a batch in the making needs, nor let one rank fail alone in a step.
#include "cpa/data/stream.h"

#include <stdlib.h>
#include <string.h>

#include "cpa/base/log.h"
#include "cpa/data/loader.h"
#include "stream_impl.h"

enum { LISTED = -1 }; // the epoch of a window of the list

// A block, and the number of its first cell among those of all blocks as they come.
typedef struct block_at {
    cpa_block cells;
    int64_t at;
} block_at;

struct cpa_streamer {
    cpa_streamer_plan plan;
    cpa_decoder *decoder;
    int n_windows;
    cpa_window *window;                // [n_windows] in turn
    cpa_window *reading;               // what the decoder fills, or NULL
    int64_t max_cells, max_values;     // of a window
    block_at *block;                   // [most blocks of a window of all this rank's lanes]
    cpa_block *of_lane;                // [those of one lane]
    int64_t *order, *place;            // [max_cells] scratch
    cpa_window_key first;              // of the request in hand, up to
    int64_t last;                      // this number
    int64_t agreed_epoch, agreed_last; // up to which all ranks have their windows,
    int64_t agreed_step;               // and the last step that asked for them
    // The list: kept whole, or cut into windows [start[i], start[i+1]).
    const int64_t *listed;
    int64_t n_listed, n_starts, *start, *pair; // pair [2 max_cells]: scratch
    bool kept;
    cpa_window all; // when it is kept
    cpa_streamer_report report;
};

// ---- Sizes

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0; // descending
}

// The most cells and values that a window of a lane can have in any epoch: its largest blocks together.
static cpa_status lane_window(const cpa_streamer_plan *plan, int lane, int64_t *cells, int64_t *values)
{
    cpa_status st;
    cpa_block all = cpa_sampler_lane(plan->sampler, lane);
    const int64_t *extent = cpa_matrix_extent(plan->matrix);
    int64_t size = cpa_sampler_block_size(plan->sampler), window = cpa_sampler_window_blocks(plan->sampler);
    int64_t n_blocks = (all.n + size - 1) / size, *n_values = NULL;
    CPA_TRY(cpa_alloc((size_t)n_blocks, sizeof *n_values, &n_values));
    for (int64_t i = 0; i < all.n; i++) {
        n_values[i / size] += extent[all.cell[i] + 1] - extent[all.cell[i]];
    }
    qsort(n_values, (size_t)n_blocks, sizeof *n_values, by_size);
    *cells += window * size < all.n ? window * size : all.n;
    for (int64_t k = 0; k < window && k < n_blocks; k++) {
        *values += n_values[k];
    }
cleanup:
    cpa_free(&n_values);
    return st;
}

// Windows that the cells of one step can lie in, and one to read ahead into. A lane can be behind another one by the cells that its
// last block lacks.
static int windows_at_once(const cpa_streamer_plan *plan)
{
    if (plan->sampler == NULL) {
        return 2;
    }
    int64_t size = cpa_sampler_block_size(plan->sampler);
    int64_t window = size * cpa_sampler_window_blocks(plan->sampler);
    int64_t touched = (cpa_sampler_max_batch(plan->sampler) + size - 1 + window - 2) / window + 1;
    return touched > 2 ? (int)touched : 2;
}

static cpa_status size_up(const cpa_streamer_plan *plan, int64_t *max_cells, int64_t *max_values)
{
    cpa_status st = CPA_OK;
    *max_cells = *max_values = 0;
    for (int lane = plan->first_lane; lane < plan->end_lane; lane++) {
        CPA_TRY(lane_window(plan, lane, max_cells, max_values));
    }
    int64_t batch_values; // a batch of the list lies in one window
    CPA_TRY(cpa_loader_max_nnz(
        &(cpa_cells){.n_cells = plan->matrix->info.n_cells, .indptr = cpa_matrix_extent(plan->matrix)}, plan->max_batch,
        &batch_values));
    *max_cells = *max_cells > plan->max_batch ? *max_cells : plan->max_batch;
    *max_values = *max_values > batch_values ? *max_values : batch_values;
cleanup:
    return st;
}

static cpa_decoder_plan decoder_plan(const cpa_streamer_plan *plan, int64_t max_cells, int64_t max_values)
{
    const cpa_matrix *m = plan->matrix;
    return (cpa_decoder_plan){.file = m->file,
                              .raw = m->raw,
                              .indptr = cpa_matrix_extent(m),
                              .n_threads = plan->n_threads,
                              .max_cells = max_cells,
                              .max_values = max_values,
                              .longest = m->longest};
}

cpa_status cpa_streamer_bytes(const cpa_streamer_plan *plan, size_t *bytes, size_t *one)
{
    int64_t cells, values;
    cpa_status st = size_up(plan, &cells, &values);
    if (st == CPA_OK) {
        cpa_decoder_plan decoder = decoder_plan(plan, cells, values);
        size_t window = cpa_window_bytes(plan->matrix, cells, values);
        *bytes = (size_t)windows_at_once(plan) * window + cpa_decoder_bytes(&decoder) +
                 cpa_h5ad_raw_bytes(plan->matrix->raw);
        if (one != NULL) {
            *one = window;
        }
    }
    return st;
}

// ---- Life

cpa_status cpa_streamer_create(const cpa_streamer_plan *plan, cpa_streamer **out)
{
    cpa_status st;
    cpa_streamer *s = NULL;
    CPA_TRY(cpa_alloc(1, sizeof *s, &s));
    s->plan = *plan;
    s->agreed_epoch = -1;
    int lanes = plan->end_lane - plan->first_lane;
    s->n_windows = windows_at_once(plan);
    CPA_TRY(size_up(plan, &s->max_cells, &s->max_values));
    CPA_TRY(cpa_alloc((size_t)s->n_windows, sizeof *s->window, &s->window));
    for (int i = 0; i < s->n_windows; i++) {
        CPA_TRY(cpa_window_init(&s->window[i], plan->matrix, s->max_cells, s->max_values, lanes));
    }
    size_t blocks = plan->sampler != NULL ? (size_t)cpa_sampler_window_blocks(plan->sampler) : 0;
    CPA_TRY(cpa_alloc(blocks * (size_t)lanes, sizeof *s->block, &s->block));
    CPA_TRY(cpa_alloc(blocks, sizeof *s->of_lane, &s->of_lane));
    CPA_TRY(cpa_alloc((size_t)s->max_cells, sizeof *s->order, &s->order));
    CPA_TRY(cpa_alloc((size_t)s->max_cells, sizeof *s->place, &s->place));
    cpa_decoder_plan decoder = decoder_plan(plan, s->max_cells, s->max_values);
    CPA_TRY(cpa_decoder_create(&decoder, &s->decoder));
    *out = s;
    s = NULL;
cleanup:
    cpa_streamer_destroy(&s);
    return st;
}

void cpa_streamer_destroy(cpa_streamer **out)
{
    cpa_streamer *s = *out;
    if (s == NULL) {
        return;
    }
    cpa_decoder_destroy(&s->decoder);
    for (int i = 0; s->window != NULL && i < s->n_windows; i++) {
        cpa_window_fini(&s->window[i]);
    }
    cpa_window_fini(&s->all);
    cpa_free(&s->window);
    cpa_free(&s->block);
    cpa_free(&s->of_lane);
    cpa_free(&s->order);
    cpa_free(&s->place);
    cpa_free(&s->start);
    cpa_free(&s->pair);
    cpa_free(out);
}

cpa_streamer_report cpa_streamer_reported(const cpa_streamer *s)
{
    return s->report;
}

// ---- Reading

static bool same_key(cpa_window_key a, cpa_window_key b)
{
    return a.epoch == b.epoch && a.number == b.number;
}

static int by_first(const void *a, const void *b)
{
    const block_at *x = a, *y = b;
    return x->cells.cell[0] < y->cells.cell[0] ? -1 : x->cells.cell[0] > y->cells.cell[0];
}

// The cells of a window of the training order, and how they will be visited, lane after lane.
static void set_training(cpa_streamer *s, cpa_window *w, cpa_window_key key)
{
    int64_t n_blocks = 0, n = 0, read = 0;
    for (int lane = s->plan.first_lane; lane < s->plan.end_lane; lane++) {
        int64_t more,
            at = n,
            cells = cpa_sampler_window(s->plan.sampler, key.epoch, lane, key.number, s->of_lane, &more, s->order);
        w->lane[lane - s->plan.first_lane] = n;
        for (int64_t k = 0; k < more; at += s->of_lane[k++].n) {
            s->block[n_blocks++] = (block_at){s->of_lane[k], at};
        }
        for (int64_t i = 0; i < cells; i++) {
            s->place[n + s->order[i]] = n + i;
        }
        n += cells;
    }
    qsort(s->block, (size_t)n_blocks, sizeof *s->block, by_first);
    for (int64_t k = 0; k < n_blocks; k++) {
        const block_at *b = &s->block[k];
        for (int64_t i = 0; i < b->cells.n; i++, read++) {
            w->cell[read] = b->cells.cell[i];
            w->visit[s->place[b->at + i]] = (int32_t)read;
        }
    }
    cpa_window_set(w, s->plan.matrix, n);
}

static void start_reading(cpa_streamer *s, cpa_window *w, cpa_window_key key)
{
    w->key = key;
    w->state = CPA_WINDOW_READING;
    if (key.epoch == LISTED) {
        int64_t from = s->start[key.number], to = s->start[key.number + 1];
        cpa_window_set_list(w, s->plan.matrix, s->listed + from, to - from, s->pair);
    } else {
        set_training(s, w, key);
    }
    s->reading = w;
    cpa_decoder_start(s->decoder, w->cell, 0, w->cells.n_cells, &w->rows);
}

// Waits for the window that is read. It is empty afterwards when that failed.
static cpa_status finish_reading(cpa_streamer *s)
{
    cpa_row_stats stats;
    cpa_window *w = s->reading;
    cpa_status st = cpa_decoder_finish(s->decoder, &stats);
    s->reading = NULL;
    w->state = CPA_WINDOW_EMPTY;
    CPA_TRY(st);
    CPA_TRY(cpa_decoder_same(s->decoder));
    CPA_REQUIRE(w->rows.count16 == NULL || !stats.wide, CPA_IO,
                "%s: %s: counts have become larger since they were checked: the file was written to while it is read",
                cpa_h5ad_path(s->plan.matrix->file), s->plan.matrix->path);
    w->state = CPA_WINDOW_READY;
    s->report.bytes += stats.n_read;
    s->report.windows++;
cleanup:
    return st;
}

static cpa_window *find_window(const cpa_streamer *s, cpa_window_key key)
{
    for (int i = 0; i < s->n_windows; i++) {
        if (s->window[i].state != CPA_WINDOW_EMPTY && same_key(s->window[i].key, key)) {
            return &s->window[i];
        }
    }
    return NULL;
}

static bool is_requested(const cpa_streamer *s, cpa_window_key key)
{
    return key.epoch == s->first.epoch && key.number >= s->first.number && key.number <= s->last;
}

// The window that training will ask for next.
static cpa_window_key next_of_training(const cpa_streamer *s)
{
    bool goes_on = s->agreed_epoch >= 0 && s->agreed_last + 1 < cpa_sampler_windows(s->plan.sampler);
    return goes_on ? (cpa_window_key){s->agreed_epoch, s->agreed_last + 1} : (cpa_window_key){s->agreed_epoch + 1, 0};
}

// A window whose memory can be used: empty, else of no use any more, else (unless `spare`) what was read ahead for training.
static cpa_window *free_window(cpa_streamer *s, bool spare)
{
    cpa_window *passed = NULL, *ahead = NULL;
    for (int i = 0; i < s->n_windows; i++) {
        cpa_window *w = &s->window[i];
        if (w->state == CPA_WINDOW_EMPTY) {
            return w;
        }
        if (w->state == CPA_WINDOW_READING || is_requested(s, w->key)) {
            continue;
        }
        if (w->key.epoch != LISTED && same_key(w->key, next_of_training(s))) {
            ahead = w;
        } else {
            passed = w;
        }
    }
    return passed != NULL || spare ? passed : ahead;
}

// Has one window of the request in memory.
static cpa_status have_window(cpa_streamer *s, cpa_window_key key)
{
    cpa_status st = CPA_OK;
    if (s->reading != NULL && !same_key(s->reading->key, key)) {
        cpa_window *w = find_window(s, key);
        if (w == NULL) {
            (void)finish_reading(s); // a failure comes again when that window is asked for
        }
    }
    cpa_window *w = find_window(s, key);
    if (w == NULL) {
        w = free_window(s, false);
        CPA_REQUIRE(w != NULL, CPA_INTERNAL, "no memory is free for window %lld of epoch %lld", (long long)key.number,
                    (long long)key.epoch);
        start_reading(s, w, key);
    }
    if (w->state == CPA_WINDOW_READING) {
        CPA_TRY(finish_reading(s));
    }
cleanup:
    return st;
}

static cpa_status have_windows(cpa_streamer *s, int64_t epoch, int64_t first, int64_t last)
{
    cpa_status st = CPA_OK;
    s->first = (cpa_window_key){epoch, first};
    s->last = last;
    for (int64_t k = first; k <= last; k++) {
        CPA_TRY(have_window(s, (cpa_window_key){epoch, k}));
    }
cleanup:
    return st;
}

// The window that follows the request; false behind the last epoch.
static bool next_key(const cpa_streamer *s, cpa_window_key *next)
{
    if (s->first.epoch == LISTED && s->last + 1 < s->n_starts) {
        *next = (cpa_window_key){LISTED, s->last + 1};
        return true;
    }
    if (s->plan.sampler == NULL) {
        return false;
    }
    *next = next_of_training(s);
    return next->epoch < s->plan.n_epochs;
}

// Begins to read what follows the request, if there is memory for it and the threads have nothing to do.
static void read_ahead(cpa_streamer *s)
{
    cpa_window_key next;
    if (s->reading != NULL || !next_key(s, &next) || find_window(s, next) != NULL) {
        return;
    }
    cpa_window *w = free_window(s, true);
    if (w != NULL) {
        s->report.ahead++;
        start_reading(s, w, next);
    }
}

// ---- Requests

cpa_status cpa_streamer_step(cpa_streamer *s, int64_t epoch, int64_t step)
{
    cpa_status st = CPA_OK;
    int64_t mine = INT64_MAX, last_of_all = -1;
    cpa_span span;
    for (int lane = 0; lane < s->plan.n_lanes; lane++) {
        if (cpa_sampler_span(s->plan.sampler, lane, step, &span)) {
            bool own = lane >= s->plan.first_lane && lane < s->plan.end_lane;
            mine = own && span.first < mine ? span.first : mine;
            last_of_all = span.last > last_of_all ? span.last : last_of_all;
        }
    }
    mine = mine < last_of_all ? mine : last_of_all;
    bool is_back = step <= s->agreed_step; // what that step needs may have given way, to a list as well
    if (epoch != s->agreed_epoch || last_of_all != s->agreed_last || is_back) {
        double start = cpa_seconds();
        st = have_windows(s, epoch, mine, last_of_all);
        CPA_TRY(cpa_comm_agree(s->plan.comm, st));
        s->report.waited += cpa_seconds() - start;
        s->agreed_epoch = epoch;
        s->agreed_last = last_of_all;
    }
    s->agreed_step = step;
    s->first = (cpa_window_key){epoch, mine}; // windows before it are passed
    s->last = s->agreed_last;
    read_ahead(s);
cleanup:
    return st;
}

static cpa_status keep_list(cpa_streamer *s, int64_t values)
{
    cpa_status st;
    cpa_decoder *decoder = NULL;
    cpa_decoder_plan plan = decoder_plan(&s->plan, s->n_listed, values);
    cpa_row_stats stats;
    cpa_window *w = &s->all;
    int64_t *pair = NULL;
    CPA_TRY(cpa_window_init(w, s->plan.matrix, s->n_listed, values, 0));
    CPA_TRY(cpa_alloc(2 * (size_t)s->n_listed, sizeof *pair, &pair));
    CPA_TRY(cpa_decoder_create(&plan, &decoder));
    if (!s->plan.imagined) {
        cpa_window_set_list(w, s->plan.matrix, s->listed, s->n_listed, pair);
        cpa_decoder_start(decoder, w->cell, 0, w->cells.n_cells, &w->rows);
        CPA_TRY(cpa_decoder_finish(decoder, &stats));
        s->report.bytes += stats.n_read;
    }
    w->state = CPA_WINDOW_READY;
    s->kept = true;
cleanup:
    cpa_free(&pair);
    cpa_decoder_destroy(&decoder);
    return st;
}

// Cuts the list into windows of whole batches.
static void cut_list(cpa_streamer *s, int batch)
{
    const int64_t *extent = cpa_matrix_extent(s->plan.matrix);
    int64_t n = s->n_listed, values = 0, before = 0; // of the window; of it up to the last whole batch
    int64_t *start = s->start, border = 0;           // where that batch ends
    for (int64_t i = 0; i < n; i++) {
        if (i % batch == 0 && n - i >= 3) {
            border = i;
            before = values;
        }
        values += extent[s->listed[i] + 1] - extent[s->listed[i]];
        bool is_full = i - start[s->n_starts] >= s->max_cells || values > s->max_values;
        if (is_full && border > start[s->n_starts]) { // a batch alone fits, however often its cells come
            start[++s->n_starts] = border;
            values -= before;
            before = 0;
        }
    }
    start[++s->n_starts] = n;
}

cpa_status cpa_streamer_list(cpa_streamer *s, const int64_t *cell, int64_t n, int batch, size_t room)
{
    cpa_status st = CPA_OK;
    const int64_t *extent = cpa_matrix_extent(s->plan.matrix);
    int64_t values = 0;
    s->listed = cell;
    s->n_listed = n;
    for (int64_t i = 0; i < n; i++) {
        values += extent[cell[i] + 1] - extent[cell[i]];
    }
    if (n == 0 || cpa_window_bytes(s->plan.matrix, n, values) <= room) {
        return keep_list(s, values);
    }
    CPA_TRY(cpa_alloc((size_t)(n / batch) + 2, sizeof *s->start, &s->start));
    CPA_TRY(cpa_alloc(2 * (size_t)s->max_cells, sizeof *s->pair, &s->pair));
    cut_list(s, batch);
cleanup:
    return st;
}

// The window of the list that holds its cell `at`.
static int64_t listed_window(const cpa_streamer *s, int64_t at)
{
    int64_t number = 0;
    while (s->start[number + 1] <= at) {
        number++;
    }
    return number;
}

cpa_status cpa_streamer_listed(cpa_streamer *s, int64_t at)
{
    cpa_status st = CPA_OK;
    if (s->kept) {
        return CPA_OK;
    }
    double start = cpa_seconds();
    int64_t number = listed_window(s, at);
    CPA_TRY(have_windows(s, LISTED, number, number));
    s->report.waited += cpa_seconds() - start;
    read_ahead(s);
cleanup:
    return st;
}

void cpa_streamer_places(const cpa_streamer *s, int lane, int64_t step, int n, cpa_place *place)
{
    cpa_span span;
    if (!cpa_sampler_span(s->plan.sampler, lane, step, &span)) {
        return;
    }
    int own = lane - s->plan.first_lane, n_own = s->plan.end_lane - s->plan.first_lane;
    for (int64_t number = span.first, i = 0; i < n; number++, span.offset = 0) {
        const cpa_window *w = find_window(s, (cpa_window_key){s->agreed_epoch, number});
        int64_t end = own + 1 < n_own ? w->lane[own + 1] : w->cells.n_cells;
        for (int64_t at = w->lane[own] + span.offset; i < n && at < end; at++) {
            place[i++] = (cpa_place){&w->cells, w->visit[at]};
        }
    }
}

void cpa_streamer_listed_places(const cpa_streamer *s, int64_t at, int n, cpa_place *place)
{
    int64_t number = s->kept ? 0 : listed_window(s, at), from = s->kept ? 0 : s->start[number];
    const cpa_window *w = s->kept ? &s->all : find_window(s, (cpa_window_key){LISTED, number});
    for (int i = 0; i < n; i++) {
        place[i] = (cpa_place){&w->cells, w->visit[at - from + i]};
    }
}

cpa_status cpa_streamer_unpack(cpa_streamer *s, int64_t epoch, int64_t *cells, int64_t *bytes)
{
    cpa_status st = CPA_OK;
    cpa_window *w = &s->window[0];
    if (s->reading != NULL) {
        CPA_TRY(finish_reading(s));
    }
    w->state = CPA_WINDOW_EMPTY;
    for (int64_t k = 0; k < cpa_sampler_windows(s->plan.sampler); k++) {
        cpa_row_stats stats;
        set_training(s, w, (cpa_window_key){epoch, k});
        cpa_decoder_start_unpacking(s->decoder, w->cell, w->cells.n_cells);
        CPA_TRY(cpa_decoder_finish(s->decoder, &stats));
        *cells += w->cells.n_cells;
        *bytes += stats.n_read;
    }
cleanup:
    return st;
}
