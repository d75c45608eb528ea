// Owns: the choice between resident and streamed cells, and the words about it. Never touches a count.
#include "cpa/data/feed.h"

#include <stdio.h>

#include "cpa/base/log.h"
#include "cpa/platform/tree.h"

enum { LIST_BATCHES = 16 }; // of a window where there is a list alone, if the budget allows

struct cpa_feed {
    cpa_feed_plan plan;
    size_t budget;
    bool is_given;         // by the user
    cpa_matrix *matrix;    // streamed: owned; resident: the cells'
    cpa_cells *cells;      // resident
    bool shares;           // another feed's cells, or another's matrix
    size_t imagined;       // bytes that resident cells would take and do not
    cpa_streamer *stream;  // or streamed
    cpa_place *place;      // [batch] streamed
    const int64_t *listed; // borrowed
    int64_t filled;
    size_t bytes;
};

// Bytes of all cells in memory; `wide`: counts need 32 bits.
static size_t resident_bytes(const cpa_matrix *m, bool wide)
{
    size_t value =
        (cpa_matrix_is_narrow(m) ? sizeof(uint16_t) : sizeof(uint32_t)) + (wide ? sizeof(float) : sizeof(uint16_t));
    return (size_t)m->nnz * value + (size_t)(2 * m->info.n_cells + 1) * sizeof(int64_t);
}

static double mb(size_t bytes)
{
    return (double)bytes / (1 << 20);
}

// In whole MiB, as people say it.
static size_t whole(size_t bytes)
{
    return bytes >> 20 << 20;
}

// Half of what the node has free, where nothing was asked for: the same number on all ranks. Collective.
static cpa_status find_budget(cpa_feed *f)
{
    cpa_status st = CPA_OK;
    f->is_given = f->plan.memory > 0;
    f->budget = (size_t)f->plan.memory;
    if (!f->is_given) {
        double least = -(double)(cpa_memory_available() / 2); // the smallest over ranks is minus the largest of minus
        CPA_TRY(cpa_comm_max_f64(f->plan.comm, &least, 1));
        f->budget = whole((size_t)-least);
    }
cleanup:
    return st;
}

static const char *origin(const cpa_feed *f)
{
    return f->is_given ? "--memory" : "half of what is free";
}

// Whether all cells will be resident: where the budget decides, when they fit. Only where that depends on how large the counts are, these
// are looked at first, unless (a matrix that is shared) that was done. Collective.
static cpa_status choose(cpa_feed *f, bool *resident)
{
    cpa_status st = CPA_OK;
    cpa_matrix *m = f->matrix;
    CPA_TRY(find_budget(f));
    bool best = resident_bytes(m, false) <= f->budget, worst = resident_bytes(m, true) <= f->budget;
    if (best != worst && m->raw != NULL) {
        CPA_TRY(f->shares ? CPA_OK : cpa_matrix_judge(m));
        best = resident_bytes(m, m->stats.wide) <= f->budget;
    }
    *resident = f->plan.tier == CPA_TIER_BY_MEMORY ? best : f->plan.tier == CPA_TIER_RESIDENT;
cleanup:
    return st;
}

static cpa_status refuse(const cpa_feed *f, const char *why)
{
    const cpa_matrix *m = f->matrix;
    return cpa_fail(CPA_CONFIG,
                    "%s: %s needs %.1f MiB in memory, %.1f MiB are allowed (%s), and cannot be streamed: %s",
                    cpa_h5ad_path(m->file), m->path, mb(resident_bytes(m, m->judged && m->stats.wide)), mb(f->budget),
                    origin(f), why);
}

// Why the matrix cannot be streamed. The same on all ranks.
static cpa_status check_streamable(const cpa_feed *f)
{
    const cpa_matrix *m = f->matrix;
    if (m->raw == NULL) {
        char why[1024];
        bool one = cpa_h5ad_n_files(m->file) == 1;
        snprintf(why, sizeof why, "%s%s%s; allow more with --memory, or rewrite it with: cpa-hpc convert %s OUT.h5ad",
                 one ? "" : m->which, one ? "" : ": ", m->why, m->which);
        return refuse(f, why);
    }
    if (f->plan.sampler != NULL && !f->plan.in_blocks) {
        return refuse(f,
                      "the order of --shuffle full needs all cells at hand; allow more with --memory, or take another "
                      "order with --shuffle block");
    }
    return CPA_OK;
}

// `batches`: of a window where there is a list alone.
static cpa_streamer_plan stream_plan(const cpa_feed *f, int batches)
{
    cpa_streamer_plan plan = {.comm = f->plan.comm,
                              .matrix = f->matrix,
                              .sampler = f->plan.sampler,
                              .n_lanes = f->plan.n_lanes,
                              .max_batch = f->plan.batch_size * batches + 2,
                              .n_epochs = f->plan.n_epochs,
                              .imagined = f->shares};
    if (plan.sampler != NULL) {
        cpa_lane_range(plan.n_lanes, cpa_comm_size(plan.comm), cpa_comm_rank(plan.comm), &plan.first_lane,
                       &plan.end_lane);
    }
    return plan;
}

