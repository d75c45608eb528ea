// Owns: the command `bench`, and of it `bench loader`: how fast batches come out of a file, streamed and resident, beside what unpacking alone reaches.
// Never trains: batches are filled and forgotten.
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "bench_impl.h"
#include "cpa/app/commands.h"
#include "cpa/base/log.h"
#include "cpa/data/feed.h"
#include "cpa/platform/tree.h"

// What is measured on.
typedef struct loader_bench {
    cpa_comm *comm;
    const cpa_options *options;
    cpa_h5ad *file;
    cpa_registry *registry;
    cpa_sampler *sampler;
    int64_t n_epochs;
} loader_bench;

static cpa_status set_up(loader_bench *b)
{
    cpa_status st;
    const cpa_train_config *c = &b->options->train;
    int64_t *cell = NULL, n = 0, block = c->shuffle_block;
    CPA_TRY(cpa_h5ad_open(b->options->path, &b->file));
    CPA_TRY(cpa_h5ad_select(b->file, b->options->data.layer, b->options->data.genes));
    CPA_TRY(cpa_registry_create(b->file, &b->options->data, true, &b->registry));
    CPA_TRY(cpa_alloc((size_t)b->registry->n_train, sizeof *cell, &cell));
    for (int64_t i = 0; i < b->registry->n_cells; i++) {
        if (b->registry->split[i] == CPA_SPLIT_TRAIN) {
            cell[n++] = i;
        }
    }
    CPA_TRY(cpa_sampler_create(cell, n, c->lanes, c->batch_size, (int)block, (c->shuffle_window + block - 1) / block,
                               (uint64_t)b->options->model.seed, &b->sampler));
    b->n_epochs = c->max_epochs > 0 ? c->max_epochs : 1;
cleanup:
    cpa_free(&cell);
    return st;
}

static cpa_status open_feed(const loader_bench *b, cpa_tier tier, cpa_feed **feed, cpa_batch **batch)
{
    cpa_status st;
    const cpa_registry *r = b->registry;
    int64_t nnz;
    int most = cpa_sampler_max_batch(b->sampler);
    CPA_TRY(cpa_feed_open(&(cpa_feed_plan){.comm = b->comm,
                                           .file = b->file,
                                           .layer = r->spec.layer,
                                           .sampler = b->sampler,
                                           .in_blocks = true,
                                           .n_lanes = b->options->train.lanes,
                                           .batch_size = b->options->train.batch_size,
                                           .n_epochs = b->n_epochs,
                                           .memory = b->options->memory,
                                           .tier = tier},
                          feed));
    CPA_TRY(cpa_comm_agree(b->comm, cpa_feed_max_nnz(*feed, most, &nnz)));
    CPA_TRY(cpa_comm_agree(b->comm, cpa_batch_create(most, nnz, r->n_genes, r->n_covs, r->max_comb_len, batch)));
cleanup:
    return st;
}

// Has the cells of this rank's lanes at hand, step by step from this epoch through the last, and with a batch fills it; their number.
static cpa_status go_through(const loader_bench *b, cpa_feed *feed, cpa_batch *batch, int64_t epoch, int64_t *cells)
{
    cpa_status st = CPA_OK;
    int first, end;
    cpa_lane_range(b->options->train.lanes, cpa_comm_size(b->comm), cpa_comm_rank(b->comm), &first, &end);
    for (; epoch < b->n_epochs; epoch++) {
        CPA_TRY(cpa_sampler_epoch(b->sampler, epoch));
        for (int64_t step = 0; step < cpa_sampler_steps(b->sampler); step++) {
            CPA_TRY(cpa_feed_step(feed, epoch, step));
            for (int lane = first; lane < end; lane++) {
                const int64_t *rows;
                int n;
                cpa_sampler_batch(b->sampler, lane, step, &rows, &n);
                if (batch != NULL) {
                    CPA_TRY(cpa_feed_fill(feed, b->registry, lane, step, batch));
                }
                *cells += n;
            }
        }
    }
cleanup:
    return st;
}

// Time by the clock, and of all threads of this process together: on a shared machine the latter tells more.
typedef struct stopwatch {
    double wall, cpu;
} stopwatch;

static stopwatch read_clocks(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (stopwatch){cpa_seconds(), (double)t.tv_sec + 1e-9 * (double)t.tv_nsec};
}

