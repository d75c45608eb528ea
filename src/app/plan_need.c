// Owns: finding out what a rank would take: the code that takes it is run, with a backend that counts. Never computes a size itself.
#include <limits.h>
#include <string.h>

#include "plan_impl.h"

// Measured, over runs with and without MPI, streamed and resident: 8 to 20 MiB that no allocation of the program accounts for.
static const size_t LIBRARIES = 12 << 20;

enum { SMALLEST = 3 }; // of the batches that --batch-size takes

// What HDF5 makes of the state, once for real.
typedef struct images {
    const cpa_train_run *run;
    cpa_need *need;
    cpa_checkpoint *checkpoint;
} images;

// A checkpoint and best.h5 as rank 0 makes them.
static cpa_status make_images(void *ctx, const cpa_train_state *state)
{
    cpa_status st;
    images *im = ctx;
    bool done = false;
    void *best = NULL;
    size_t n_best = 0;
    CPA_TRY(cpa_modelfile_image(state->params, state->best, &im->run->meta, &best, &n_best));
    cpa_free(&best);
    long before = cpa_memory_bytes(CPA_MEMORY_HOST);
    CPA_TRY(cpa_checkpoint_create(state, &im->run->facts, &im->checkpoint));
    CPA_TRY(cpa_checkpoint_lay(im->checkpoint, state, 1e9, &done));
    im->need->image = (size_t)(cpa_memory_bytes(CPA_MEMORY_HOST) - before);
    im->need->writing = im->need->image > 2 * n_best ? im->need->image : 2 * n_best; // the second: beside the first
cleanup:
    return st;
}

// `like`: see cpa_outlook_need.
static cpa_status rehearse(cpa_train_run *run, const cpa_need *like, cpa_need *out)
{
    cpa_status st;
    images im = {.run = run, .need = out};
    bool checkpoints = run->options.checkpoint_every_steps > 0 || run->options.checkpoint_every_seconds > 0;
    cpa_rehearsal r = {.ctx = &im};
    r.checkpoint = like == NULL && cpa_comm_rank(run->comm) == 0 && checkpoints ? make_images : NULL;
    cpa_step_parts parts = cpa_train_parts(run);
    CPA_TRY(cpa_train_rehearse(&parts, run->history, &r));
    memcpy(out->scratch, r.scratch, sizeof out->scratch);
cleanup:
    cpa_checkpoint_destroy(&im.checkpoint);
    return st;
}

// The matrix was opened before: where cells begin, which genes have counts and, while cells are streamed, where the chunks are is part
// of what they take.
static void count_matrix(const cpa_matrix *m, cpa_need *out)
{
    long pointers = (m->info.n_cells + 1) * (long)sizeof *m->indptr * (m->stored != NULL ? 2 : 1);
    long *cells = out->items.bytes[CPA_ITEM_CELLS];
    cells[CPA_MEMORY_NODE] += pointers;
    cells[CPA_MEMORY_HOST] += m->info.n_genes * (long)sizeof *m->counted;
    cells[CPA_MEMORY_HOST] += out->streamed ? (long)cpa_h5ad_raw_bytes(m->raw) : 0;
}

static cpa_status set_text(char **to, const char *text)
{
    cpa_free(to);
    return cpa_strdup(text, to);
}

// Gradients are added on GPUs where the backend has some: the run without them that comes nearest adds them as a tree.
static cpa_status set_backend(cpa_options *o, const char *backend)
{
    cpa_status st = CPA_OK;
    CPA_TRY(set_text(&o->backend, backend));
    if (strcmp(backend, "cpu") == 0 && strcmp(o->train.reduce, "nccl") == 0) {
        CPA_TRY(set_text(&o->train.reduce, "tree"));
    }
cleanup:
    return st;
}