// Bytes of a stream on this rank, and in *most on the rank that has the largest: ranks have more or fewer lanes. Collective.
static cpa_status size_stream(cpa_feed *f, const cpa_streamer_plan *plan, size_t indptr, size_t *one, double *most)
{
    cpa_status st = cpa_streamer_bytes(plan, &f->bytes, one);
    CPA_TRY(cpa_comm_agree(f->plan.comm, st));
    f->bytes += indptr;
    *most = (double)f->bytes;
    CPA_TRY(cpa_comm_max_f64(f->plan.comm, most, 1));
cleanup:
    return st;
}

static cpa_status open_stream(cpa_feed *f)
{
    cpa_status st;
    cpa_matrix *m = f->matrix;
    size_t one, indptr = (size_t)(m->info.n_cells + 1) * sizeof *m->indptr * (m->stored != NULL ? 2 : 1);
    CPA_TRY(check_streamable(f));
    if (!f->shares) {
        CPA_TRY(cpa_matrix_judge(m));
        CPA_TRY(cpa_matrix_warn(m));
    }
    int batches = f->plan.sampler != NULL ? 1 : LIST_BATCHES;
    cpa_streamer_plan plan = stream_plan(f, batches);
    double most;
    size_t allowed = f->is_given ? f->budget : whole(f->budget / (size_t)cpa_comm_node_size(f->plan.comm));
    CPA_TRY(size_stream(f, &plan, indptr, &one, &most));
    for (; most > (double)allowed && batches > 1; batches /= 2) {
        plan = stream_plan(f, batches / 2);
        CPA_TRY(size_stream(f, &plan, indptr, &one, &most));
    }
    CPA_REQUIRE(
        most <= (double)allowed, CPA_CONFIG,
        "%s: a rank needs %.1f MiB to stream %s (windows of %.1f MiB each, of which one is read ahead, and %.1f MiB of "
        "where cells begin), but %.1f MiB are allowed (%s); allow more%s",
        cpa_h5ad_path(m->file), mb((size_t)most), m->path, mb(one), mb(indptr), mb(allowed), origin(f),
        plan.sampler == NULL
            ? ""
            : ", use more ranks and lanes, or, for another order of cells, a smaller --shuffle-window");
    f->budget = allowed;
    st = cpa_streamer_create(&plan, &f->stream);
    if (st == CPA_OK) {
        st = cpa_alloc((size_t)plan.max_batch, sizeof *f->place, &f->place);
    }
    CPA_TRY(cpa_comm_agree(f->plan.comm, st));
    cpa_info("cells are streamed: %lld values would take %.1f MiB, %.1f MiB are allowed (%s); a rank holds %.1f MiB",
             (long long)m->nnz, mb(resident_bytes(m, m->stats.wide)), mb(allowed), origin(f), mb((size_t)most));
cleanup:
    return st;
}

cpa_status cpa_feed_open(const cpa_feed_plan *plan, cpa_feed **out)
{
    cpa_feed *f = NULL;
    bool resident = false;
    cpa_status st = cpa_alloc(1, sizeof *f, &f);
    CPA_TRY(cpa_comm_agree(plan->comm, st));
    f->plan = *plan;
    CPA_TRY(cpa_matrix_open(plan->comm, plan->file, plan->layer, &f->matrix));
    CPA_TRY(choose(f, &resident));
    if (resident) {
        CPA_TRY(cpa_cells_load_matrix(&f->matrix, &f->cells));
        f->bytes = f->cells->bytes;
        cpa_info("cells are resident: %lld values in %.1f MiB, one copy on each node, %.1f MiB are allowed (%s)",
                 (long long)f->cells->nnz, mb(f->bytes), mb(f->budget), origin(f));
    } else {
        CPA_TRY(open_stream(f));
    }
    *out = f;
    f = NULL;
cleanup:
    cpa_feed_close(&f);
    return st;
}

cpa_status cpa_feed_imagine(const cpa_feed_plan *plan, cpa_matrix *m, cpa_feed **out)
{
    cpa_feed *f = NULL;
    bool resident = false;
    cpa_status st;
    CPA_TRY(cpa_alloc(1, sizeof *f, &f));
    f->plan = *plan;
    f->matrix = m;
    f->shares = true;
    CPA_TRY(choose(f, &resident));
    if (resident) {
        f->bytes = resident_bytes(m, m->stats.wide);
        f->imagined = f->bytes - (size_t)(m->info.n_cells + 1) * sizeof *m->indptr;
        cpa_memory_note(CPA_MEMORY_NODE, (long)f->imagined);
    } else {
        CPA_TRY(open_stream(f));
    }
    *out = f;
    f = NULL;
cleanup:
    cpa_feed_close(&f);
    return st;
}