// A row of the table: cells of all ranks over the time of the slowest. Collective.
static cpa_status print_row(const loader_bench *b, const char *what, const stopwatch *since, int64_t cells,
                            int64_t bytes)
{
    cpa_status st;
    stopwatch now = read_clocks();
    double wall = now.wall - since->wall;
    int64_t sum[3] = {cells, bytes, (int64_t)(1e6 * (now.cpu - since->cpu))};
    CPA_TRY(cpa_comm_max_f64(b->comm, &wall, 1));
    CPA_TRY(cpa_comm_sum_i64(b->comm, sum, 3));
    if (cpa_comm_rank(b->comm) == 0) {
        printf("%-26s %9.3f %9.3f %12.0f %12.0f %9.1f\n", what, wall, (double)sum[2] / 1e6, (double)sum[0] / wall,
               (double)sum[0] / (double)sum[2] * 1e6, (double)sum[1] / 1e6);
    }
cleanup:
    return st;
}

// One row of a streamed feed: with batches, or without.
static cpa_status stream_row(const loader_bench *b, cpa_feed *feed, cpa_batch *batch, const char *what)
{
    cpa_status st;
    int64_t cells = 0, before = cpa_feed_reported(feed).read;
    stopwatch start = read_clocks();
    CPA_TRY(cpa_comm_agree(b->comm, go_through(b, feed, batch, 0, &cells)));
    CPA_TRY(print_row(b, what, &start, cells, cpa_feed_reported(feed).read - before));
cleanup:
    return st;
}

static cpa_status measure_stream(const loader_bench *b)
{
    cpa_status st;
    cpa_feed *feed = NULL;
    cpa_batch *batch = NULL;
    int64_t cells = 0, bytes = 0;
    CPA_TRY(open_feed(b, CPA_TIER_STREAMED, &feed, &batch));
    // Windows are memory that is touched for the first time once, however many epochs follow. After the last nothing is read ahead.
    CPA_TRY(cpa_comm_agree(b->comm, go_through(b, feed, NULL, b->n_epochs - 1, &cells)));
    cells = 0;
    CPA_TRY(stream_row(b, feed, batch, "streamed batches"));
    CPA_TRY(stream_row(b, feed, NULL, "streamed windows alone"));
    stopwatch start = read_clocks();
    for (int64_t epoch = 0; epoch < b->n_epochs; epoch++) {
        CPA_TRY(cpa_comm_agree(b->comm, cpa_streamer_unpack(cpa_feed_streamer(feed), epoch, &cells, &bytes)));
    }
    CPA_TRY(print_row(b, "unpacking the same alone", &start, cells, bytes));
cleanup:
    cpa_batch_destroy(&batch);
    cpa_feed_close(&feed);
    return st;
}

static cpa_status measure_resident(const loader_bench *b)
{
    cpa_status st;
    cpa_feed *feed = NULL;
    cpa_batch *batch = NULL;
    int64_t cells = 0;
    stopwatch start = read_clocks();
    CPA_TRY(open_feed(b, CPA_TIER_RESIDENT, &feed, &batch));
    bool counts = cpa_comm_node_rank(b->comm) == 0; // the ranks of a node load its copy together
    CPA_TRY(print_row(b, "loading all cells", &start, counts ? b->registry->n_cells : 0, cpa_feed_reported(feed).read));
    start = read_clocks();
    CPA_TRY(cpa_comm_agree(b->comm, go_through(b, feed, batch, 0, &cells)));
    CPA_TRY(print_row(b, "resident batches", &start, cells, 0));
cleanup:
    cpa_batch_destroy(&batch);
    cpa_feed_close(&feed);
    return st;
}

cpa_status cpa_cmd_bench(cpa_comm *comm, const cpa_options *o)
{
    cpa_status st;
    if (strcmp(o->subject, "step") == 0) {
        return cpa_bench_step(comm, o);
    }
    loader_bench b = {.comm = comm, .options = o};
    CPA_TRY(cpa_comm_agree(comm, set_up(&b)));
    if (cpa_comm_rank(comm) == 0) {
        printf("%-26s %9s %9s %12s %12s %9s\n", "what", "seconds", "core s", "cells/s", "cells/core s", "MB read");
    }
    CPA_TRY(measure_stream(&b));
    CPA_TRY(measure_resident(&b));
cleanup:
    cpa_sampler_destroy(&b.sampler);
    cpa_registry_destroy(&b.registry);
    cpa_h5ad_close(&b.file);
    return st;
}