cpa_status cpa_outlook_need(const cpa_outlook *p, int rank, int batch, const char *backend, const cpa_need *like,
                            cpa_need *out)
{
    cpa_status st;
    cpa_comm_get_on();
    cpa_train_run run = {.imagined = p->matrix, .file = p->data.file, .registry = p->data.registry};
    *out = (cpa_need){.rank = rank, .batch = batch, .start = p->start, .libraries = LIBRARIES};
    run.gene = p->data.gene;
    run.vectors = p->data.vectors;
    CPA_TRY(cpa_comm_imagine(rank, p->n_ranks, p->per_node, &run.comm));
    CPA_TRY(cpa_options_copy(&p->data.options, &run.options));
    run.options.train.batch_size = batch;
    CPA_TRY(set_backend(&run.options, backend));
    cpa_ledger_begin(&run.ledger);
    CPA_TRY(cpa_train_prepare(&run));
    out->streamed = cpa_feed_streamer(run.feed) != NULL;
    out->allowed = cpa_feed_budget(run.feed);
    CPA_TRY(rehearse(&run, like, out));
    out->items = run.ledger;
    if (like != NULL) {
        out->image = like->image;
        out->writing = like->writing;
        out->items.bytes[CPA_ITEM_STEPS][CPA_MEMORY_HOST] += (long)like->image;
    }
    out->items.bytes[CPA_ITEM_COLUMNS][CPA_MEMORY_HOST] += p->columns;
    count_matrix(p->matrix, out);
cleanup:
    run.file = NULL; // what is the outlook's stays
    run.registry = NULL;
    run.gene = (cpa_strings){0};
    run.vectors = NULL;
    cpa_train_tear_down(&run, false);
    cpa_comm_destroy(&run.comm);
    return st;
}

// Whether a run with such batches would be, and take no more than the limit. Batches that outgrow what is allowed for windows of cells
// (CONFIG), or what a batch can count (BAD_DATA), do not fit.
static cpa_status fits(const cpa_outlook *p, const char *backend, size_t limit, int64_t batch, cpa_need *out, bool *is)
{
    cpa_need n;
    bool cuda = strcmp(backend, "cuda") == 0;
    cpa_status st = cpa_outlook_need(p, 0, (int)batch, backend, cuda ? &p->device : &p->host[0], &n);
    *is = st == CPA_OK && (cuda ? cpa_need_device(&n) : cpa_need_host(&n)) <= limit;
    if (*is) {
        *out = n;
    }
    return st == CPA_CONFIG || st == CPA_BAD_DATA ? CPA_OK : st;
}

cpa_status cpa_outlook_fit(const cpa_outlook *p, const char *backend, size_t limit, cpa_need *out)
{
    cpa_status st = CPA_OK;
    bool is = false;
    int64_t most = p->data.registry->n_train / p->o->train.lanes, good = SMALLEST - 1;
    most = most < INT_MAX - 2 ? most : INT_MAX - 2; // a batch of two cells more can be counted
    int64_t bad = most + 1;
    *out = (cpa_need){0};
    // Upwards: what is far too large may not even be had to be counted.
    for (int64_t next = SMALLEST < most ? SMALLEST : most; bad - good > 1;) {
        CPA_TRY(fits(p, backend, limit, next, out, &is));
        good = is ? next : good;
        bad = is ? bad : next;
        int64_t middle = good + (bad - good) / 2;
        next = is && 2 * good >= most && bad > most ? most : 2 * good < middle ? 2 * good : middle;
    }
cleanup:
    return st;
}

size_t cpa_need_host(const cpa_need *n)
{
    return n->start + n->libraries + (size_t)cpa_ledger_total(&n->items, CPA_MEMORY_HOST) +
           (size_t)cpa_ledger_total(&n->items, CPA_MEMORY_NODE) + n->writing;
}

size_t cpa_need_device(const cpa_need *n)
{
    return (size_t)cpa_ledger_total(&n->items, CPA_MEMORY_DEVICE);
}

size_t cpa_outlook_node(const cpa_outlook *p)
{
    const cpa_need *n = &p->host[0];
    size_t shared = (size_t)cpa_ledger_total(&n->items, CPA_MEMORY_NODE), own = cpa_need_host(n) - shared;
    size_t ranks = (size_t)(p->n_ranks < p->per_node ? p->n_ranks : p->per_node);
    return own + (ranks - 1) * (own - n->image - n->writing) + shared;
}