cpa_status cpa_feed_share(const cpa_feed *whole, cpa_sampler *sampler, cpa_feed **out)
{
    cpa_status st;
    CPA_REQUIRE(whole->cells != NULL, CPA_INTERNAL, "cells that are streamed cannot be shared");
    CPA_TRY(cpa_alloc(1, sizeof **out, out));
    **out =
        (cpa_feed){.plan = whole->plan, .budget = whole->budget, .is_given = whole->is_given, .bytes = whole->bytes};
    (*out)->plan.sampler = sampler;
    (*out)->cells = whole->cells;
    (*out)->shares = true;
cleanup:
    return st;
}

void cpa_feed_close(cpa_feed **out)
{
    cpa_feed *f = *out;
    if (f == NULL) {
        return;
    }
    cpa_streamer_destroy(&f->stream);
    if (!f->shares) {
        cpa_cells_destroy(&f->cells);
        cpa_matrix_close(&f->matrix);
    }
    cpa_memory_note(CPA_MEMORY_NODE, -(long)f->imagined);
    cpa_free(&f->place);
    cpa_free(out);
}

static const cpa_matrix *matrix_of(const cpa_feed *f)
{
    return f->cells != NULL ? f->cells->matrix : f->matrix;
}

size_t cpa_feed_budget(const cpa_feed *f)
{
    return f->budget;
}

int64_t cpa_feed_nnz(const cpa_feed *f)
{
    return matrix_of(f)->nnz;
}

double cpa_feed_max_count(const cpa_feed *f)
{
    return matrix_of(f)->stats.max_count;
}

uint64_t cpa_feed_totals(const cpa_feed *f)
{
    return matrix_of(f)->stats.totals;
}

cpa_status cpa_feed_max_nnz(const cpa_feed *f, int n, int64_t *out)
{
    if (f->cells != NULL) {
        return cpa_loader_max_nnz(f->cells, n, out);
    }
    return cpa_loader_max_nnz(&(cpa_cells){.n_cells = f->matrix->info.n_cells, .indptr = f->matrix->indptr}, n, out);
}

cpa_status cpa_feed_list(cpa_feed *f, const int64_t *cell, int64_t n)
{
    f->listed = cell;
    if (f->stream == NULL) {
        return CPA_OK;
    }
    size_t room = f->budget > f->bytes ? f->budget - f->bytes : 0;
    return cpa_comm_agree(f->plan.comm, cpa_streamer_list(f->stream, cell, n, f->plan.batch_size, room));
}

cpa_status cpa_feed_step(cpa_feed *f, int64_t epoch, int64_t step)
{
    return f->stream != NULL ? cpa_streamer_step(f->stream, epoch, step) : CPA_OK;
}

// Whether there are cells to fill batches with.
static cpa_status has_cells(const cpa_feed *f)
{
    return f->cells != NULL || !f->shares ? CPA_OK : cpa_fail(CPA_INTERNAL, "a feed that is imagined has no cells");
}

cpa_status cpa_feed_fill(cpa_feed *f, const cpa_registry *registry, int lane, int64_t step, cpa_batch *batch)
{
    cpa_status st;
    const int64_t *row;
    int n;
    CPA_TRY(has_cells(f));
    cpa_sampler_batch(f->plan.sampler, lane, step, &row, &n);
    f->filled += n;
    if (batch->all != NULL) {
        return cpa_loader_name(registry, row, n, batch);
    }
    if (f->cells != NULL) {
        return cpa_loader_fill(f->cells, registry, row, n, batch);
    }
    cpa_streamer_places(f->stream, lane, step, n, f->place);
    CPA_TRY(cpa_loader_fill_from(f->place, registry, row, n, batch));
cleanup:
    return st;
}

cpa_status cpa_feed_fill_listed(cpa_feed *f, const cpa_registry *registry, int64_t at, int n, cpa_batch *batch)
{
    cpa_status st;
    CPA_TRY(has_cells(f));
    f->filled += n;
    if (f->cells != NULL) {
        return cpa_loader_fill(f->cells, registry, f->listed + at, n, batch);
    }
    CPA_TRY(cpa_streamer_listed(f->stream, at));
    cpa_streamer_listed_places(f->stream, at, n, f->place);
    CPA_TRY(cpa_loader_fill_from(f->place, registry, f->listed + at, n, batch));
cleanup:
    return st;
}

const cpa_cells *cpa_feed_cells(const cpa_feed *f)
{
    return f->cells;
}

const cpa_matrix *cpa_feed_resident(const cpa_feed *f)
{
    return f->cells != NULL || f->imagined > 0 ? matrix_of(f) : NULL;
}

cpa_streamer *cpa_feed_streamer(const cpa_feed *f)
{
    return f->stream;
}

cpa_feed_report cpa_feed_reported(const cpa_feed *f)
{
    const cpa_matrix *m = matrix_of(f);
    cpa_feed_report report = {.bytes = f->bytes, .read = m->n_read, .filled = f->filled};
    if (f->stream != NULL) {
        cpa_streamer_report r = cpa_streamer_reported(f->stream);
        report.streamed = true;
        report.read += r.bytes;
        report.waited = r.waited;
    }
    return report;
}
