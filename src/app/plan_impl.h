// Owns: what the files of the command `plan` share: what one rank of a training run would take. Never used outside these files.
#ifndef CPA_APP_PLAN_IMPL_H
#define CPA_APP_PLAN_IMPL_H

#include "train_impl.h"

// What a rank would take, in bytes.
typedef struct cpa_need {
    int rank, batch;
    bool streamed;
    size_t allowed; // for cells, as --memory says it
    cpa_ledger items;
    size_t start;      // of the program before it reads anything
    size_t libraries;  // of HDF5, oneDNN and the threads once they are in use
    size_t scratch[2]; // of the items: the backend's, of a step of the adversaries, of one of the autoencoder
    size_t image;      // of the items: a checkpoint, on rank 0
    size_t writing;    // beside them, for a moment: what HDF5 holds while a checkpoint or best.h5 is made
} cpa_need;

// What is planned.
typedef struct cpa_outlook {
    const cpa_options *o;
    cpa_train_run
        data; // its options, with a --memory that was found where none was asked for, and what is read of it once: file,
              // registry, genes, vectors
    long columns; // bytes of that
    cpa_matrix *matrix;
    size_t start;
    int n_ranks, per_node, n_nodes, threads;
    const char *threads_from; // in words
    cpa_need host[2], device; // of rank 0 and of the last one; of rank 0 with a GPU
    cpa_need fit, fit_device; // of rank 0 with the largest batch that fits; batch 0: none does, or none was looked for
} cpa_outlook;

/** Bytes on the host, the share of the node included, or on the device. */
size_t cpa_need_host(const cpa_need *n);
size_t cpa_need_device(const cpa_need *n);

/** Bytes on a node: of all its ranks, what they share once. The ranks behind the first are taken to be as large as it, but for the
 *  checkpoint. */
size_t cpa_outlook_node(const cpa_outlook *p);

/** What rank `rank` would take with batches of so many cells on that backend ("cpu", "cuda"). `like` is what it takes there with others,
 *  whose checkpoint, as large with any, is then not made again; or NULL. Rank-local. */
cpa_status cpa_outlook_need(const cpa_outlook *p, int rank, int batch, const char *backend, const cpa_need *like,
                            cpa_need *out);

/** The largest batch, up to all training cells of a lane, with which rank 0 takes no more than `limit` bytes on the host, or (cuda) on
 *  the device; out->batch is 0 when none does. p->host and p->device must be known. Rank-local. */
cpa_status cpa_outlook_fit(const cpa_outlook *p, const char *backend, size_t limit, cpa_need *out);

/** The plan as a page, as JSON. */
cpa_status cpa_outlook_page(const cpa_outlook *p, cpa_text *t);
cpa_status cpa_outlook_json(const cpa_outlook *p, cpa_text *t);

#endif
